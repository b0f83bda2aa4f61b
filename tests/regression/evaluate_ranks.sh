# SPDX-License-Identifier: Apache-2.0
#
# Evaluating on several ranks: the numbers of one, whatever the degrees of the run and of the job.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

run run 2 run.steps=4 parallel.tensor=2
head -c 3000 "$QNEXT_SOURCE/layers/README.md" | LC_ALL=C tr -c 'a-z\n' 'x' >text.txt
for i in $(seq 9); do
  printf '{"context": "%s", "choices": ["aa", "b", "cde"], "answer": %d}\n' "$(head -c $((i * 7)) text.txt | tr -d '\n')" $((i % 3))
done >choices.jsonl
for i in 1 2 3; do echo "{\"prompt\": \"prompt number $i, of another length: $(head -c $((30 * i)) text.txt | tr -d '\n')\"}"; done >prompts.jsonl

expect_status 0 "$QNEXT" evaluate perplexity run text.txt --window 100 --output perplexity.json
expect_status 0 "$QNEXT" evaluate choice run choices.jsonl --output choice.json
expect_status 0 "$QNEXT" evaluate logits run prompts.jsonl --write logits.h5
"$QNEXT" evaluate logits run logits.h5 >logits || fail "the logits are not those that were written"

# Ranks that divide no sum give every bit; tensor ranks add in another order, so that doubles part by roundings.
evaluate_on() {
  local ranks=$1
  expect_status 0 on "$ranks" "$QNEXT" evaluate perplexity run text.txt --window 100 --output perplexity_on.json "${@:2}"
  expect_status 0 on "$ranks" "$QNEXT" evaluate choice run choices.jsonl --output choice_on.json "${@:2}"
  expect_status 0 on "$ranks" "$QNEXT" evaluate logits run logits.h5 "${@:2}"
}
for degrees in parallel.data=2 parallel.expert=2 parallel.pipeline=2 parallel.context=2; do
  evaluate_on 2 $degrees
  cmp output logits && cmp perplexity.json perplexity_on.json && cmp choice.json choice_on.json || fail "$degrees: other bits"
done
evaluate_on 3
cmp perplexity.json perplexity_on.json && cmp choice.json choice_on.json || fail "three data ranks: other bits"
evaluate_on 4 parallel.tensor=2 parallel.expert=4
python3 - <<'PYTHON' || fail "four ranks are further off than roundings"
import json
one, four = (json.load(open(name)) for name in ("perplexity.json", "perplexity_on.json"))
# A thousand roundings of 1e-16 in each logit at most.
assert one["tokens"] == four["tokens"] and abs(one["loss"] - four["loss"]) < 1e-12 * one["loss"]
PYTHON
# Prompts are dealt out to data ranks, three to two of them and to three, and written in their order by the first.
expect_status 0 "$QNEXT" evaluate logits run prompts.jsonl --write logits_one.jsonl
write_on() {  # RANKS DEGREES
  expect_status 0 on "$1" "$QNEXT" evaluate logits run prompts.jsonl --write logits_on.jsonl "${@:2}"
  cmp logits_one.jsonl logits_on.jsonl || fail "$*: other logits are written"
}
write_on 2 parallel.data=2
write_on 2 parallel.expert=2
write_on 3
write_on 4 parallel.data=2 parallel.pipeline=2

# The same with an adapter beside a folder.
run adapted 1 run.steps=4 model.init=run 'fine_tune.lora={r: 3, lora_alpha: 12, target_modules: all-linear}' \
  'optimizer.learning_rate={peak: 5.0e-2, schedule: constant}'
expect_status 0 "$QNEXT" convert run folder
expect_status 0 "$QNEXT" convert adapted adapter --adapter-only
adapted() {  # RANKS DEGREES: into adapted_RANKS.json
  expect_status 0 on "$1" "$QNEXT" evaluate perplexity folder text.txt --window 100 --adapter adapter --precision double \
    --output "adapted_$1.json" "${@:2}"
}
adapted 1
for degrees in parallel.data=2 parallel.expert=2 parallel.pipeline=2; do
  adapted 2 $degrees
  cmp adapted_1.json adapted_2.json || fail "an adapter with $degrees: other bits"
done
adapted 4 parallel.tensor=2 parallel.expert=4
python3 - <<'PYTHON' || fail "four ranks with an adapter are further off than roundings"
import json
run, one, four = (json.load(open(name)) for name in ("perplexity.json", "adapted_1.json", "adapted_4.json"))
assert one["tokens"] == four["tokens"] and abs(one["loss"] - four["loss"]) < 1e-12 * one["loss"]
assert abs(one["loss"] - run["loss"]) > 1e-3, "the adapter does nothing"
PYTHON

expect_status 2 on 2 "$QNEXT" evaluate perplexity run text.txt parallel.tensor=3
expect_text "parallel.tensor = 3"
expect_status 2 "$QNEXT" evaluate perplexity run text.txt run.seed=3
expect_text "override: run: nothing reads this key; known here: parallel"
