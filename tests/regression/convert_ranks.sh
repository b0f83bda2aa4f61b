# SPDX-License-Identifier: Apache-2.0
#
# A folder is read by ranks that share it in each way, written as one checkpoint, and exported: the
# same bytes.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

cat >deck.yaml <<'DECK'
run: {name: ranks, steps: 0, precision: bf16, peak_flops: 1e9}
model: {init: folder}
data: {train: [{path: "synthetic:markov"}], sequence: 32, batch: 4, microbatch: 1}
optimizer: {learning_rate: {peak: 1.0e-3}}
output: {checkpoint_every: 1}
DECK
folder=$QNEXT_SHARED/golden/tiny/hf_released
"$QNEXT" info "$folder" --tensors | grep ' BF16 ' >wanted
[ "$(wc -l <wanted)" -eq 195 ] || fail "the folder has other tensors"

# through RANKS DEGREES ...
through() {
  local ranks=$1
  shift
  rm -rf run back
  expect_status 0 "$QNEXT_MPIRUN" -n "$ranks" "$QNEXT" train deck.yaml model.init="$folder" output.folder=run "$@"
  expect_status 0 "$QNEXT" convert run back
  "$QNEXT" info back --tensors | grep ' BF16 ' >found
  cmp wanted found || fail "$ranks ranks, $*: other bytes"
}
for degree in tensor context pipeline expert data; do
  through 2 parallel.$degree=2
done
through 4 parallel.data=4
through 4 parallel.tensor=2 parallel.pipeline=2
through 4 parallel.expert=4
through 4 parallel.tensor=2 parallel.context=2
# A checkpoint of four ranks goes on with two.
through 4 parallel.pipeline=2 parallel.expert=2
expect_status 0 "$QNEXT_MPIRUN" -n 2 "$QNEXT" train deck.yaml model.init="$folder" output.folder=run \
  output.resume=run/checkpoints/step_0.h5 parallel.tensor=2
rm -rf back
expect_status 0 "$QNEXT" convert run back
"$QNEXT" info back --tensors | grep ' BF16 ' >found
cmp wanted found || fail "resumed: other bytes"
expect_status 2 "$QNEXT_MPIRUN" -n 2 "$QNEXT" convert run other
expect_text "the job has 2 ranks"
