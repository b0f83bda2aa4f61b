# SPDX-License-Identifier: Apache-2.0
#
# Fifty steps in double with each degree alone stay within 1e-9 of one rank, a million times what one order of
# summation differs from another: packed documents, MTP, dropout, accumulation, evaluation. With ALL=8 in the
# environment so do eight steps with four degrees together on as many ranks, with ALL=16 all five, and so do
# adapters: minutes on a few cores.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

fifty=(run.steps=50 data.microbatch=4 output.checkpoint_every=0 data.evaluate.every=25
  'optimizer.learning_rate={peak: 3.0e-3, schedule: cosine, warmup: 4}')
run one 1 "${fifty[@]}"
for degree in tensor context pipeline expert data; do
  run $degree 2 "${fifty[@]}" parallel.$degree=2
  expect_close one $degree 100
done

[ -n "${ALL:-}" ] || exit 0
run alone 1 data.microbatch=1 run.recompute=mixer
run together "$ALL" data.microbatch=1 run.recompute=mixer parallel.tensor=2 parallel.context=2 parallel.pipeline=2 parallel.expert=4
grep -q "^ranks=$ALL tensor=2 context=2 pipeline=2 expert=4 " together.out || fail "not four degrees together"
expect_close alone together 16
adapters='fine_tune.lora={r: 3, lora_alpha: 6, target_modules: all-linear}'
run alone_adapted 1 data.microbatch=1 run.recompute=mixer "$adapters"
run together_adapted "$ALL" data.microbatch=1 run.recompute=mixer parallel.tensor=2 parallel.context=2 parallel.pipeline=2 \
  parallel.expert=4 "$adapters"
expect_close alone_adapted together_adapted 16
! diff <(numbers alone) <(numbers alone_adapted) >difference || fail "adapters train as all weights do"
