# SPDX-License-Identifier: Apache-2.0
#
# Stages of a pipeline train the model of one, with packed documents, dropout, a balance loss of global
# scope and evaluation: with the same bits for any cut, chunks and data ranks where no weight is on two
# stages; with MTP, whose embedding and head are the first and the last stage's, in double within 1e-9
# of every loss, a million times what one order of summation differs from another.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

alone="model.multi_token_prediction.modules=0"
run one 1 $alone
run two 2 $alone parallel.pipeline=2
run chunks 2 $alone parallel.pipeline=2 parallel.chunks=2 run.recompute=block
run four 4 $alone parallel.pipeline=4 'parallel.stage_layers=[2, 1, 1, 0]'
run data 4 $alone parallel.pipeline=2
for folder in two chunks four data; do
  [ "$(losses one | wc -l)" -eq 8 ] && diff <(losses one) <(losses "$folder") || fail "$folder has not the bits of one stage"
  expect_same_tensors one/checkpoints/step_8.h5 "$folder/checkpoints/step_8.h5"
done
grep -q '^ranks=4 .* pipeline=2 .* data=2 ' data.out || fail "not two data ranks of two stages"
grep -q '^pipeline=2 chunks=2 stage_layers=\[.*\] microbatches=4 bubble=0.125 ' chunks.out || fail "no line on the pipeline"

# From step 4 of one stage on four, and the other way round.
mkdir -p four_one/checkpoints one_four/checkpoints
cp four/checkpoints/step_4.h5 four_one/checkpoints
cp one/checkpoints/step_4.h5 one_four/checkpoints
run four_one 1 $alone
run one_four 4 $alone parallel.pipeline=4
for folder in four_one one_four; do
  grep -q '^resume=.*step=4' "$folder.out" || fail "$folder did not resume"
  expect_same_tensors one/checkpoints/step_8.h5 "$folder/checkpoints/step_8.h5"
done

# The copies of the embedding are one tensor in the file, and both are read from it.
run module 1
run shared 4 parallel.pipeline=2 parallel.tensor=2
expect_close module shared 16
mkdir -p shared_one/checkpoints
cp shared/checkpoints/step_4.h5 shared_one/checkpoints
run shared_one 2 parallel.pipeline=2
tail -n 4 module/metrics.jsonl >last && mkdir last_four && mv last last_four/metrics.jsonl
expect_close last_four shared_one 8

# A stage sends rows of 64 tokens, 32 wide, in float.
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" parallel.pipeline=2 parallel.chunks=2 \
  data.sequence=32 data.microbatch=2 model.width=32
expect_text "pipeline of 2 stages with 2 chunks each, 4 microbatches"
expect_text "8,192  8.00 KiB a microbatch, from chunk to chunk"
expect_status 2 $QNEXT_MPIRUN -n 3 "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" parallel.pipeline=2
expect_text "the job has 3 ranks"
