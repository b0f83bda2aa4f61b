# SPDX-License-Identifier: Apache-2.0
#
# A run whose ranks are killed one after the other, and that goes on with another number of them each
# time, has the bits of one rank that was left alone.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

for precision in float bf16; do
  run_of="data.microbatch=1 run.precision=$precision run.steps=12"
  prefix="$QNEXT_MPIRUN -n 1" tiny $run_of output.folder=whole_$precision >/dev/null

  for ranks in 4 1 2; do
    prefix="exec $QNEXT_MPIRUN -n $ranks" tiny $run_of output.folder=killed_$precision >killed.out 2>&1 &
    run=$!
    case $ranks in
      4) wait_for killed_$precision/checkpoints/step_4.h5 ;;
      1) wait_for killed_$precision/checkpoints/step_8.h5 ;;
      2) wait $run || fail "the last of them: $(cat killed.out)" ;;
    esac
    if [ $ranks -ne 2 ]; then
      kill -9 "$(cat /proc/$run/task/*/children 2>/dev/null | tr ' ' '\n' | grep . | tail -1)" 2>/dev/null || true
      wait $run 2>/dev/null || true
      # A machine that was too quick for the kill: the next one starts where it should all the same.
      [ $ranks -ne 4 ] || rm -f killed_$precision/checkpoints/step_8.h5
      rm -f killed_$precision/checkpoints/step_12.h5
    fi
  done
  grep -q "resume=killed_$precision/checkpoints/step_8.h5 step=8" killed.out || fail "$(cat killed.out)"
  expect_same_tensors {whole,killed}_$precision/checkpoints/step_12.h5
  diff <(losses whole_$precision) <(losses killed_$precision) || fail "losses differ in $precision"
done
