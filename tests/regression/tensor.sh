# SPDX-License-Identifier: Apache-2.0
#
# Two tensor ranks train the model of one: in double within 1e-9 of every loss, a million times what
# one order of summation differs from another, with MTP, packed documents, dropout and evaluation.
# Two data ranks of two tensor ranks have the bits of one, and a run goes on at another layout.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

run one 1
run tensor 2 parallel.tensor=2
run tensor_data 4 parallel.tensor=2
grep -q '^ranks=4 tensor=2 .* data=2 ' tensor_data.out || fail "not two data ranks of two tensor ranks"
expect_close one tensor 16
expect_same_tensors tensor/checkpoints/step_8.h5 tensor_data/checkpoints/step_8.h5
diff <(losses tensor) <(losses tensor_data) || fail "the metrics of one and two data ranks differ"
! diff <(losses one) <(losses tensor) >difference || fail "two ranks have the bits of one: was anything divided?"

# From step 4 on one rank, and the other way round.
mkdir -p tensor_one/checkpoints one_tensor/checkpoints
cp tensor/checkpoints/step_4.h5 tensor_one/checkpoints
cp one/checkpoints/step_4.h5 one_tensor/checkpoints
run tensor_one 1
run one_tensor 2 parallel.tensor=2
tail -n 4 one/metrics.jsonl >last && mkdir last_four && mv last last_four/metrics.jsonl
for folder in tensor_one one_tensor; do
  expect_close last_four "$folder" 8
done

expect_status 2 $QNEXT_MPIRUN -n 3 "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" parallel.tensor=2
expect_text "the job has 3 ranks, which is no multiple of it"
