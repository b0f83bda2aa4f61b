#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
#   tests/slurm/requeue.sh QNEXT [TIMES]
#
# A job that scripts/slurm_job wrote trains on a Slurm of one node, is put back into the queue TIMES times
# (20) at random moments, and in the end has the losses and the weights of a run that nobody interrupted,
# bit for bit. Then: it leaves before its time limit and comes back by itself; once cancelled it stays
# away. Root, Debian's packages slurm-wlm and munge; about four minutes. The seed of the moments is shown
# and may be given as SEED.
set -euo pipefail
source_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
qnext=$(realpath "$1")
times=${2:-20}
seed=${SEED:-$RANDOM}
RANDOM=$seed

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
for program in slurmctld slurmd munged; do
  command -v "$program" >/dev/null || fail "no $program: apt-get install slurm-wlm munge"
done

slurm=$(mktemp -d /tmp/qnext_slurm.XXXXXX)
. "$source_folder/tests/slurm/one_node.sh"
trap 'scancel --user root 2>/dev/null; stop_slurm; rm -rf "$slurm"' EXIT
start_slurm || fail "Slurm does not start"
cd "$slurm"
echo "seed=$seed folder=$slurm"

cat >machine.yaml <<EOF
name: one node
partition: compute
account: ""
backend: openmp
program: $qnext
ranks_per_node: 2
cores_per_rank: 1
devices_per_rank: 0
memory_per_rank: 1 GiB
launcher: srun --mpi=pmix
options: [--oversubscribe]
modules: []
environment: {OMP_PROC_BIND: "false"}
warning: 10
EOF
steps=${STEPS:-3000}
settings=('data.train=[{path: "synthetic:markov"}]' 'data.evaluate={last_fraction: 0.0, every: 0}'
  data.sequence=32 data.batch=4 data.microbatch=2 model.width=32 "run.steps=$steps" run.peak_flops=1e9
  output.log_every=500 output.checkpoint_every=500 output.keep=1)
write_job() { # OUTPUT_FOLDER TIME OVERRIDES ...
  local folder=$1 limit=$2
  shift 2
  "$source_folder/scripts/slurm_job" "$source_folder/inputs/tiny.yaml" --machine machine.yaml --time "$limit" \
    --planner "$qnext" "${settings[@]}" "output.folder=$slurm/$folder" "$@"
}
state() { squeue --noheader --jobs "$1" --format %T 2>/dev/null || true; }
steps_done() { wc -l 2>/dev/null <"$slurm/$1/metrics.jsonl" || echo 0; }

# wait_for SECONDS COMMAND ...: until the command succeeds.
wait_for() {
  local second
  for second in $(seq $((4 * $1))); do
    if "${@:2}"; then return 0; fi
    sleep 0.25
  done
  scontrol show job || true
  tail -n 20 ./*.log
  fail "not within $1 s: ${*:2}"
}
is_running() { [ "$(state "$1")" = RUNNING ]; }
has_ended() { [ -z "$(state "$1")" ] || [ "$(state "$1")" = COMPLETED ]; }

write_job whole 1:00:00 >whole.sh
whole=$(sbatch --parsable whole.sh)
wait_for 600 has_ended "$whole"
[ "$(steps_done whole)" -eq "$steps" ] || fail "the run that nobody interrupted has $(steps_done whole) steps"
echo "uninterrupted: $steps steps"

write_job often 1:00:00 >often.sh
job=$(sbatch --parsable often.sh)
interrupted=0
for i in $(seq "$times"); do
  wait_for 120 is_running "$job"
  sleep "$((RANDOM % 3)).$((RANDOM % 10))"
  before=$(steps_done often)
  [ "$before" -lt "$steps" ] || break
  scontrol requeue "$job"
  interrupted=$((interrupted + 1))
  wait_for 60 eval "! is_running $job"
  echo "requeue $i after step $before"
done
[ "$interrupted" -eq "$times" ] || fail "the run was over after $interrupted requeues: give it more STEPS"
wait_for 600 has_ended "$job"
[ "$(steps_done often)" -eq "$steps" ] || fail "$(steps_done often) steps, wanted $steps"
losses() { grep -oE '"(step|loss|gradient_norm)": [-0-9.e+]+' "$1/metrics.jsonl"; }
diff <(losses whole) <(losses often) >difference || fail "losses differ: $(head -n 3 difference)"
h5diff "whole/checkpoints/step_$steps.h5" "often/checkpoints/step_$steps.h5" /parameters ||
  fail "the weights differ"
echo "$interrupted requeues: the same $steps losses, gradient norms and weights"

# One minute is the least limit of Slurm, and it warns up to a minute before the time asked for.
write_job limited 0:01:00 run.steps=100000000 >limited.sh
job=$(sbatch --parsable limited.sh)
wait_for 150 grep -qs "interrupted by SIGUSR1" "$slurm/limited/log.txt"
wait_for 60 grep -qs "^.*resume=" "$slurm/limited/log.txt"
echo "left before the time limit and came back"
wait_for 60 is_running "$job"
scancel "$job"
wait_for 60 has_ended "$job"
sleep 5
has_ended "$job" || fail "a cancelled job came back: $(state "$job")"
echo "cancelled: stays away"
echo PASSED
