# SPDX-License-Identifier: Apache-2.0
#
# Kokkos Tools see every kernel and phase by a label of ours, or by that of the view that Kokkos
# itself fills.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

export KOKKOS_TOOLS_LIBS=$QNEXT_TOOL
check_labels() {
  grep -a '^tool: kernel' output | sort -u >kernels
  grep -avE '^tool: kernel ([a-z_0-9]+::[a-z_0-9]+|Kokkos::View.*)$' kernels >anonymous &&
    fail "kernels without a label: $(cat anonymous)"
  [ "$(grep -avc Kokkos kernels)" -ge "$1" ] || fail "fewer than $1 kernels: $(cat kernels)"
}

for precision in float bf16; do
  expect_status 0 tiny run.steps=4 run.precision=$precision output.folder=$precision output.checkpoint_every=1 \
    'data.evaluate={last_fraction: 0.001, every: 2}' 'model.experts.capacity={rule: probability, factor: 1.0}' \
    'model.dense_layers=[1]' model.dense_width=32
  check_labels 50
  for phase in forward backward update 'gradient norm' evaluation checkpoint; do
    expect_text "tool: phase $phase"
  done
  expect_text "tool: kernel delta_rule::chunked_backward"
  expect_status 0 "$QNEXT" generate $precision --prompt abc --length 3
  check_labels 15
  expect_text "tool: kernel delta_rule::recurrent_forward"
done

# A plan is arithmetic: no kernel but the one that every command begins with.
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/qwen3_next_80b.yaml" --ranks 2 --layouts 1 data.batch=2
! grep -a '^tool: kernel' output | grep -v ' subnormals::flush$' || fail "a plan computes"

unset KOKKOS_TOOLS_LIBS
expect_status 0 tiny run.steps=4 output.folder=profile --profile
expect_text "phase or kernel"
expect_text "delta_rule::chunked_backward"
