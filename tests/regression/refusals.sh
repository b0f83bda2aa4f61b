# SPDX-License-Identifier: Apache-2.0
#
# Exit statuses and what is said with them.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

for command in train plan generate tokenize evaluate compare convert bench info; do
  expect_status 0 "$QNEXT" $command --help
  expect_text "Usage: qnext $command"
done
expect_status 0 "$QNEXT" --help
expect_text "Exit status"
expect_status 0 "$QNEXT" --version
expect_text "backend"
expect_status 2 "$QNEXT"
expect_status 2 "$QNEXT" fly
expect_status 2 "$QNEXT" train
expect_text "deck is required; see qnext --help"
expect_status 2 "$QNEXT" train missing.yaml
expect_text "missing.yaml"
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --kokkos-fly=1
expect_text "see qnext --kokkos-help"
expect_status 0 "$QNEXT" --kokkos-help
expect_text "Kokkos command line arguments"

sed 's/  per_token: 2/  per_tokens: 2/' "$QNEXT_SOURCE/inputs/tiny.yaml" >wrong.yaml
expect_status 2 "$QNEXT" plan wrong.yaml
expect_text "wrong.yaml:"
expect_text "per_token"
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" model.delta_net.value_heads=5
expect_text "model.delta_net.value_heads = 5: must be a multiple of key_heads, 2"

# A learning rate that throws the weights away.
expect_status 4 tiny 'optimizer.learning_rate={peak: 1e30, schedule: constant}' output.folder=bad
expect_text "qnext: step"
expect_text "gradients are not finite, the first is that of"
expect_status 0 tiny 'optimizer.learning_rate={peak: 1e30, schedule: constant}' \
  optimizer.on_bad_number=skip output.folder=skipped
expect_text "; skipped"

# What a restart does not accept.
# Gradient norms of a run vary by more than a thousandth.
spike() {
  tiny "optimizer.spike={action: $1, factor: 1.001, window: 2}" output.folder="spike_$1"
}
expect_status 4 spike stop
expect_text "times the usual; at most 1.001 times is wanted"
expect_status 0 spike skip
expect_text "times the usual; skipped"
expect_text "step=12/12"
[ "$("$QNEXT" info spike_skip | sed -n 's/progress.updates=//p')" -lt 12 ] || fail "spikes were not skipped"
expect_status 0 spike warn
expect_text "times the usual"
[ "$("$QNEXT" info spike_warn | sed -n 's/progress.updates=//p')" -eq 12 ] || fail "a warning skipped steps"

tiny run.steps=4 output.folder=small >/dev/null
expect_status 2 tiny output.folder=small model.width=48
expect_text "48"
expect_text "32"
expect_status 2 tiny output.folder=small run.seed=2
expect_status 2 tiny output.folder=small output.resume=never
expect_text "holds checkpoints of an earlier run"
head -c 3000 small/checkpoints/step_4.h5 >cut.h5
expect_status 4 tiny output.folder=other output.resume=cut.h5
expect_text "cut.h5: is damaged"
cp cut.h5 small/checkpoints/step_8.h5
expect_status 0 tiny run.steps=4 output.folder=small
expect_text "refused small/checkpoints/step_8.h5"

# Past a file size that only root may raise again: the step is lost, the program ends in order. The
# limit comes when the run has begun, because MPI keeps files of its own.
grows() {
  prefix=exec tiny output.folder=small run.steps=1000000 output.checkpoint_every=0 &
  local run=$!
  wait_for small/metrics.jsonl
  local lines
  lines=$(wc -l <small/metrics.jsonl)
  until [ "$(wc -l <small/metrics.jsonl)" -gt "$lines" ]; do sleep 0.1; done
  prlimit --pid $run --fsize=$(($(stat -c %s small/checkpoints/step_4.h5) - 8192))
  touch small/checkpoint_now
  wait $run
}
expect_status 3 grows
expect_text ".h5.part: "
expect_text "File too large"
ls small/checkpoints/*.part 2>/dev/null && fail "a file that was given up is still there"
expect_status 0 "$QNEXT" info small
expect_text "step=4"

expect_status 2 "$QNEXT" info nowhere
expect_text "there is no such file or folder"
expect_status 2 "$QNEXT" info small/deck.yaml
expect_text "is a deck; qnext plan says what it asks for"
expect_status 2 "$QNEXT" generate small run.seed=2
expect_text "run.seed=2: only a deck has keys to replace, and small is none"
mkdir -p empty/checkpoints
expect_status 2 "$QNEXT" generate empty
expect_text "empty: the folder holds no whole checkpoint"
expect_status 2 tiny output.folder=other output.resume=empty
expect_text "empty: the folder holds no whole checkpoint"
touch file
expect_status 3 tiny output.folder=file/run
expect_text "file/run: the run folder cannot be made"
expect_status 2 "$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" --kokkos-fly=1
expect_text "--kokkos-fly=1: Kokkos knows no such flag"
expect_status 2 "$QNEXT" generate small --top-p 0
expect_text "--top-p 0: must be above 0 and at most 1"
expect_status 2 "$QNEXT" generate small --temperature -1
expect_text "--temperature -1: must not be negative"
expect_status 2 "$QNEXT" generate small --top-k -1
expect_text "--top-k -1: must not be negative"
expect_status 2 "$QNEXT" generate small --length -1
expect_text "--length -1: must not be negative"
expect_status 2 "$QNEXT" generate small --tokens 256
expect_text "the prompt has the token 256; this model knows 0 to 255"
expect_status 2 "$QNEXT" generate small --precision double
expect_text "--precision double: the checkpoint small/checkpoints/step_4.h5 is float"
expect_status 2 "$QNEXT" generate small --precision half
expect_text "--precision half: wanted is double, float or bf16"
mkdir -p nothing
expect_status 2 "$QNEXT" info nothing
expect_text "nothing: is neither a run folder (no checkpoints/) nor a Hugging Face folder"
expect_status 2 "$QNEXT" bench fly "$QNEXT_SOURCE/inputs/tiny.yaml"
expect_text "wanted is peak, kernels, step, decode, all or machine"
