# SPDX-License-Identifier: Apache-2.0
#
# Read by scripts beside it that fine-tune, behind tiny_run.sh.

# Makes `folder`, a small Hugging Face model with a tokenizer, and of chats:
#
#   chats.jsonl, held_out.jsonl    to train and to evaluate
#   answers.jsonl, breaks.jsonl    the answers of chats.jsonl behind their questions, and the line
#                                  break alone that an answer begins behind
#   alone.jsonl, beside.jsonl      a chat; the same beside one without an answer
make_chats() {
  python3 "$QNEXT_SOURCE/scripts/make_tokenizer" 400 tokenizer "$QNEXT_SOURCE/README.md"
  expect_status 0 tiny output.folder=made model.vocabulary=400 run.steps=4 run.dropout=0 "$@"
  expect_status 0 "$QNEXT" convert made folder
  cp tokenizer/tokenizer.json folder
  python3 - <<'PYTHON'
import json

START, END = "<|im_start|>", "<|im_end|>"


def chat(question, answer):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def write(path, records):
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


pairs = [(f"What is {i} and {7 * i}?", f"It is {8 * i}, as the README says.") for i in range(1, 25)]
write("chats.jsonl", (chat(*pair) for pair in pairs[:16]))
write("held_out.jsonl", (chat(*pair) for pair in pairs[16:]))
given = [f"{START}user\n{question}{END}\n{START}assistant" for question, _ in pairs[:16]]
write("answers.jsonl", ({"context": g, "continuation": f"\n{answer}{END}"} for g, (_, answer) in zip(given, pairs)))
write("breaks.jsonl", ({"context": g, "continuation": "\n"} for g in given))
silent = {"messages": [{"role": "user", "content": "Nobody answers this."}]}
write("alone.jsonl", [chat(*pairs[0])])
write("beside.jsonl", [chat(*pairs[0]), silent])
PYTHON
}

# A run of six small steps from `folder`. More overrides follow.
tune() {
  ${prefix:-} "$QNEXT" train "$QNEXT_SOURCE/inputs/fine_tune.yaml" model.init=folder data.tokenizer=folder \
    run.precision=float run.steps=6 run.peak_flops=1e9 data.sequence=64 data.batch=4 data.microbatch=2 \
    'data.train=[{path: chats.jsonl}]' 'data.evaluate={path: held_out.jsonl, every: 2}' \
    'optimizer.learning_rate={peak: 3.0e-3, schedule: cosine, warmup: 2}' output.log_every=1 \
    output.checkpoint_every=2 output.keep=5 "$@"
}

# metric FOLDER NAME: of all steps.
metric() { sed -n "s/.*\"$2\": \([0-9.e+-]*\).*/\1/p" "$1/metrics.jsonl"; }
