# SPDX-License-Identifier: Apache-2.0
#
# Adapters as PEFT keeps them: read beside a folder, trained, written again, and merged into weights.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"
. "$QNEXT_SOURCE/tests/regression/chat_folder.sh"

make_chats
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" adapter
same() {  # A B BOUND
  python3 -c "import sys; a, b, c = map(float, sys.argv[1:]); sys.exit(not abs(a - b) <= c * abs(a))" "$@"
}
same_number() {  # WHAT A B BOUND
  same "${@:2}" || fail "$1: $2 and $3"
}
sum_of() {  # MODEL ...: of all log-probabilities of the answers
  expect_status 0 "$QNEXT" evaluate loglikelihood "$1" answers.jsonl "${@:2}"
  sed -n 's/^sum=//p' output
}

# Beside the weights, in a run that takes it and merged: the same model in double, where a sum of some hundred
# terms is off by less than 1e-12; and not the one without. Python adds up the merged weights once more.
beside=$(sum_of folder --adapter adapter --precision double)
take() {
  tune fine_tune.lora.adapter=adapter run.steps=0 'optimizer.learning_rate={peak: 1e-3, schedule: constant}' "$@"
}
expect_status 0 take run.precision=double output.folder=taken
expect_status 0 "$QNEXT" convert taken merged
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" adapter folder merged || fail "the merged weights are others"
same_number "the adapter of a run" "$beside" "$(sum_of taken)" 0
same_number "the merged folder" "$beside" "$(sum_of merged --precision double)" 1e-12
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" with_head head
same_number "with the head's weight beside it" "$beside" "$(sum_of folder --adapter with_head --precision double)" 0
without=$(sum_of folder --precision double)
! same "$beside" "$without" 1e-12 || fail "the adapter does nothing"
# Token by token, where the decoder has kernels of its own.
for model in "folder --adapter adapter" merged; do
  "$QNEXT" generate $model --precision double --tokenizer folder --prompt 'It is' --length 24 --temperature 0 --ids \
    >"written_${model%% *}" 2>output || fail "$model: nothing was written"
done
cmp written_folder written_merged || fail "the merged model writes another text"

# Merged into the folder without a run: the same model, and the same bytes as out of a run in float.
expect_status 0 "$QNEXT" convert folder merged_double --adapter adapter --dtype double
expect_text "dtype=float64"
same_number "the folder merged in double" "$beside" "$(sum_of merged_double --precision double)" 1e-12
expect_status 0 take output.folder=taken_float
expect_status 0 "$QNEXT" convert taken_float merged_of_run
expect_status 0 "$QNEXT" convert folder merged_directly --adapter adapter
expect_status 0 "$QNEXT" convert folder merged_with_head --adapter with_head
for folder in of_run directly with_head; do "$QNEXT" info merged_$folder --tensors | grep ' F32 (' >tensors_$folder; done
cmp tensors_directly tensors_with_head || fail "the head's weight beside the adapter merges to another model"
cmp tensors_of_run tensors_directly && [ "$(wc -l <tensors_directly)" -gt 40 ] || fail "two ways to merge differ"
cmp folder/tokenizer.json merged_directly/tokenizer.json

# Adapters of several ranks are those of the highest with zeros behind them.
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" ranked ranks
ranked=$(sum_of folder --adapter ranked --precision double)
expect_status 0 tune fine_tune.lora.adapter=ranked run.steps=0 run.precision=double output.folder=ranked_run \
  'optimizer.learning_rate={peak: 1e-3, schedule: constant}'
expect_status 0 "$QNEXT" convert ranked_run ranked_merged
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" ranked folder ranked_merged ||
  fail "the merged weights of several ranks are others"
same_number "several ranks in a run" "$ranked" "$(sum_of ranked_run)" 0
same_number "several ranks merged" "$ranked" "$(sum_of ranked_merged --precision double)" 1e-12

# What was read is written, number by number, beside a config that says the same.
expect_status 0 take output.folder=copied
expect_status 0 "$QNEXT" convert copied copy --adapter-only
expect_text "tensors=32"
python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" adapter copy || fail "the written adapter is another one"

# A trained one is read again as what it is; another seed of an adapter of one's own is another start.
expect_status 0 tune fine_tune.lora.adapter=adapter output.folder=trained
expect_status 0 "$QNEXT" convert trained trained_adapter --adapter-only
trained=$(sum_of trained)
same_number "the trained adapter" "$trained" "$(sum_of folder --adapter trained_adapter)" 0
python3 -c "import sys; a, b = map(float, sys.argv[1:]); sys.exit(not a > b)" "$trained" "$without" ||
  fail "training the adapter did not help"
# The merged weights of a float run are rounded once.
expect_status 0 "$QNEXT" convert trained trained_merged
expect_text "dtype=float32"
expect_status 0 "$QNEXT" convert trained trained_bf16 --dtype bf16
expect_text "dtype=bfloat16"

refused() {  # KEY VALUE MESSAGE: of adapter_config.json
  rm -rf wrong
  cp -r adapter wrong
  python3 - "$1" "$2" <<'PYTHON'
import json
import sys

config = json.load(open("wrong/adapter_config.json", encoding="utf-8"))
config[sys.argv[1]] = json.loads(sys.argv[2])
config = {key: value for key, value in config.items() if value != "absent"}
json.dump(config, open("wrong/adapter_config.json", "w", encoding="utf-8"))
PYTHON
  expect_status 2 "$QNEXT" evaluate loglikelihood folder answers.jsonl --adapter wrong
  expect_text "$3"
}
refused peft_type '"IA3"' 'adapter_config.json: peft_type is "IA3", expected "LORA"'
refused use_dora true 'adapter_config.json: use_dora = true: is not supported'
refused alpha_pattern '{".*\\.gate_up_proj": 15}' \
  'model.layers.1.mlp.experts.gate_up_proj has a scale of its own, 5 beside 2.5 of model.layers.0.linear_attn.in_proj_qkvz'
refused alpha_pattern '{"q_pro.": 4}' \
  'model.layers.3.self_attn.q_proj has a scale of its own, 1.3333333333333333 beside 2.5 of'
refused rank_pattern '{"q_proj": 3, "q_pro.": 4}' \
  'adapter_config.json: rank_pattern: two patterns with other numbers match model.layers.3.self_attn.q_proj'
refused rank_pattern '{"q_proj": 0}' 'adapter_config.json: rank_pattern = 0: must be positive'
refused rank_pattern '{"q_proj": 4}' 'model.layers.3.self_attn.q_proj: the factors are not of rank 4, which the config says'
refused bias '"all"' 'adapter_config.json: bias = "all": is not supported, expected none'
refused init_lora_weights '"pissa"' 'init_lora_weights = pissa: changes the weights of the base model and is not supported'
refused r '"absent"' 'adapter_config.json: r: is not there'
refused r 0 'adapter_config.json: r = 0: must be positive'
refused r 4 'model.layers.0.linear_attn.in_proj_qkvz: the factors are not of rank 4, which the config says'

torn() {  # WAY MESSAGE: of adapter_model.safetensors
  rm -rf wrong
  python3 "$QNEXT_SOURCE/tests/regression/peft_folder.py" wrong "$1"
  expect_status 2 "$QNEXT" evaluate loglikelihood folder answers.jsonl --adapter wrong
  expect_text "$2"
}
torn half 'adapter_model.safetensors: has one factor of model.layers.3.self_attn.q_proj and not the other'
torn foreign '1 of its 33 tensors are no factors beside a projection of this model, the first is base_model.model.x'
torn narrow_head 'base_model.model.lm_head.base_layer.weight: has the extents (400, 31), wanted are (400, 32)'
torn wide 'base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight: has the extents (3, 31), wanted are (3, 32)'

expect_status 2 tune fine_tune.lora.adapter=adapter fine_tune.lora.r=4 output.folder=refused
expect_text "fine_tune.lora.r = 4: the adapter has 3"
expect_status 2 tune fine_tune.lora.adapter=adapter fine_tune.lora.lora_alpha=4 output.folder=refused
expect_text "fine_tune.lora.lora_alpha = 4: the adapter has 7.5"
expect_status 2 tune fine_tune.lora.adapter=adapter fine_tune.lora.use_rslora=true output.folder=refused
expect_text "fine_tune.lora.use_rslora = true: the adapter has false"
expect_status 2 tune fine_tune.lora.adapter=adapter fine_tune.lora.target_modules=[q_proj] output.folder=refused
expect_text "fine_tune.lora.target_modules = [q_proj]: the adapter is beside other projections"
expect_status 2 "$QNEXT" evaluate loglikelihood taken answers.jsonl --adapter adapter
expect_text "--adapter adapter: comes beside a Hugging Face folder, and taken is none"
expect_status 2 "$QNEXT" convert folder x --adapter-only
expect_text "--adapter-only: is of a run; folder is a Hugging Face folder"
expect_status 2 "$QNEXT" convert taken x --adapter adapter
expect_text "--adapter adapter: comes beside a Hugging Face folder, and taken is none"
expect_status 2 "$QNEXT" convert folder x.h5 --adapter adapter
expect_text "x.h5: --adapter writes a Hugging Face folder, no checkpoint"
expect_status 2 "$QNEXT" convert folder merged --adapter adapter
expect_text "merged: is there already; it is not replaced"
expect_status 2 "$QNEXT" convert folder x --adapter wrong
expect_text "has the extents (3, 31), wanted are (3, 32)"
[ ! -e x ] && [ ! -e x.part ] || fail "a refused merge leaves something"
expect_status 2 "$QNEXT" convert made x --adapter-only
expect_text "made: has no adapters; without --adapter-only the model is written"
expect_status 2 "$QNEXT" convert taken x --adapter-only --dtype bf16
expect_text "--dtype and --shard-size are not of an adapter: it has the type of the run"
