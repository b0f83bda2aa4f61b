# SPDX-License-Identifier: Apache-2.0
#
# Two expert ranks train the model of one: in double within 1e-9 of every loss, a million times what
# one order of summation differs from another, with MTP, packed documents, dropout and evaluation. So
# do four ranks of which two hold the same experts, and expert beside tensor ranks. A run repeats itself bit for bit, and goes on at
# another layout.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

run one 1
run expert 2 parallel.expert=2
run again 2 parallel.expert=2
run groups 4 parallel.expert=2 parallel.receive_factor=1.0
grep -q '^ranks=4 tensor=1 .* expert=2 data=4 ' groups.out || fail "not two groups of two expert ranks"
expect_close one expert 16
expect_close one groups 16

# Experts over the ranks that divide all else by tensor: beside data ranks, inside one tensor group,
# and two tensor ranks of four that hold the same experts.
run fold 4 parallel.tensor=2 parallel.expert=4 output.checkpoint_every=0
run inside 2 parallel.tensor=2 parallel.expert=2 output.checkpoint_every=0
run pairs 4 parallel.tensor=2 parallel.expert=2 output.checkpoint_every=0
for folder in fold inside pairs; do
  expect_close one "$folder" 16
done
expect_same_tensors expert/checkpoints/step_8.h5 again/checkpoints/step_8.h5
diff <(losses expert) <(losses again) || fail "the metrics of two equal runs differ"
! h5diff one/checkpoints/step_8.h5 expert/checkpoints/step_8.h5 /parameters >difference ||
  fail "two ranks have the bits of one: was anything divided?"

# The file of two ranks has the tensors of one, whole.
expect_status 0 "$QNEXT" info expert/checkpoints/step_8.h5
expect_text "step=8"
for folder in one expert groups; do
  h5ls -r "$folder/checkpoints/step_8.h5/parameters" >"$folder.tensors"
  h5ls -r "$folder/checkpoints/step_8.h5/optimizer" >>"$folder.tensors"
done
grep -q 'experts.down_proj' one.tensors || fail "no experts in the checkpoint"
diff one.tensors expert.tensors && diff one.tensors groups.tensors || fail "checkpoints hold other tensors"

# From step 4 on one rank, and the other way round.
mkdir -p expert_one/checkpoints one_expert/checkpoints
cp expert/checkpoints/step_4.h5 expert_one/checkpoints
cp one/checkpoints/step_4.h5 one_expert/checkpoints
run expert_one 1
run one_expert 2 parallel.expert=2
mkdir last_four
tail -n 4 one/metrics.jsonl >last_four/metrics.jsonl
for folder in expert_one one_expert; do
  grep -q '^resume=.*step=4' "$folder.out" || fail "$folder did not resume"
  expect_close last_four "$folder" 8
done

train="$QNEXT_MPIRUN -n 4 $QNEXT train $QNEXT_SOURCE/inputs/tiny.yaml"
expect_status 2 $train parallel.expert=3
expect_text "and the 4 ranks of tensor x context x data; these do: 1, 2, 4"
