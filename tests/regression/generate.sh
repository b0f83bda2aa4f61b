# SPDX-License-Identifier: Apache-2.0
#
# Writing from a run folder: what depends on the seed and what does not.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

tiny output.folder=run >/dev/null
write() {
  "$QNEXT" generate run --tokens 7,8,9 --length 40 --ids "$@" 2>/dev/null
}

[ "$(write | wc -w)" -eq 43 ] || fail "43 tokens are wanted"
[ "$(write --seed 3)" = "$(write --seed 3)" ] || fail "equal seeds, other tokens"
[ "$(write --seed 3)" != "$(write --seed 4)" ] || fail "other seeds, equal tokens"
[ "$(write --temperature 0)" = "$(write --temperature 0 --seed 9)" ] || fail "greedy has no seed"
[ "$(write --top-k 1)" = "$(write --temperature 0)" ] || fail "top-k 1 is greedy"
[ "$(write)" = "$("$QNEXT" generate run/checkpoints/step_12.h5 --tokens 7,8,9 --length 40 --ids 2>/dev/null)" ] ||
  fail "the run folder stands for its newest checkpoint"

# A prompt token by token is the same document as all at once: greedy tokens do not change.
long=$(seq -s, 10 60)
all=$("$QNEXT" generate run --tokens "$long" --length 5 --temperature 0 --ids 2>/dev/null)
[ "$(echo $all | wc -w)" -eq 56 ] || fail "56 tokens are wanted"

expect_status 0 "$QNEXT" generate run --prompt abc --length 3
expect_text "abc"
expect_text "tokens/s"
# The line of speeds begins a line, and there is no empty one in between.
for last in 65 10; do
  "$QNEXT" generate run --tokens 66,$last --length 0 >text 2>speeds
  [ "$(tail -c 1 text | od -An -tu1 | tr -d ' ')" = 10 ] || fail "the text ends in the middle of a line"
  [ "$(wc -l <text)" -eq 1 ] || fail "an empty line behind a text that ends in a newline"
done
expect_status 0 "$QNEXT" info run
grep -qE '^data.fingerprint=[0-9a-f]{16}$' output || fail "the fingerprint is no hexadecimal number of 64 bits"
expect_text "step=12"
expect_text "progress.updates=12"

# Many prompts at once are each of them alone; their lines come in their order.
cat >prompts.jsonl <<'LINES'
{"tokens": [7, 8, 9]}
{"prompt": "abc", "temperature": 0, "length": 5}
{"tokens": [1, 2, 3, 4, 5, 6], "seed": 4, "top_k": 5}
{"tokens": [7, 8, 9], "seed": 2}
LINES
"$QNEXT" generate run --jsonl prompts.jsonl --length 12 --batch 3 >together 2>speeds || fail "four prompts"
[ "$(wc -l <together)" -eq 4 ] || fail "four lines are wanted"
while read -r line; do
  echo "$line" >one.jsonl
  "$QNEXT" generate run --jsonl one.jsonl --length 12 2>/dev/null
done <prompts.jsonl >alone
cmp together alone || fail "a prompt among others gives another text"
[ "$(grep -c '"ending": "length"' together)" -eq 4 ] || fail "four texts of full length"
[ "$(write --prefill-chunk 2 | wc -w)" -eq 43 ] || fail "43 tokens are wanted behind a prompt in pieces"

# What a model drafts changes nothing in a greedy text, and is counted; so are the copies.
[ "$(write --temperature 0 --drafts 3)" = "$(write --temperature 0)" ] || fail "drafts change a greedy text"
"$QNEXT" generate run --tokens 7,8,9 --length 20 --drafts 2 --profile >text 2>profile || fail "--profile"
grep -qE 'drafts: [0-9]+, [0-9]+ % accepted' profile || fail "the drafts are not counted"
grep -q 'copy to decoder_numbers ' profile || fail "the copies are not counted"
tiny model.multi_token_prediction.modules=0 output.folder=plain >/dev/null
expect_status 2 "$QNEXT" generate plain --drafts 2
expect_text "--drafts 2: the model has no MTP module to draft with"

# A text ends with a stop token, which is counted and not shown, and in front of a stop text.
third=$(write --temperature 0 | awk '{ print $6 }')
[ "$(write --temperature 0 --stop-tokens "$third" | wc -w)" -le 5 ] || fail "the stop token was written"
expect_status 2 "$QNEXT" generate run --jsonl prompts.jsonl --prompt a
expect_text "--jsonl"
