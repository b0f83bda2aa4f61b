# SPDX-License-Identifier: Apache-2.0
#
# 1, 2, 4 and once 8 data ranks train the same model, bit for bit: in float and bf16, with MTP, packed
# documents, dropout, two microbatches a rank at least, evaluation, a balance loss of each kind and scope, and
# experts that drop by either rule; with other buckets on each number of ranks: one for all, one for each
# tensor, and sizes that fit nothing.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

declare -A bucket=([1]=1GiB [2]=1 [4]=100003 [8]=20KiB)

# same_on_ranks NAME OVERRIDES ...: runs NAME_1, NAME_2 and NAME_4, or those of $more, and compares them.
same_on_ranks() {
  local name=$1
  shift
  for ranks in 1 ${more:-2 4}; do
    prefix="$QNEXT_MPIRUN -n $ranks" tiny data.batch=16 run.steps=4 parallel.bucket="${bucket[$ranks]}" "$@" \
      'data.evaluate={last_fraction: 0.002, every: 2}' output.folder="${name}_$ranks" >"${name}_$ranks.out" 2>&1 || {
      cat "${name}_$ranks.out"
      fail "$name on $ranks ranks"
    }
    grep -q "^ranks=$ranks .* data=$ranks " "${name}_$ranks.out" || fail "$name ran on other ranks than $ranks"
  done
  for ranks in ${more:-2 4}; do
    expect_same_tensors "${name}_1/checkpoints/step_4.h5" "${name}_$ranks/checkpoints/step_4.h5"
    h5diff "${name}_1/checkpoints/step_4.h5" "${name}_$ranks/checkpoints/step_4.h5" /records/data ||
      fail "$name: the cursors differ"
    diff <(losses "${name}_1") <(losses "${name}_$ranks") || fail "$name: the metrics differ"
  done
}

same_on_ranks global run.precision=bf16 --profile
same_on_ranks layer 'model.experts.balance_loss={form: megatron, scope: microbatch, coefficient: 0.01}' \
  data.microbatch=1 model.experts.router_z_loss=0.001
same_on_ranks all_layers 'model.experts.balance_loss={form: huggingface, coefficient: 0.01}' data.pack=false \
  'model.experts.capacity={rule: probability, factor: 1.25}'
same_on_ranks sequence 'model.experts.balance_loss={form: megatron, scope: sequence, coefficient: 0.01}' \
  'model.experts.capacity={rule: position, factor: 1.25}' run.recompute=block

more="2 8" same_on_ranks each_layer 'model.experts.balance_loss={form: maxtext, coefficient: 0.01}' data.microbatch=1

# The running order has no tree to share: it repeats itself across a restart on as many ranks.
running() {
  prefix="$QNEXT_MPIRUN -n 2" tiny data.batch=16 run.steps=4 run.gradient_order=running output.checkpoint_every=2 \
    output.folder="$1" >"$1.out" 2>&1 || fail "running on 2 ranks: $(tail -n 3 "$1.out")"
}
running straight
mkdir -p resumed/checkpoints
cp straight/checkpoints/step_2.h5 resumed/checkpoints
running resumed
grep -q "resume=resumed/checkpoints/step_2.h5" resumed.out || fail "not resumed: $(cat resumed.out)"
expect_same_tensors {straight,resumed}/checkpoints/step_4.h5
diff <(losses straight | tail -n 2) <(losses resumed) || fail "the losses of the running order differ behind a restart"

# Ranks that keep their own part of the gradients alone (ZeRO-2) have the same bits again.
more="2 4" same_on_ranks parts 'model.experts.balance_loss={form: maxtext, coefficient: 0.01}' data.microbatch=1 \
  parallel.zero=2
expect_same_tensors each_layer_1/checkpoints/step_4.h5 parts_4/checkpoints/step_4.h5
diff <(losses each_layer_1) <(losses parts_4) || fail "parts of the gradients: the metrics differ"

# Twelve microbatches: no power of two, but each rank has as many.
same_on_ranks twelve data.batch=12 data.microbatch=1

grep -q "^messages of this rank .* bytes$" global_4.out || fail "the profile has no messages"
for content in gradients weights "gradients of experts" "weights of experts"; do
  grep -Eq "^group: $content +[0-9]+ +[1-9][0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+%$" global_4.out ||
    fail "the profile does not say how much of the $content was hidden"
done
grep -Eq "^exchange +[0-9]+ +[1-9][0-9]+$" global_4.out || fail "nothing was exchanged"
grep -q '"evaluation_loss"' global_4/metrics.jsonl || fail "there was no evaluation"
for run in sequence_4 all_layers_4; do
  grep -q '"dropped_share": 0\.0*[1-9]' $run/metrics.jsonl || fail "$run: no capacity dropped anything"
done
