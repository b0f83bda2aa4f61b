# SPDX-License-Identifier: Apache-2.0
#
# Read by the scripts beside it: runs in double on several ranks, and what holds them against each other.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

# on RANKS COMMAND ...
on() {
  local ranks=$1
  shift
  $QNEXT_MPIRUN -n "$ranks" "$@"
}

# run FOLDER RANKS OVERRIDES ...
run() {
  local folder=$1 ranks=$2
  shift 2
  prefix="on $ranks" tiny run.precision=double data.batch=8 run.steps=8 \
    'data.evaluate={last_fraction: 0.002, every: 4}' "$@" output.folder="$folder" >"$folder.out" 2>&1 || {
    cat "$folder.out"
    fail "$folder"
  }
}

numbers() {
  grep -oE '"(loss|loss_mtp|loss_balance|gradient_norm|evaluation_loss|expert_load_[a-z]+)": [-0-9.e+]+' "$1/metrics.jsonl"
}

# Equal names, and numbers within 1e-9 of each other; at least so many of them.
expect_close() {
  [ "$(numbers "$1" | wc -l)" -ge "$3" ] || fail "$1 has no losses"
  paste <(numbers "$1") <(numbers "$2") | awk '
    { difference = $2 - $4; size = $2 < 0 ? -$2 : $2 }
    $1 != $3 || difference > 1e-9 * size || -difference > 1e-9 * size { print; bad = 1 }
    END { exit bad }' || fail "$1 and $2 differ"
}
