# SPDX-License-Identifier: Apache-2.0
#
# A conversation on the terminal: what was said is read once, and a first answer is that of the
# rendered prompt.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

python3 "$QNEXT_SOURCE/scripts/make_tokenizer" 300 tokenizer "$QNEXT_SOURCE/README.md"
tiny run.precision=double model.vocabulary=300 output.folder=run >/dev/null

# talk QUESTIONS [OPTION ...]: answers to `answers`, how many prompt tokens were read to `read`.
talk() {
  local questions=$1
  shift
  printf "$questions" | "$QNEXT" generate run --tokenizer tokenizer --temperature 0 --length 8 \
    "${@:---chat}" >answers 2>speeds || {
    cat speeds
    fail "talk $questions $*"
  }
  sed -n 's/^prompt: \([0-9]*\) tokens.*/\1/p' speeds >read
}

talk 'One two?\n'
once=$(cat read)
prompt=$(printf '<|im_start|>user\nOne two?<|im_end|>\n<|im_start|>assistant\n.')
"$QNEXT" generate run --tokenizer tokenizer --temperature 0 --length 8 --prompt "${prompt%.}" >alone 2>/dev/null
printf '%s' "${prompt%.}" | cat - answers | cmp - alone || fail "the first answer is not that of the prompt"

# A second turn reads the token that was drawn last, the end of the answer, a line break and the
# question; drafts may have read the last one before.
talk 'One two?\nOne two?\n'
[ "$(cat read)" -eq $((2 * once + 3)) ] || fail "$(cat read) tokens were read, wanted $((2 * once + 3))"
cp answers two
talk 'One two?\nOne two?\n' --chat --drafts 2
cmp answers two || fail "drafts change what is said"
[ "$(cat read)" -le $((2 * once + 3)) ] || fail "$(cat read) tokens were read with drafts"
talk 'One two?\nOne two?\n' --chat --prefill-chunk 5
[ "$(cat read)" -eq $((2 * once + 3)) ] || fail "$(cat read) tokens were read in pieces"

talk 'One two?\n' --chat --system 'Be brief.'
[ "$(cat read)" -gt "$once" ] || fail "the system's message was not read"
talk 'One two?\nThree?\n' --chat=thinking
talk '' --chat
[ ! -s answers ] || fail "nothing was asked and something answered"

# A folder has its tokenizer and the form of its chats, and a checkpoint keeps them.
"$QNEXT" convert run spoken >/dev/null
cp tokenizer/tokenizer.json spoken
echo '{"chat_template": "... <think> ..."}' >spoken/tokenizer_config.json
"$QNEXT" convert spoken spoken.h5 >/dev/null
talk 'One two?\nThree?\n' --chat=thinking
mv answers thinking
for model in spoken spoken.h5; do
  printf 'One two?\nThree?\n' | "$QNEXT" generate "$model" --temperature 0 --length 8 --chat --precision double \
    >answers 2>speeds || fail "$model does not talk"
  cmp answers thinking || fail "$model has another tokenizer or chat template"
done
head -c 2000 "$QNEXT_SOURCE/README.md" >read.txt
for model in spoken spoken.h5; do
  "$QNEXT" evaluate perplexity "$model" read.txt --precision double >"$model.scores" || fail "$model is not evaluated"
done
cmp spoken.scores spoken.h5.scores || fail "evaluate takes another tokenizer for the checkpoint"

refuse() {
  echo 'One two?' >question
  expect_status 2 "$QNEXT" generate run --tokenizer tokenizer "$@" <question
}
refuse --chat --context 5
expect_text "the conversation has $once tokens, and room for 5: --context"
refuse --chat=fly
expect_text "--chat fly: wanted is instruct or thinking"
refuse --chat --prompt a
expect_text "--prompt"
refuse --chat --ids
expect_text "--ids"
refuse --system a
expect_text "--chat"
