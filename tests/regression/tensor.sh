# SPDX-License-Identifier: Apache-2.0
#
# Two tensor ranks train the model of one: in double within 1e-9 of every loss, a million times what
# one order of summation differs from another, with MTP, packed documents, dropout and evaluation.
# Two data ranks of two tensor ranks have the bits of one, and a run goes on at another layout.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

# run FOLDER RANKS OVERRIDES ...
run() {
  local folder=$1 ranks=$2
  shift 2
  prefix="$QNEXT_MPIRUN -n $ranks" tiny run.precision=double data.batch=8 run.steps=8 "$@" \
    'data.evaluate={last_fraction: 0.002, every: 4}' output.folder="$folder" >"$folder.out" 2>&1 || {
    cat "$folder.out"
    fail "$folder"
  }
}

numbers() {
  grep -oE '"(loss|loss_mtp|loss_balance|gradient_norm|evaluation_loss)": [-0-9.e+]+' "$1/metrics.jsonl"
}

# Equal names, and numbers within 1e-9 of each other; at least so many of them.
expect_close() {
  [ "$(numbers "$1" | wc -l)" -ge "$3" ] || fail "$1 has no losses"
  paste <(numbers "$1") <(numbers "$2") | awk '
    { difference = $2 - $4; size = $2 < 0 ? -$2 : $2 }
    $1 != $3 || difference > 1e-9 * size || -difference > 1e-9 * size { print; bad = 1 }
    END { exit bad }' || fail "$1 and $2 differ"
}

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
