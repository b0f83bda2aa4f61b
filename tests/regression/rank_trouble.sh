# SPDX-License-Identifier: Apache-2.0
#
# One rank in trouble ends the job: in time, with the documented status, and one message.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

# on N COMMAND ...: on N ranks, ended if the job hangs.
on() {
  local ranks=$1
  shift
  timeout --signal=KILL 30 "$QNEXT_MPIRUN" -n "$ranks" "$@"
}

# expect_one_message TEXT: of all ranks together, with that text.
expect_one_message() {
  [ "$(grep -c '^qnext: ' output)" -eq 1 ] || {
    cat output
    fail "$(grep -c '^qnext: ' output) messages, wanted is one"
  }
  expect_text "$1"
}

# What all ranks refuse.
expect_status 2 on 3 "$QNEXT" train missing.yaml
expect_one_message "qnext: rank 0 of 3: missing.yaml: cannot be read"
expect_status 2 on 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml"
expect_one_message "only train, generate, evaluate and bench machine run on more than one"
prefix="on 4" expect_status 2 tiny output.folder=shares
expect_one_message "4 data ranks cannot share the 2 microbatches of a step (data.batch 4 / data.microbatch 2)"

# What one rank alone meets: a byte that is no token in the sequence of the last one.
{ head -c 300 /dev/zero | tr '\0' a; printf '\310'; head -c 2000 /dev/zero | tr '\0' b; } >text.txt
prefix="on 4" expect_status 2 tiny 'data.train=text.txt' data.shuffle=false data.sequence=80 \
  data.microbatch=1 model.vocabulary=128 output.folder=one
expect_one_message "qnext: rank 3 of 4: "

# The same in the third step, while the weights of the second one are under way.
{ head -c 940 /dev/zero | tr '\0' a; printf '\310'; head -c 2000 /dev/zero | tr '\0' b; } >text.txt
for zero in 1 2; do
  prefix="on 4" expect_status 2 tiny 'data.train=text.txt' data.shuffle=false data.sequence=80 \
    data.microbatch=1 model.vocabulary=128 parallel.bucket=1 parallel.zero=$zero output.folder=later_$zero
  expect_one_message "qnext: rank 3 of 4: "
  [ "$(wc -l <later_$zero/metrics.jsonl)" -le 2 ] || fail "a step was made with a byte that is no token"
done

# A number that goes bad, and a checkpoint that the file system refuses: the first rank renames.
prefix="on 2" expect_status 4 tiny 'optimizer.learning_rate={peak: 1e30, schedule: constant}' output.folder=bad
expect_one_message "gradients are not finite, the first is that of"
mkdir -p refused/checkpoints/step_4.h5/in_the_way
prefix="on 2" expect_status 3 tiny output.folder=refused
expect_one_message "qnext: rank 0 of 2: refused/checkpoints/step_4.h5.part: cannot be renamed"
[ "$(ls refused/checkpoints)" = step_4.h5 ] || fail "a refused checkpoint left $(ls refused/checkpoints)"

long_run() {
  local folder=$1
  shift
  prefix="exec $QNEXT_MPIRUN -n 4" tiny data.microbatch=1 run.steps=100000 output.checkpoint_every=0 \
    'optimizer.learning_rate={peak: 1e-3, schedule: constant}' output.folder="$folder" "$@" >"$folder.out" 2>&1
}

# ranks_of LAUNCHER: their process numbers.
ranks_of() {
  cat /proc/"$1"/task/*/children | tr ' ' '\n' | grep .
}

# expect_end LAUNCHER STATUS: within 30 seconds; STATUS may be "any" but 0.
expect_end() {
  local status=0 begin=$SECONDS
  wait "$1" || status=$?
  [ $((SECONDS - begin)) -le 30 ] || fail "the job ended after $((SECONDS - begin)) s"
  if [ "$2" = any ]; then
    [ $status -ne 0 ] || fail "status 0 after a kill"
  else
    [ $status -eq "$2" ] || fail "status $status, wanted $2"
  fi
}

# A signal that one rank alone gets; the file stop.
long_run signal &
run=$!
wait_for signal/metrics.jsonl
sleep 0.3
kill -TERM "$(ranks_of $run | tail -1)"
expect_end $run 75
grep -q "interrupted by SIGTERM after step" signal.out || fail "SIGTERM is not named"
ls signal/checkpoints/step_*.h5 >/dev/null || fail "SIGTERM left no checkpoint"

long_run stop &
run=$!
wait_for stop/metrics.jsonl
touch stop/stop
expect_end $run 0
[ ! -e stop/stop ] || fail "the file stop is still there"

# A rank that stands still: the others say what they wait in, and go on when it does.
long_run still parallel.watchdog=0.02 &
run=$!
wait_for still/metrics.jsonl
victim=$(ranks_of $run | tail -1)
kill -STOP "$victim"
for _ in $(seq 100); do
  [ "$(grep -c "waits in" still.out)" -lt 3 ] || break
  sleep 0.1
done
kill -CONT "$victim"
touch still/stop
expect_end $run 0
[ "$(grep -oE "rank [0-9] of 4: waits in [a-z ]+ since" still.out | cut -d' ' -f2 | sort -u | wc -l)" -ge 3 ] ||
  fail "three ranks wait for the fourth: $(grep "rank . of" still.out)"

# A disk that is full for one rank alone: the checkpoint before it stays, and nothing of the broken one.
long_run full &
run=$!
wait_for full/metrics.jsonl
touch full/checkpoint_now
for _ in $(seq 100); do
  [ -e full/checkpoint_now ] || break
  sleep 0.1
done
good=$(ls full/checkpoints/step_*.h5) || fail "checkpoint_now left no checkpoint"
prlimit --pid "$(ranks_of $run | tail -1)" --fsize=4096
touch full/checkpoint_now
expect_end $run 3
cp full.out output
expect_one_message "full/checkpoints/step_"
expect_text "File too large"
[ "$(ls full/checkpoints/*)" = "$good" ] || fail "a full disk left $(ls full/checkpoints)"
expect_status 0 "$QNEXT" info full
expect_text "checkpoint $good"
