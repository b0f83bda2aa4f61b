# SPDX-License-Identifier: Apache-2.0
#
# Adapters beside the projections of a folder: they begin as the model that they are beside, are all that
# is trained and all that the optimizer has numbers for, and go on behind a restart with the same bits.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"
. "$QNEXT_SOURCE/tests/regression/chat_folder.sh"

make_chats
lora=('fine_tune.lora={r: 3, lora_alpha: 6, target_modules: all-linear}'
  'fine_tune.lora.target_parameters=[mlp.experts.gate_up_proj, down_proj, mlp.gate.weight, lm_head.weight, mtp.fc.weight, mtp.layers.0.mlp.experts.down_proj]')
adapt() {
  tune "${lora[@]}" \
    'optimizer.learning_rate={peak: 2.0e-2, schedule: cosine, warmup: 2, steps: 6}' "$@"
}
tensors() { "$QNEXT" info "$1" --tensors | grep -E ' (BF16|F32) \(|parameters/|optimizer/'; }

for precision in float bf16; do
  expect_status 0 adapt run.precision=$precision output.folder=whole_$precision
  expect_status 0 adapt run.precision=$precision output.folder=resumed_$precision run.steps=4
  expect_status 0 adapt run.precision=$precision output.folder=resumed_$precision
  expect_text "resume=resumed_$precision/checkpoints/step_4.h5 step=4"
  expect_same_tensors {whole,resumed}_$precision/checkpoints/step_6.h5
  diff <(losses whole_$precision) <(losses resumed_$precision) || fail "losses differ behind a restart in $precision"
  python3 -c "import sys; a = list(map(float, sys.argv[1:])); sys.exit(len(a) != 3 or not a[2] < a[0])" \
    $(metric whole_$precision evaluation_loss) || fail "$precision: it does not learn"

  # Weights are those of the folder, and the optimizer has numbers for adapters alone.
  expect_status 0 adapt run.precision=$precision output.folder=start_$precision run.steps=0
  for run in start whole; do
    tensors ${run}_$precision | grep -v lora_ >$run.frozen || fail "$run: there are no tensors"
    tensors ${run}_$precision | grep lora_ >$run.trained || fail "$run: there are no adapters"
  done
  cmp start.frozen whole.frozen || fail "a frozen weight was changed"
  ! grep -q optimizer/ whole.frozen || fail "the optimizer has numbers for a frozen weight"
  [ "$(grep -c parameters/ whole.frozen)" -gt 40 ] || fail "weights of the folder are not there"
  ! cmp -s start.trained whole.trained || fail "the adapters were not trained"
done

# The first loss is that of the model without adapters.
expect_status 0 tune output.folder=full run.steps=2
[ "$(metric full loss | head -n 1)" = "$(metric whole_float loss | head -n 1)" ] || fail "adapters do not begin as nothing"

# A checkpoint is begun with as a folder is: its weights frozen, adapters that begin as nothing.
on_made() {
  tiny model.vocabulary=400 run.dropout=0 model.init=made run.steps=5 "$@"
}
expect_status 0 on_made output.folder=on_made_all
expect_status 0 on_made output.folder=on_made "${lora[@]}"
[ "$(metric on_made_all loss | head -n 1)" = "$(metric on_made loss | head -n 1)" ] ||
  fail "adapters beside a checkpoint do not begin as nothing"
"$QNEXT" info made --tensors | grep parameters/ >of_made
"$QNEXT" info on_made --tensors | grep parameters/ | tee on_made.all | grep -v lora_ >on_made.frozen
cmp of_made on_made.frozen || fail "weights of the checkpoint were changed"
[ "$(grep -c lora_ on_made.all)" -eq "$("$QNEXT" info whole_float --tensors | grep -c 'parameters/.*lora_')" ] ||
  fail "the checkpoint has not all adapters"
# And one with adapters goes on with them, but not without.
expect_status 0 on_made output.folder=on_adapters model.init=on_made run.steps=0 \
  'optimizer.learning_rate={peak: 1e-3, schedule: constant}' "${lora[@]}"
"$QNEXT" info on_adapters --tensors | grep parameters/ | cmp - on_made.all || fail "the adapters begin anew"
expect_status 2 on_made output.folder=refused model.init=on_made
expect_text "has adapters beside its weights, and all weights are trained here; qnext convert on_made/checkpoints/step_5.h5 FOLDER merges them"

# One number of each gradient, and two of each moment, for each number of the adapters, and up to 63 of
# padding for each bucket.
adapters=$(sed -n 's/.*trained=\([0-9]*\) .*/\1/p' whole_float/log.txt | head -n 1)
expect_status 0 "$QNEXT" plan whole_float/resolved.yaml
for line in "gradients 4" "moments 8"; do
  bytes=$(awk -v name="${line% *}" '$1 == name && NF == 4 { gsub(",", ""); print $2 }' output)
  [ "$bytes" -ge $((${line#* } * adapters)) ] && [ "$bytes" -lt $((${line#* } * (adapters + 64 * 42))) ] ||
    fail "${line% *} of $adapters trained numbers take $bytes bytes"
done

# The run writes, with its adapters.
expect_status 0 "$QNEXT" generate whole_float --prompt 'What is' --length 4 --tokenizer folder
expect_status 0 "$QNEXT" evaluate loglikelihood whole_float answers.jsonl
sum=$(sed -n 's/^sum=//p' output)
expect_status 0 "$QNEXT" evaluate loglikelihood folder answers.jsonl
python3 -c "import sys; a, b = map(float, sys.argv[1:]); sys.exit(not a > b)" "$sum" "$(sed -n 's/^sum=//p' output)" ||
  fail "the adapted model is no better than that of the folder"

refused() {  # SETTINGS MESSAGE
  expect_status 2 tune "fine_tune.lora={$1}" output.folder=refused
  expect_text "$2"
}
refused "r: -1" "fine_tune.lora.r = -1: must not be negative; 0: all weights are trained"
refused "r: 1, target_modules: [q_proj, x_proj]" "x_proj names no projection that an adapter can be beside; there are"
expect_text "in_proj_qkvz, in_proj_ba, out_proj, gate, experts.gate_up_proj, experts.down_proj, gate_proj, up_proj, down_proj, shared_expert_gate, q_proj"
refused "r: 1, target_parameters: [q_proj]" "experts.q_proj names no projection that an adapter can be beside; there are"
refused "r: 1, target_modules: []" "fine_tune.lora.target_modules = []: names no projection"
refused "r: 1, target_modules: all" "fine_tune.lora.target_modules = all: must be a list of names or all-linear"
refused "r: 1, lora_alpha: 0, target_modules: [q_proj]" "fine_tune.lora.lora_alpha = 0: must be positive"
refused "r: 1, lora_dropout: 0.1, target_modules: [q_proj]" "fine_tune.lora.lora_dropout = 0.1: is not supported; run.dropout"
expect_status 2 adapt parallel.zero=2 output.folder=refused
expect_text "parallel.zero = 2: must be 1 beside fine_tune.lora: the gradients"
