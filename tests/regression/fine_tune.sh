# SPDX-License-Identifier: Apache-2.0
#
# A folder with a tokenizer goes on learning from chats: what the assistant says alone, packed without
# leaks, evaluated on others, resumed with the same bits, and exported.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"
. "$QNEXT_SOURCE/tests/regression/chat_folder.sh"

make_chats
same_number() {  # WHAT A B: to 1e-12, some thousand roundings of double
  python3 -c "import sys; a, b = map(float, sys.argv[1:]); sys.exit(not abs(a - b) <= 1e-12 * abs(a))" "$2" "$3" ||
    fail "$1: $2 and $3"
}

expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/fine_tune.yaml" model.init=folder

# All chats in one sequence of double: its loss is what `evaluate` says of each answer behind its own
# question, computed alone, on average over the tokens of the answers. The line break that both forms
# begin an answer with is given.
one() {  # NAME: a step with all of NAME.jsonl as one sequence
  expect_status 0 "$QNEXT" tokenize $1.jsonl $1_tokens --tokenizer folder
  labels=$(sed -n 's/.* learnt=\([0-9]*\).*/\1/p' output)
  expect_status 0 tune output.folder=one_$1 "data.train=[{path: $1.jsonl}]" run.precision=double run.steps=1 \
    data.sequence=$(($(sed -n 's/.* tokens=\([0-9]*\).*/\1/p' output) - 1)) data.batch=1 data.microbatch=1 \
    data.shuffle=false 'optimizer.learning_rate={peak: 1e-300, schedule: constant}' \
    'data.evaluate={last_fraction: 0}' model.experts.balance_loss.coefficient=0
}
one chats
sums=()
for form in answers breaks; do
  expect_status 0 "$QNEXT" evaluate loglikelihood folder $form.jsonl --precision double
  sums+=("$(sed -n 's/^sum=//p' output)" "$(sed -n 's/^tokens=//p' output)")
done
alone=$(python3 -c "import sys; a, n, b, m = map(float, sys.argv[1:]); print((b - a) / (n - m))" "${sums[@]}")
same_number "the loss of packed chats and of each alone" "$(metric one_chats loss)" "$alone"
python3 -c "import sys; a, n, b, m, k = map(float, sys.argv[1:]); sys.exit(n - m != k)" "${sums[@]}" "$labels" ||
  fail "$labels tokens are learnt: those of the answers are ${sums[*]}"

# A chat that nobody answers, in the same sequence, changes neither loss nor gradient.
one alone
one beside
same_number "the loss beside a chat without answers" "$(metric one_alone loss)" "$(metric one_beside loss)"
same_number "the gradient beside a chat without answers" "$(metric one_alone gradient_norm)" \
  "$(metric one_beside gradient_norm)"

# It learns, is evaluated on other chats, and goes on behind a kill with the same bits.
expect_status 0 tune output.folder=whole
python3 -c "import sys; a = list(map(float, sys.argv[1:])); sys.exit(len(a) != 3 or not a[2] < a[0])" \
  $(metric whole evaluation_loss) || fail "the evaluations are $(metric whole evaluation_loss)"
[ "$(metric whole learning_rate | head -n 1)" = 0.0015 ] || fail "the warm-up is not there"
expect_status 0 tune output.folder=resumed run.steps=4 \
  'optimizer.learning_rate={peak: 3.0e-3, schedule: cosine, warmup: 2, steps: 6}'
expect_status 0 tune output.folder=resumed
expect_text "resume=resumed/checkpoints/step_4.h5 step=4"
expect_same_tensors {whole,resumed}/checkpoints/step_6.h5
diff <(losses whole) <(losses resumed) || fail "losses differ behind a restart"

# The export has the tokenizer, and is the model that was trained.
expect_status 0 "$QNEXT" convert whole tuned
cmp folder/tokenizer.json tuned/tokenizer.json
for model in whole tuned; do
  expect_status 0 "$QNEXT" evaluate loglikelihood $model answers.jsonl --output $model.json
  sed -n 's/^sum=//p' output >>trained_sums
done
[ "$(sort -u trained_sums | wc -l)" -eq 1 ] || fail "the exported model says $(cat trained_sums)"
[ "$(sort -u trained_sums)" != "${sums[0]}" ] || fail "training changed nothing"
