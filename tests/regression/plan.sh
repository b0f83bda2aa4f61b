# SPDX-License-Identifier: Apache-2.0
#
# The published numbers of the released model, from its deck.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

deck=$QNEXT_SOURCE/inputs/qwen3_next_80b.yaml
expect_status 0 "$QNEXT" plan "$deck"
expect_text "81,324,862,720"
expect_text "79,674,391,296"
expect_text "25.129 GFLOP"
expect_status 0 "$QNEXT" plan "$deck" model.multi_token_prediction.modules=0
expect_text "79,674,391,296"
expect_text "22.740 GFLOP"

# Of eight ranks each has every weight and, in whole blocks, an eighth of what the optimizer holds.
expect_status 0 "$QNEXT" plan "$deck" --ranks 8 data.batch=64 data.microbatch=8
expect_text "81,324,862,720"
eighth=$(awk '/^  moments / { gsub(",", ""); print $2 }' output)
[ "$eighth" -ge $((81324862720)) ] && [ "$eighth" -lt $((81324862720 + 8 * 1048576)) ] ||
  fail "the moments of one of eight ranks have $eighth bytes"
expect_status 2 "$QNEXT" plan "$deck" --ranks 7 data.batch=64 data.microbatch=8
expect_text "7 data ranks cannot share the 8 microbatches of a step"

for deck in $(ls "$QNEXT_SOURCE"/inputs/*.yaml | grep -v fine_tune); do  # fine_tune.sh has a folder for it
  expect_status 0 "$QNEXT" plan "$deck"
done
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/peer_76m.yaml"
expect_text "76,461,664"

# 8192 tokens with 10 of 512 experts each, and twice as many rows where they arrive: 2 x 163,840 x 2048 bf16.
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/qwen3_next_80b.yaml" --ranks 64 parallel.expert=64 data.batch=128
expect_text "experts over 64 ranks: in a round a rank takes 163,840 rows, 2 times the balanced 81,920"
expect_text "1,342,177,280"
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/qwen3_next_80b.yaml" --ranks 16 parallel.expert=64
expect_text "these do: 1, 2, 4, 8, 16"

# Layouts that do not fit the memory are shown all the same, the smallest first; the plan is that of the first.
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --ranks 4 --layouts 2 run.memory_limit=1KiB
expect_text "run.memory_limit, which is less"
expect_text "  too much"
read -r tensor context pipeline expert data rest < <(sed -n '/tensor context pipeline/{n;p}' output)
expect_text "tensor=$tensor context=$context pipeline=$pipeline expert=$expert data=$data"
# Degrees of a deck say nothing there, the rest of its section `parallel` does.
best() { awk '/tensor context pipeline/ { getline; print $(NF - 1), $NF }' output; }
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --ranks 2 --layouts 1 parallel.pipeline=2
memory=$(best)
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --ranks 2 --layouts 1 parallel.bucket=1KiB
[ "$(best)" != "$memory" ] || fail "parallel.bucket says nothing: $memory"
