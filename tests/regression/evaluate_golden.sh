# SPDX-License-Identifier: Apache-2.0
#
# Golden logits, in the two forms that they come in.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

golden=$QNEXT_SHARED/golden
# The golden logits are those of double arithmetic. transformers in float has a divergence of 2.2e-13 from them; ten times
# that are granted. In double the logarithms of probabilities, below 16, are rounded to 2e-15 each.
expect_status 0 "$QNEXT" evaluate logits "$golden/tiny/hf" "$golden/tiny/logits.jsonl" --max-kl 2.2e-12
expect_text "prompts=3"
expect_text "top1_agreement=1.0"
expect_status 0 "$QNEXT" evaluate logits "$golden/tiny/hf" "$golden/tiny/logits.jsonl" --precision double --max-kl 2.2e-12
expect_status 0 "$QNEXT" evaluate logits "$golden/tiny/hf" "$golden/tiny/golden.h5" --precision double --max-kl 4e-15
expect_status 4 "$QNEXT" evaluate logits "$golden/long/hf" "$golden/odd/golden.h5"
expect_text "the divergence is above --max-kl"
