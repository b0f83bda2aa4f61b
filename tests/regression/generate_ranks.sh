# SPDX-License-Identifier: Apache-2.0
#
# Writing on several ranks: the greedy tokens of one, whatever the degrees of the run and of the job.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

# In double, where no rounding comes near the distance of two logits; trained on two tensor ranks.
run run 2 run.steps=4 parallel.tensor=2
greedy="$QNEXT generate run --tokens 7,8,9,10,11 --length 12 --ids --temperature 0"

one=$($greedy 2>/dev/null)
[ "$(echo $one | wc -w)" -eq 17 ] || fail "17 tokens are wanted, not: $one"
for degrees in parallel.tensor=2 parallel.pipeline=2 parallel.expert=2 parallel.context=2 parallel.data=2; do
  [ "$(on 2 $greedy "$degrees" 2>/dev/null)" = "$one" ] || fail "$degrees writes something else"
done
[ "$(on 4 $greedy parallel.tensor=2 parallel.pipeline=2 parallel.expert=2 2>speeds)" = "$one" ] ||
  fail "four ranks write something else"
[ "$(grep -c tokens/s speeds)" -eq 1 ] || fail "more than the first rank speaks"

# Another seed on one rank is another seed on two.
drawn=$("$QNEXT" generate run --tokens 7,8,9 --length 12 --ids --seed 5 2>/dev/null)
[ "$(on 2 "$QNEXT" generate run --tokens 7,8,9 --length 12 --ids --seed 5 parallel.pipeline=2 2>/dev/null)" = "$drawn" ] ||
  fail "two stages draw something else"

expect_status 2 on 2 "$QNEXT" generate run --chat
expect_text "--chat: a conversation is one document, and 2 ranks of parallel.data have documents of their own"
expect_status 2 on 2 "$QNEXT" generate run parallel.tensor=3
expect_text "parallel.tensor = 3"
expect_status 2 on 2 "$QNEXT" generate run parallel.zero=1
expect_text "parallel.zero"
expect_status 2 on 2 "$QNEXT" generate run run.seed=3
expect_text "only a deck has keys to replace"
