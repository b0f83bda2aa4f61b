# SPDX-License-Identifier: Apache-2.0
#
# Two and four context ranks train the model of one: in double within 1e-9 of every loss, a million
# times what one order of summation differs from another, with MTP, packed documents that cross the
# borders of ranks, dropout and evaluation, whose last window is shorter than the others. So do context
# ranks beside data, tensor and expert ranks. A run repeats its bits, and goes on at another layout.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

run one 1
run context 2 parallel.context=2
run again 2 parallel.context=2 output.checkpoint_every=0
run four 4 parallel.context=4 output.checkpoint_every=0
run with_data 4 parallel.context=2 output.checkpoint_every=0
run with_tensor 4 parallel.context=2 parallel.tensor=2 output.checkpoint_every=0
run with_experts 4 parallel.context=2 parallel.expert=4 run.recompute=block output.checkpoint_every=0
grep -q '^ranks=4 tensor=1 context=2 .* data=2 ' with_data.out || fail "not two data ranks of two context ranks"
for folder in context four with_data with_tensor with_experts; do
  expect_close one "$folder" 16
done
diff <(losses context) <(losses again) || fail "the metrics of two equal runs differ"
! diff <(losses one) <(losses context) >difference || fail "two ranks have the bits of one: was anything divided?"

# Experts that drop count together what tensor and context ranks chose. Without evaluation, where the
# tokens that fill up the last window count too.
capacity='model.experts.capacity={rule: probability, factor: 0.75}'
run dropping 1 "$capacity" output.checkpoint_every=0
run dropping_ranks 4 parallel.context=2 parallel.tensor=2 "$capacity" output.checkpoint_every=0
sed -i 's/"evaluation_loss": [0-9.e+-]*/"evaluation_loss": 0/' dropping/metrics.jsonl dropping_ranks/metrics.jsonl
expect_close dropping dropping_ranks 16
dropped() { grep -oE '"dropped_share": [0-9.e-]+' "$1/metrics.jsonl"; }
diff <(dropped dropping) <(dropped dropping_ranks) || fail "ranks drop other shares"
awk -v d="$(dropped dropping | tail -n 1 | cut -d' ' -f2)" 'BEGIN { exit !(d > 0.05) }' || fail "nothing was dropped"

# From step 4 on one rank, and the other way round.
mkdir -p context_one/checkpoints one_context/checkpoints
cp context/checkpoints/step_4.h5 context_one/checkpoints
cp one/checkpoints/step_4.h5 one_context/checkpoints
run context_one 1
run one_context 4 parallel.context=4
tail -n 4 one/metrics.jsonl >last && mkdir last_four && mv last last_four/metrics.jsonl
for folder in context_one one_context; do
  expect_close last_four "$folder" 8
done

train="$QNEXT_MPIRUN -n 3 $QNEXT train $QNEXT_SOURCE/inputs/tiny.yaml"
expect_status 2 $train parallel.context=3
expect_text "parallel.context = 3: data.sequence, 128, is no multiple of it; these do: 1, 2, 4, 8, 16, 32"
