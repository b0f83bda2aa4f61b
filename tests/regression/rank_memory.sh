# SPDX-License-Identifier: Apache-2.0
#
# A run that finds no memory ends with status 3 and says so; where it is one rank of two, it ends the job in
# time, with one message. The activations want 942 MiB, and may have what is left of 879 MiB.
. "$QNEXT_SOURCE/tests/regression/tiny_run.sh"

run=("$QNEXT" train "$QNEXT_SOURCE/inputs/tiny.yaml" 'data.train=[{path: "synthetic:markov"}]'
  'data.evaluate={last_fraction: 0.0, every: 0}' data.sequence=32768 data.batch=2 data.microbatch=1 model.width=128
  run.peak_flops=1e9)
limited=(bash -c 'ulimit -v 900000; exec "$@"' limited)

expect_status 3 "${limited[@]}" "${run[@]}" output.folder=alone
expect_text "qnext: the machine has no memory left; see qnext plan"

expect_status 3 timeout --signal=KILL 30 "$QNEXT_MPIRUN" -n 1 "${run[@]}" output.folder=two : \
  -n 1 "${limited[@]}" "${run[@]}" output.folder=two
expect_text "qnext: rank 1 of 2: the machine has no memory left; see qnext plan"
[ "$(grep -c '^qnext: ' output)" -eq 1 ] || fail "more than one message: $(cat output)"
