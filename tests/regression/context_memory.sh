# SPDX-License-Identifier: Apache-2.0
#
# One rank trains one document of 6144 tokens within a limit of memory, and is refused one of four times
# as many before it begins. Four context ranks train that within the same limit, and each takes what
# its plan says, within a tenth. Their loss is that of one rank without the limit, within four times
# the 2^-24 of float that each of some thousand terms of a sum may be off.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

limit="run.memory_limit=150 MiB"
long() {
  local ranks=$1 tokens=$2
  shift 2
  $QNEXT_MPIRUN -n "$ranks" "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" run.steps=1 run.peak_flops=1e9 \
    "data.train=[{path: \"synthetic:markov\", document: $tokens, tokens: 131072}]" data.shuffle=false \
    'optimizer.learning_rate={peak: 1.0e-3, schedule: constant}' \
    'data.evaluate={last_fraction: 0.0, every: 0}' data.sequence="$tokens" data.batch=1 data.microbatch=1 \
    output.log_every=1 output.checkpoint_every=0 output.resume=never "$@"
}

expect_status 0 long 1 6144 "$limit" output.folder=short
expect_status 2 long 1 24576 "$limit" output.folder=refused
expect_text "run.memory_limit = 150 MiB: a rank is planned to take"
expect_text "bytes (490.69 MiB)"
expect_text "allowed to take 157286400"
[ ! -e refused/metrics.jsonl ] || fail "a refused run has metrics"

expect_status 0 long 4 24576 "$limit" parallel.context=4 output.folder=context
difference=$(sed -n 's/.*difference=\([+-][0-9]*\.[0-9]\)% at_start=.*/\1/p' output)
grep '^memory planned' output
awk -v d="$difference" 'BEGIN { exit !(d != "" && d >= -10 && d <= 10) }' || {
  cat output
  fail "a context rank took $difference % more than planned, wanted at most 10"
}
expect_status 0 long 1 24576 output.folder=one
first_loss() { grep -oE '"loss": [0-9.e-]+' "$1/metrics.jsonl" | head -n 1 | cut -d' ' -f2; }
awk -v a="$(first_loss one)" -v b="$(first_loss context)" 'BEGIN {
  d = a - b; exit !(a > 0 && d <= 2.4e-4 * a && -d <= 2.4e-4 * a) }' ||
  fail "first losses $(first_loss one) of one rank, $(first_loss context) of four"
