# SPDX-License-Identifier: Apache-2.0
#
# What `plan` says of the bytes of the first rank is what `train --profile` counts, to the byte, for each
# degree and some together; for the rows of experts within a tenth, because they go where the router sends
# them. And `parallel: auto`: a layout is taken and said, the same that `plan` names first; a machine file
# is written, read and refused.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

steps=4
settings() {
  echo run.steps=$steps data.batch=8 data.microbatch=1 output.checkpoint_every=0 "$@"
}

# expect_bytes RANKS OVERRIDES ...
expect_bytes() {
  local ranks=$1 group planned counted allowed
  shift
  # shellcheck disable=SC2046
  prefix=$QNEXT_MPIRUN\ -n\ $ranks tiny $(settings "$@") output.folder=run --profile >counted 2>&1 || {
    cat counted
    fail "train on $ranks ranks: $*"
  }
  "$QNEXT" plan run/resolved.yaml --ranks "$ranks" >planned || fail "plan for $ranks ranks: $*"
  sed -n '/^bytes that the first rank sends/,$p' planned | grep '^  ' >groups || fail "$*: plans no messages"
  while read -r line; do
    group=$(sed -E 's/ +[0-9,]+  .*//' <<<"$line")
    planned=$(sed -E 's/.* ([0-9,]+)  [0-9.]+ [KMG]?i?B in .*/\1/; s/,//g' <<<"$line")
    counted=$(sed -nE "s/^group: $group +[0-9]+ +([0-9]+) .*/\1/p" counted)
    allowed=0
    [ "$group" != expert ] || allowed=$((planned * steps / 10))
    local difference=$((counted - planned * steps))
    [ "${difference#-}" -le "$allowed" ] ||
      fail "$ranks ranks, $*: $group sends $counted bytes in $steps steps, planned are $planned in each"
  done <groups
  rm -r run
}

expect_bytes 2
expect_bytes 2 parallel.bucket=3000
expect_bytes 2 parallel.zero=2
expect_bytes 2 parallel.tensor=2
expect_bytes 2 parallel.context=2
expect_bytes 2 parallel.pipeline=2
expect_bytes 2 parallel.expert=2
expect_bytes 2 parallel.tensor=2 run.recompute=block run.precision=bf16
expect_bytes 4 parallel.tensor=2 parallel.expert=4
expect_bytes 4 parallel.context=2 parallel.pipeline=2 run.recompute=mixer
expect_bytes 4 parallel.tensor=2 parallel.pipeline=2 parallel.chunks=2
# Of adapters alone; the vocabulary's gradient goes nowhere, nor do rows for the gradients of experts.
expect_bytes 2 fine_tune.lora.r=2 fine_tune.lora.target_modules=all-linear
expect_bytes 4 parallel.tensor=2 parallel.expert=4 fine_tune.lora.r=2 fine_tune.lora.target_modules=all-linear
expect_bytes 2 parallel.expert=2 fine_tune.lora.r=2 'fine_tune.lora.target_parameters=[gate_up_proj]'

$QNEXT_MPIRUN -n 2 "$QNEXT" bench machine "$QNEXT_SOURCE/inputs/tiny.yaml" >machine.yaml || fail "bench machine"
grep -q '^measured: {backend: [a-z]*, ranks: 2, ' machine.yaml || fail "no machine file: $(cat machine.yaml)"
expect_status 0 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --ranks 4 --machine machine.yaml --layouts 3 data.microbatch=1
expect_text "a step as predicted"
expect_text "layouts divide it, the best first"
prefix="$QNEXT_MPIRUN -n 4" expect_status 0 tiny 'parallel={layout: auto, machine: machine.yaml}' data.microbatch=1 output.folder=auto
expect_text "layout=auto rates=machine.yaml"
expect_text "ranks=4 $(sed -n '/tensor context pipeline/{n;p}' output |
  awk '{ print "tensor=" $1 " context=" $2 " pipeline=" $3 " expert=" $4 " data=" $5 }')"
expect_status 0 tiny parallel=auto output.folder=one
expect_text "layout=auto rates=round numbers"
prefix="$QNEXT_MPIRUN -n 2" expect_status 2 tiny parallel=auto run.memory_limit=1KiB output.folder=small
expect_text "parallel.layout = auto: "
expect_text "the plan of each is above the memory of a rank"
sed -i 's/^  copy: .*/  copy: 0/' machine.yaml
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --machine machine.yaml
expect_text "rates.copy = 0: must be positive"
sed -i 's/^  copy: .*/  copy: 1e10/; s/^  overlap: .*/  overlap: 1.5/' machine.yaml
expect_status 2 "$QNEXT" plan "$QNEXT_SOURCE/inputs/tiny.yaml" --machine machine.yaml
expect_text "rates.overlap = 1.5: must be from 0 to 1"
