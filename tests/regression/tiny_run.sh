# SPDX-License-Identifier: Apache-2.0
#
# Read by the scripts beside it: a run of a second on synthetic data, and what they check with.

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# A run of 12 small steps with MTP, all kinds of layers, two microbatches and dropout. More overrides
# follow. With `prefix=exec` a run in the background is the process $! itself.
tiny() {
  ${prefix:-} "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" 'data.train=[{path: "synthetic:markov"}]' \
    'data.evaluate={last_fraction: 0.0, every: 0}' data.sequence=32 data.batch=4 data.microbatch=2 \
    model.width=32 run.steps=12 run.dropout=0.1 run.peak_flops=1e9 \
    'optimizer.learning_rate={peak: 3.0e-3, schedule: cosine, warmup: 4}' \
    'model.experts.balance_loss={form: megatron, scope: global, coefficient: 0.01}' \
    output.log_every=1 output.checkpoint_every=4 output.keep=5 "$@"
}

# expect_status WANTED COMMAND ...: runs it, output to the file `output`.
expect_status() {
  local wanted=$1 status=0
  shift
  "$@" >output 2>&1 || status=$?
  [ "$status" -eq "$wanted" ] || {
    cat output
    fail "$*: status $status, wanted $wanted"
  }
}

# expect_text TEXT: the last output has it.
expect_text() {
  grep -qF -- "$1" output || {
    cat output
    fail "no '$1' in the output"
  }
}

# Weights, moments and masters of two checkpoints have the same bits: so have the hashes.
expect_same_tensors() {
  for group in parameters optimizer; do
    h5diff "$1" "$2" "/$group" || fail "$1 and $2 differ in /$group"
  done
}

# The losses of all steps, without what depends on the clock.
losses() {
  sed 's/"tokens_per_second.*"peak_memory_bytes": [0-9]*//' "$1/metrics.jsonl"
}

# wait_for FILE: at most 60 seconds.
wait_for() {
  for _ in $(seq 600); do
    [ -e "$1" ] && return
    sleep 0.1
  done
  fail "$1 did not come"
}
