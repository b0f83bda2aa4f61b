# SPDX-License-Identifier: Apache-2.0
#
# Evaluations of a model that was trained here, held against each other. Bytes are tokens.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

tiny output.folder=run >/dev/null
evaluate() {
  "$QNEXT" evaluate "$1" run "$2" "${@:3}"
}
value() { sed -n "s/^$1=//p" output; }

# Logits that were written are those of the model, in both forms; nine digits hold a float.
for i in 1 2 3; do echo "{\"prompt\": \"prompt number $i\"}"; done >prompts.jsonl
for form in jsonl h5; do
  expect_status 0 evaluate logits prompts.jsonl --write logits.$form
  expect_status 0 evaluate logits logits.$form --max-kl 1e-12
  expect_text "prompts=3"
  expect_text "top1_agreement=1.0"
done
expect_text "max_difference=0.0"  # HDF5 holds the floats themselves
tiny output.folder=other run.seed=2 run.steps=4 >/dev/null
expect_status 4 "$QNEXT" evaluate logits other logits.jsonl
expect_text "the divergence is above --max-kl 0.0002"
expect_status 2 evaluate logits prompts.jsonl --write x.jsonl --window 5
expect_text "a text has 15 tokens, expected 1 to 5 (--window)"
echo '{"tokens": [1, 256]}' >wrong.jsonl
expect_status 2 evaluate logits wrong.jsonl --write x.jsonl
expect_text "a text has the token 256; this model knows 0 to 255"

# A text is its first byte and the continuation of it.
head -c 300 "$QNEXT_SOURCE/layers/README.md" | LC_ALL=C tr -c 'a-z' 'x' >text.txt
printf '{"context": "%s", "continuation": "%s"}\n' "$(head -c 1 text.txt)" "$(tail -c +2 text.txt)" >text.jsonl
expect_status 0 evaluate perplexity text.txt --output perplexity.json
expect_text "tokens=299"
loss=$(value loss)
grep -q '"evaluation":"perplexity","model":"run","data":"text.txt","tokenizer":"bytes","precision":"float"' \
  perplexity.json || fail "the file does not say what was evaluated"
expect_status 0 evaluate loglikelihood text.jsonl
python3 -c "import sys; a, b = map(float, sys.argv[1:]); sys.exit(abs(a + b) > 1e-12 * a)" "$loss" "$(value per_token)" ||
  fail "perplexity says $loss, loglikelihood $(value per_token)"
# Less to look back on makes another number; a float model rounds differently in rows of other lengths.
expect_status 0 evaluate perplexity text.txt --window 16 --stride 8
expect_text "tokens=299"
[ "$(value loss)" != "$loss" ] || fail "the window has no effect"

# What is most probable is chosen, whichever place it has.
for answer in 0 1 2; do
  echo "{\"context\": \"abc\", \"choices\": [\"aa\", \"bb\", \"cc\"], \"answer\": $answer}" >choice_$answer.jsonl
  expect_status 0 evaluate choice choice_$answer.jsonl
  value accuracy
done >right
[ "$(sort right | tr '\n' ' ')" = "0.0 0.0 1.0 " ] || fail "not one of three choices is right: $(cat right)"

# Of the four letters one is chosen.
mkdir -p mmlu/dev mmlu/test
for i in 1 2 3 4 5; do echo "q$i,a,b,c,d,A"; done >mmlu/dev/things_dev.csv
for letter in A B C D; do
  for i in 1 2 3; do echo "test $i,a,b,c,d,$letter"; done >mmlu/test/things_test.csv
  expect_status 0 evaluate mmlu mmlu --output mmlu.json
  value micro_accuracy
done >right
python3 -c "import sys; sys.exit(abs(sum(map(float, sys.stdin)) - 1) > 1e-12)" <right || fail "not one letter is chosen"
grep -q '"by_subject":{"things":{"questions":3,' mmlu.json || fail "the file has no subjects"

expect_status 2 evaluate fly text.txt
expect_text "evaluate fly: wanted is logits, perplexity, loglikelihood, choice or mmlu"
expect_status 2 evaluate perplexity text.txt --window 1
expect_text "--window 1: must be at least 2 tokens"
expect_status 3 evaluate perplexity text.txt --output none/x.json
expect_text "none/x.json: cannot be written"
