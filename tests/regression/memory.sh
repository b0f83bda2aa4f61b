# SPDX-License-Identifier: Apache-2.0
#
# A run takes the memory that its plan says, within a tenth.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

for precision in float bf16; do
  for recompute in none mixer block; do
    expect_status 0 "$QNEXT" train "$QNEXT_SOURCE/inputs/peer_76m.yaml" run.steps=1 model.layers=4 data.sequence=512 \
      run.precision=$precision run.recompute=$recompute run.peak_flops=1e9 output.folder=$precision.$recompute
    difference=$(sed -n 's/.*difference=\([+-][0-9]*\.[0-9]\)% at_start=.*/\1/p' output)
    echo "$precision $recompute: $difference %"
    awk -v d="$difference" 'BEGIN { exit !(d != "" && d >= -10 && d <= 10) }' || {
      cat output
      fail "$precision $recompute: the run took $difference % more than planned, wanted at most 10"
    }
  done
done
