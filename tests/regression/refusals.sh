# SPDX-License-Identifier: Apache-2.0
#
# Exit statuses and what is said with them.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

for command in train plan generate compare bench info; do
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
expect_text "deck is required"
expect_status 2 "$QNEXT" train missing.yaml
expect_text "missing.yaml"
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --kokkos-fly=1

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

expect_status 2 "$QNEXT" info nowhere
expect_text "there is no such file or folder"
expect_status 2 "$QNEXT" generate small --top-p 0
expect_text "--top-p 0: must be above 0 and at most 1"
expect_status 2 "$QNEXT" generate small --tokens 256
expect_text "the prompt has the token 256; this model knows 0 to 255"
expect_status 2 "$QNEXT" generate small --precision double
expect_text "is float"
expect_status 2 "$QNEXT" bench fly "$QNEXT_SOURCE/inputs/tiny.yaml"
expect_text "wanted is peak, kernels, step, decode or all"
