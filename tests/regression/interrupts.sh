# SPDX-License-Identifier: Apache-2.0
#
# What a user and a batch system ask of a run: signals, files, wall time.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

long_run() {
  tiny run.steps=100000 'optimizer.learning_rate={peak: 1e-3, schedule: constant}' \
    output.checkpoint_every=0 output.folder="$1" >"$1.out" 2>&1
}

for signal in TERM USR1 INT; do
  prefix=exec long_run $signal &
  run=$!
  wait_for $signal/metrics.jsonl
  sleep 0.3
  kill -$signal $run
  status=0
  wait $run || status=$?
  [ $status -eq 75 ] || fail "SIG$signal: status $status, wanted 75"
  grep -q "interrupted by SIG$signal" $signal.out || fail "SIG$signal is not named"
  ls $signal/checkpoints/step_*.h5 >/dev/null || fail "SIG$signal left no checkpoint"
done

prefix=exec long_run files &
run=$!
wait_for files/metrics.jsonl
touch files/checkpoint_now
for _ in $(seq 600); do
  [ -e files/checkpoint_now ] || break
  sleep 0.1
done
ls files/checkpoints/step_*.h5 >/dev/null || fail "checkpoint_now left no checkpoint"
touch files/stop
wait $run || fail "stop: status $?, wanted 0"
[ ! -e files/stop ] || fail "the file stop is still there"

expect_status 0 tiny 'output.checkpoint_every={minutes: 0.0001}' output.folder=minutes
expect_text "why=interval"

expect_status 75 tiny run.steps=100000 run.wall_time=0.02 output.checkpoint_every=0 \
  'optimizer.learning_rate={peak: 1e-3, schedule: constant}' output.folder=wall_time
expect_text "the wall time of 0.02 minutes is over"
ls wall_time/checkpoints/step_*.h5 >/dev/null || fail "the wall time left no checkpoint"
