# SPDX-License-Identifier: Apache-2.0
#
# Weights start from a checkpoint, a run folder, or a Hugging Face folder of both forms.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

# One step so small that no float changes: the evaluation is that of the weights the run began with.
no_step=('optimizer.learning_rate={peak: 1e-30, schedule: constant}' run.steps=1 run.dropout=0
  'data.evaluate={last_fraction: 0.001, every: 0}')
evaluated() {
  sed -n 's/.*"evaluation_loss": \([0-9.e+-]*\).*/\1/p' "$1/metrics.jsonl" | tail -1
}

expect_status 0 tiny output.folder=first 'data.evaluate={last_fraction: 0.001, every: 0}'
expect_status 0 tiny output.folder=untrained "${no_step[@]}"
[ "$(evaluated first)" != "$(evaluated untrained)" ] || fail "training changed nothing"
for from in first first/checkpoints/step_12.h5 first/checkpoints/best.h5; do
  rm -rf second
  expect_status 0 tiny output.folder=second model.init=$from "${no_step[@]}"
  expect_text "start=$from"
  [ "$(evaluated second)" = "$(evaluated first)" ] || fail "$from: other weights"
done
expect_status 2 tiny output.folder=wider model.init=first model.width=48
expect_text "/parameters/lm_head.weight: is float32"

# The shapes come from the folder; the deck may repeat them.
cat >folder.yaml <<'DECK'
run: {name: folder, steps: 1, peak_flops: 1e9}
model: {init: folder}
data: {train: [{path: "synthetic:markov"}], evaluate: {last_fraction: 0.001}, sequence: 32, batch: 2}
optimizer: {learning_rate: {peak: 1e-30, schedule: constant}}
DECK
for form in config.json config.released.json; do
  rm -rf folder
  cp -r "$QNEXT_SHARED/golden/odd/hf" folder
  chmod -R u+w folder
  cp "$QNEXT_SHARED/golden/odd/hf/$form" folder/config.json
  expect_status 0 "$QNEXT" train folder.yaml output.folder=$form
  expect_text "start=folder"
done
[ "$(evaluated config.json)" = "$(evaluated config.released.json)" ] || fail "the two forms of config.json differ"
expect_status 2 "$QNEXT" train folder.yaml model.width=1024
expect_text "model.width = 1024: the model folder has"
expect_status 2 "$QNEXT" train folder.yaml model.attention.rotary_fraction=0.5
expect_text "model.attention.rotary_fraction = 0.5: the model folder has 0.333"
expect_status 2 "$QNEXT" train folder.yaml 'model.mixers={full_attention_every: 2}'
expect_text "full_attention_every: 2}: the model folder has another order"
expect_status 2 "$QNEXT" train folder.yaml model.dense_layers=[1]
expect_text "model.dense_layers = [1]: the model folder has others"
expect_status 0 "$QNEXT" train folder.yaml model.init="$QNEXT_SHARED/golden/tiny/hf_released" output.folder=mtp
grep -qE '"loss_mtp": [1-9]' mtp/metrics.jsonl || fail "the module for multi-token prediction is not there"
