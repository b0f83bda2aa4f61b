# SPDX-License-Identifier: Apache-2.0
#
# Hugging Face folders become checkpoints and folders again, with the same bytes; a run starts from
# them, keeps what stands beside the weights, and a trained model is exported.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

golden=$QNEXT_SHARED/golden
tensors() {
  "$QNEXT" info "$1" --tensors | grep -E ' (BF16|F16|F32|F64) \(' || fail "$1 has no tensors"
}
expect_same_folder() {
  diff <(tensors "$1") <(tensors "$2") >differences || {
    cat differences
    fail "the tensors of $1 and $2 differ"
  }
  for file in config.json generation_config.json; do
    [ ! -e "$1/$file" ] || cmp "$1/$file" "$2/$file"
  done
}

for model in tiny/hf tiny/hf_released odd/hf long/hf; do
  rm -rf model.h5 back
  expect_status 0 "$QNEXT" convert "$golden/$model" model.h5
  expect_text "precision="
  expect_status 0 "$QNEXT" convert model.h5 back --shard-size "100 KB"
  [ -e back/model.safetensors.index.json ] || fail "$model: no index of the shards"
  expect_same_folder "$golden/$model" back
done
expect_status 2 "$QNEXT" convert "$golden/odd/hf" model.h5
expect_text "model.h5: is there already; it is not replaced"
expect_status 2 "$QNEXT" convert missing model.h5
expect_text "missing: there is no such file or folder"

# A file that may not grow as wanted is an error of its name, and leaves nothing that looks whole.
(
  ulimit -f 16
  expect_status 3 "$QNEXT" convert "$golden/tiny/hf" limited.h5
  expect_text "limited.h5"
  expect_status 3 "$QNEXT" convert model.h5 limited
  expect_text "limited"
)
[ ! -e limited.h5 ] && [ ! -e limited ] || fail "half a model is there"

# A folder is taken wherever a checkpoint is: they are the same model.
rm -f model.h5
"$QNEXT" convert "$golden/tiny/hf_released" model.h5 >/dev/null
for model in "$golden/tiny/hf_released" model.h5; do
  "$QNEXT" generate "$model" --tokens 1,2,3 --length 8 --temperature 0 --ids --precision bf16 \
    >"written_$(basename "$model")" 2>output || fail "$model: nothing was written"
  expect_status 0 "$QNEXT" info "$model"
  expect_text "parameters=454536 layers=4 width=64"
done
cmp written_hf_released written_model.h5 || fail "the folder and its checkpoint write different texts"
cat >deck.yaml <<'DECK'
run: {name: converted, steps: 0, precision: bf16, peak_flops: 1e9}
model: {init: folder}
data: {train: [{path: "synthetic:markov"}], sequence: 32, batch: 4}
optimizer: {learning_rate: {peak: 1.0e-3}}
output: {checkpoint_every: 1}
DECK
expect_status 0 "$QNEXT" plan deck.yaml model.init="$golden/tiny/hf_released"
expect_text "454,536"

# A run of no step from the folder, and one from the checkpoint, keep every byte.
expect_status 0 "$QNEXT" train deck.yaml model.init="$golden/tiny/hf_released" output.folder=from_folder
expect_status 0 "$QNEXT" convert from_folder from_folder_back
expect_same_folder "$golden/tiny/hf_released" from_folder_back
sed '/^model:/d' deck.yaml >checkpoint.yaml
sed -n '/^model:/,/^data:/{/^data:/!p}' from_folder/resolved.yaml >>checkpoint.yaml
expect_status 0 "$QNEXT" train checkpoint.yaml model.init=model.h5 output.folder=from_checkpoint
expect_status 0 "$QNEXT" convert from_checkpoint from_checkpoint_back
expect_same_folder "$golden/tiny/hf_released" from_checkpoint_back

# Trained weights have the types of the run, across a restart too.
expect_status 0 "$QNEXT" train deck.yaml model.init="$golden/tiny/hf_released" run.steps=1 output.folder=trained
expect_status 0 "$QNEXT" train deck.yaml model.init="$golden/tiny/hf_released" run.steps=2 output.folder=trained
expect_status 0 "$QNEXT" info trained
grep -qx "hugging_face.updates=2" output || fail "the updates since the folder are not counted"
expect_status 0 "$QNEXT" convert trained trained_back
expect_text "dtype=bfloat16"
tensors trained_back >list
grep -q '^model.norm.weight F32 ' list || fail "a norm of a bf16 run is not in float"
grep -q '^lm_head.weight BF16 ' list || fail "a matrix of a bf16 run is not in bf16"
expect_status 0 "$QNEXT" convert trained trained_bf16 --dtype bf16
tensors trained_bf16 >list
[ "$(grep -c ' BF16 ' list)" -eq "$(wc -l <list)" ] || fail "--dtype bf16 left other types"
expect_status 0 "$QNEXT" train deck.yaml model.init=trained_bf16 output.folder=again
expect_status 0 "$QNEXT" generate trained_back --tokens 1 --length 1 --precision float

# A model that was in no folder gets a config.json of its own.
expect_status 0 tiny run.steps=4 output.folder=own
expect_status 0 "$QNEXT" convert own own_back
expect_text "dtype=float32"
expect_status 0 "$QNEXT" info own_back
expect_text "mixers=DDDA"
expect_text "multi_token_prediction=1"
for what in own own_back; do
  "$QNEXT" generate $what --tokens 1,2,3 --length 8 --temperature 0 --ids --precision float \
    >written_$what 2>output || fail "$what: nothing was written"
done
cmp written_own written_own_back || fail "the exported model writes another text"
