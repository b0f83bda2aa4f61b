# SPDX-License-Identifier: Apache-2.0
#
# One rank of two, then of four, is killed at a random moment, KILLS times (3): no job hangs, none ends with
# status 0, and the run that goes on each time has in the end the losses and the weights of one that nobody
# disturbed, bit for bit. SEED repeats the moments.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

kills=${KILLS:-3}
steps=$((60 * kills))
seed=${SEED:-$RANDOM}
RANDOM=$seed
echo "seed=$seed"

# train FOLDER RANKS
train() {
  prefix="exec $QNEXT_MPIRUN -n $2" tiny run.steps=$steps data.microbatch=1 output.checkpoint_every=5 \
    output.folder="$1" >"$1.out" 2>&1
}
ranks_of() {
  cat /proc/"$1"/task/*/children 2>/dev/null | tr ' ' '\n' | grep . || true
}
steps_done() { if [ -f often/metrics.jsonl ]; then wc -l <often/metrics.jsonl; else echo 0; fi; }

train whole 2 &
wait $! || fail "the run that nobody disturbed: $(tail -n 3 whole.out)"

for kill in $(seq "$kills"); do
  ranks=$((kill % 2 == 0 ? 4 : 2))
  before=$(steps_done)
  train often $ranks &
  run=$!
  until [ "$(steps_done)" -gt "$before" ]; do
    kill -0 $run 2>/dev/null || fail "the run did not go on: $(tail -n 3 often.out)"
    sleep 0.02
  done
  sleep "0.$((RANDOM % 40 + 10))"
  victims=($(ranks_of $run))
  [ ${#victims[@]} -gt 0 ] || fail "the run was over after $((kill - 1)) kills: give it more steps"
  kill -KILL "${victims[RANDOM % ${#victims[@]}]}"
  status=0 begin=$SECONDS
  wait $run || status=$?
  [ $((SECONDS - begin)) -le 30 ] || fail "the job ended $((SECONDS - begin)) s after the kill"
  [ $status -ne 0 ] || fail "status 0 after a kill"
  echo "kill $kill of one of $ranks ranks: status $status, $(steps_done) steps"
done
train often 4 &
wait $! || fail "the run did not end: $(tail -n 3 often.out)"
expect_same_tensors "whole/checkpoints/step_$steps.h5" "often/checkpoints/step_$steps.h5"
diff <(losses whole) <(losses often) >difference || fail "losses differ: $(head -n 3 difference)"
