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

# The same with adapters, of a run and beside a folder.
run adapted 1 run.steps=4 model.init=run 'fine_tune.lora={r: 3, lora_alpha: 12, target_modules: all-linear}' \
  'optimizer.learning_rate={peak: 5.0e-2, schedule: constant}'
expect_status 0 "$QNEXT" convert run folder
expect_status 0 "$QNEXT" convert adapted adapter --adapter-only
greedy="$QNEXT generate adapted --tokens 7,8,9,10,11 --length 12 --ids --temperature 0"
adapted=$($greedy 2>/dev/null)
[ "$(echo $adapted | wc -w)" -eq 17 ] && [ "$adapted" != "$one" ] || fail "adapters change nothing: $adapted"
for degrees in parallel.tensor=2 parallel.pipeline=2 parallel.expert=2 parallel.data=2; do
  [ "$(on 2 $greedy "$degrees" 2>/dev/null)" = "$adapted" ] || fail "adapters: $degrees writes something else"
done
greedy="$QNEXT generate folder --adapter adapter --precision double --tokens 7,8,9,10,11 --length 12 --ids --temperature 0"
[ "$($greedy 2>/dev/null)" = "$adapted" ] || fail "an adapter beside a folder writes something else"
[ "$(on 4 $greedy parallel.tensor=2 parallel.pipeline=2 parallel.expert=2 2>/dev/null)" = "$adapted" ] ||
  fail "four ranks with an adapter beside a folder write something else"

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
