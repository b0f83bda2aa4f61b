# SPDX-License-Identifier: Apache-2.0
#
# Fifty steps in float with each degree alone stay as close to one rank as runs of one rank stay to each
# other whose initial weights differ by one rounding: six of these are made here, and at each step a loss or
# a gradient norm of many ranks may be off the first one by four times the largest spread of the six up to
# that step, and one rounding, 2^-23 of the number. The first steps of Adam are signs of gradients, also of
# those that are rounding: the spread contains that too. With ALL in the environment so do all pairs of
# degrees, on four ranks; with ALL=16 all five degrees together on as many. PRECISION=bf16 does the same in bf16,
# whose rounding of a weight is 2^-8.
. "$QNEXT_SOURCE/tests/regression/rank_runs.sh"

microbatch=2
[ "${ALL:-}" != 16 ] || microbatch=1
fifty=(run.precision="${PRECISION:-float}" run.steps=50 data.microbatch=$microbatch output.checkpoint_every=0 data.evaluate.every=25
  'optimizer.learning_rate={peak: 3.0e-3, schedule: cosine, warmup: 4}')
for member in 0 2 4; do
  run member_$member 1 "${fifty[@]}" model.init_member=$member &
  run member_$((member + 1)) 1 "${fifty[@]}" model.init_member=$((member + 1))
  wait $! || fail "member $member"
done
grep -q 'start=random member=5$' member_5.out || fail "no member of an ensemble"

# "loss 1.25": losses and gradient norms of a run, in the order of the steps.
curves() {
  numbers "$1" | grep -v expert_load | tr -d '":'
}

# is_inside FOLDER: says how much of what is allowed its largest difference takes.
is_inside() {
  paste <(curves "$1") <(curves member_0) <(curves member_1) <(curves member_2) \
    <(curves member_3) <(curves member_4) <(curves member_5) | awk -v run="$1" '
    {
      name = $1; one = $4; least = most = one
      for (i = 4; i <= 14; i += 2) {
        if ($(i - 1) != name) { print "other numbers in column " i ": " $0; bad = 1 }
        if ($i < least) least = $i
        if ($i > most) most = $i
      }
      if (most - least > spread[name]) spread[name] = most - least
      allowed = 4 * spread[name] + (one < 0 ? -one : one) / 8388608
      difference = $2 < one ? one - $2 : $2 - one
      if (difference > allowed) { print run ": " $2 " for " one ", allowed " allowed ": " $0; bad = 1 }
      if (difference > share[name] * allowed) share[name] = difference / allowed
    }
    END {
      if (NR < 200) { print run ": " NR " numbers in fifty steps"; bad = 1 }
      printf "%s:", run
      for (name in share) printf " %s %.2f", name, share[name]
      print " of what is allowed"
      exit bad
    }'
}
expect_inside() {
  is_inside "$1" || fail "$1 is farther from one rank than four times the spread of the ensemble"
}

degrees="tensor context pipeline expert data"
for degree in $degrees; do
  run $degree 2 "${fifty[@]}" parallel.$degree=2
  expect_inside $degree
done
! diff <(curves member_0) <(curves tensor) >difference || fail "two ranks have the bits of one: was anything divided?"

# What is no rounding is seen. A learning rate larger by a share moves a loss, to first order, by that share of
# what it has fallen by: as if the run were so many steps further. Four times the least share that this gives for
# what is allowed in any step has to be outside, and is to be below a doubled rate.
faster=$(paste <(curves member_0) <(curves member_1) <(curves member_2) <(curves member_3) <(curves member_4) \
  <(curves member_5) | awk '
  $1 == "loss" {
    least = most = $2
    for (i = 4; i <= 12; i += 2) {
      if ($i < least) least = $i
      if ($i > most) most = $i
    }
    if (most - least > spread) spread = most - least
    if (!steps++) first = $2
    fallen = first - $2
    if (fallen > 0 && (!share || 4 * (4 * spread + $2 / 8388608) < share * fallen)) share = 4 * (4 * spread + $2 / 8388608) / fallen
  }
  END {
    if (!share || share > 1) { print "a rate larger by " share > "/dev/stderr"; exit 1 }
    printf "%.9g", 3e-3 * (1 + share)
  }') || fail "the ensemble tells no rate from another"
run faster 1 "${fifty[@]}" "optimizer.learning_rate={peak: $faster, schedule: cosine, warmup: 4}"
! is_inside faster >difference || fail "the learning rate $faster is inside: $(cat difference)"
echo "seen: the learning rate $faster"

[ -n "${ALL:-}" ] || exit 0
if [ "$ALL" = 16 ]; then
  run all_five 16 "${fifty[@]}" run.recompute=mixer parallel.tensor=2 parallel.context=2 parallel.pipeline=2 parallel.expert=4
  grep -q '^ranks=16 tensor=2 context=2 pipeline=2 expert=4 data=2' all_five.out || fail "not all degrees together"
  expect_inside all_five
  exit
fi
for pair in "tensor=2 context=2" "tensor=2 pipeline=2" "tensor=2 expert=4" "tensor=2 data=2" "context=2 pipeline=2" \
  "context=2 expert=4" "context=2 data=2" "pipeline=2 expert=2" "pipeline=2 data=2" "expert=2 data=4"; do
  read -r one other <<<"$pair"
  run "$one,$other" 4 "${fifty[@]}" parallel.$one parallel.$other
  expect_inside "$one,$other"
done
