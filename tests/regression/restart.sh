# SPDX-License-Identifier: Apache-2.0
#
# A run that was killed and went on has the bits of one that was not, in float and bf16.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

for precision in float bf16; do
  tiny run.precision=$precision output.folder=whole_$precision >/dev/null

  # Killed without warning as soon as its second checkpoint is there.
  prefix=exec tiny run.precision=$precision output.folder=killed_$precision >/dev/null &
  run=$!
  wait_for killed_$precision/checkpoints/step_8.h5
  kill -9 $run 2>/dev/null || true
  wait $run 2>/dev/null || true
  rm -f killed_$precision/checkpoints/step_12.h5
  expect_status 0 tiny run.precision=$precision output.folder=killed_$precision
  expect_text "resume=killed_$precision/checkpoints/step_8.h5 step=8"

  expect_same_tensors {whole,killed}_$precision/checkpoints/step_12.h5
  diff <(losses whole_$precision) <(losses killed_$precision) || fail "losses differ in $precision"
done
