# SPDX-License-Identifier: Apache-2.0
#
# Text and JSONL to token files: the same bytes from packed and plain files, with any number of threads,
# and after being killed; a model trains on them.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

python3 "$QNEXT_SOURCE/scripts/make_tokenizer" 400 tokenizer "$QNEXT_SOURCE/README.md"
mkdir texts
cp "$QNEXT_SOURCE/README.md" texts/a.txt
# A line of JSONL for each line of prose; then chats and answers.
sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/ /g; s/.*/{"text": "&"}/' "$QNEXT_SOURCE/layers/README.md" >texts/b.jsonl
for i in $(seq 200); do
  printf '{"messages": [{"role": "user", "content": "%d?"}, {"role": "assistant", "content": "It is %d."}]}\n' $i $i
  printf '{"prompt": "%d+1=", "completion": "%d"}\n' $i $((i + 1))
done >texts/c.jsonl

# With `prefix=exec` a run in the background is the process $! itself.
to_tokens() {
  ${prefix:-} "$QNEXT" tokenize "$1" "$2" --tokenizer tokenizer "${@:3}"
}
two_steps() {
  expect_status 0 "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" "data.train=[{path: $1}]" output.folder="$2" \
    model.vocabulary=400 'data.evaluate={last_fraction: 0.0, every: 0}' run.steps=2 output.checkpoint_every=2 \
    'optimizer.learning_rate={peak: 1.0e-3, schedule: constant}' "${@:3}"
}
same() {
  for suffix in bin idx mask; do
    cmp "$1.$suffix" "$2.$suffix" || fail "$1.$suffix and $2.$suffix differ"
  done
}

expect_status 0 to_tokens texts one/all --threads 1
expect_text "one/all.bin one/all.idx one/all.mask"
documents=$((1 + $(grep -c . "$QNEXT_SOURCE/layers/README.md") + $(grep -vc . "$QNEXT_SOURCE/layers/README.md") + 400))
expect_text "one/all: documents=$documents tokens="
[ "$(ls one | wc -l)" -eq 3 ] || fail "something is left over"
expect_status 0 to_tokens texts three --threads 3 --save-every 0.01
same one/all three

# The bytes do not depend on how files are packed.
mkdir packed
cp texts/a.txt packed
gzip -c texts/b.jsonl >packed/b.jsonl.gz
{ head -n 100 texts/c.jsonl | gzip; tail -n +101 texts/c.jsonl | gzip; } >packed/c.jsonl.gz
expect_status 0 to_tokens packed packed_tokens
same one/all packed_tokens

# Killed again and again, each time behind its first save, until it comes to the end.
for i in $(seq 60); do cat texts/b.jsonl texts/c.jsonl; done >long.jsonl
expect_status 0 to_tokens long.jsonl straight
kills=0
while [ $kills -lt 5 ]; do
  before=$(cat killed.progress 2>/dev/null || true)
  prefix=exec to_tokens long.jsonl killed --save-every 0.05 >output 2>&1 &
  run=$!
  until [ "$(cat killed.progress 2>/dev/null || true)" != "$before" ] || ! kill -0 $run 2>/dev/null; do
    sleep 0.01
  done
  kill -9 $run 2>/dev/null || break
  wait $run || true
  kills=$((kills + 1))
done
[ $kills -ge 1 ] || fail "the run was never killed"
[ ! -e killed.idx ] || fail "a run that was killed left an index"
expect_status 0 to_tokens long.jsonl killed --save-every 0.05
expect_text "goes on behind"
same straight killed

# SIGTERM ends it in order.
prefix=exec to_tokens long.jsonl ended --save-every 0.05 >output 2>&1 &
run=$!
wait_for ended.progress
kill -TERM $run
status=0
wait $run || status=$?
if [ $status -ne 0 ]; then
  [ $status -eq 75 ] || fail "status $status, wanted 75"
  expect_text "SIGTERM: the same command goes on behind"
  expect_status 0 to_tokens long.jsonl ended
fi
same straight ended

# Training reads them.
expect_status 0 "$QNEXT" info one/all.bin
two_steps one/all run

# A deck that names the tokenizer trains on the records as they are: the losses are those of the token files.
two_steps texts/c.jsonl from_text data.tokenizer=tokenizer
expect_status 0 to_tokens texts/c.jsonl chats
two_steps chats from_files
[ "$(losses from_text)" = "$(losses from_files)" ] || fail "texts and their token files train differently"

# Who names the run means its tokenizer too.
expect_status 0 "$QNEXT" evaluate perplexity from_text texts/a.txt --output perplexity.json
grep -q '"tokenizer":"tokenizer/tokenizer.json"' perplexity.json || fail "evaluate does not take the tokenizer of the deck"
expect_status 0 "$QNEXT" generate from_text --prompt 'the Kokkos' --length 3
expect_text "the Kokkos"
count=$("$QNEXT" generate from_text --prompt 'the Kokkos' --length 0 --ids 2>/dev/null | wc -w)
[ "$count" -lt 10 ] || fail "generate takes bytes and not the tokenizer of the deck: $count tokens"

expect_status 2 to_tokens missing x
expect_text "missing: there is no such file or folder"
mkdir empty
expect_status 2 to_tokens empty x
expect_text "empty: holds no .txt, .jsonl or .json, packed with gzip or zstd or not"
expect_status 2 to_tokens texts x --end '<eos>'
expect_text "--end <eos>: tokenizer/tokenizer.json has no such added token; none writes none"
expect_status 2 to_tokens texts x --save-every 0
expect_text "--save-every 0: must be above 0"
expect_status 2 to_tokens texts x --chat loud
expect_text "--chat loud: wanted is instruct or thinking"
echo '{"text": 1}' >wrong.jsonl
expect_status 2 to_tokens wrong.jsonl x
expect_text "wrong.jsonl:1: text = 1: is an integer, wanted is text"
