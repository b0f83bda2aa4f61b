// SPDX-License-Identifier: Apache-2.0
#include "app/evaluation.hpp"

#include "app/microbatch.hpp"
#include "core/phase.hpp"

#include <algorithm>

namespace qnext {
namespace {

// Windows first ... first + count - 1 in microbatches whose sequences are equally long: a shorter
// window is a microbatch of its own.
std::vector<TokenBatch> equal_microbatches(const EvaluationStream& stream, std::int64_t first,
                                           int count, int sequence) {
  TokenBatch together = stream.batch(first, count);
  if (together.tokens.size() == static_cast<std::size_t>(count) * sequence) {
    return {std::move(together)};
  }
  std::vector<TokenBatch> each;
  for (int i = 0; i < count; ++i) {
    each.push_back(stream.batch(first + i, 1));
  }
  return each;
}

}  // namespace

template <class Storage>
EvaluationResult evaluate(const Exec& exec, const Model<Storage>& model,
                          ActivationMemory<Storage>& memory, const MicrobatchShape& largest,
                          const EvaluationStream& stream, const Communicator& over) {
  const Phase phase("evaluation");
  const int sequence = largest.tokens / largest.sequences;
  const LossSums sums = LossSums::make();
  const std::int64_t groups = (stream.windows() + largest.sequences - 1) / largest.sequences;
  std::vector<double> losses;  // of each microbatch of this rank
  std::vector<std::int64_t> labels{0};
  for (std::int64_t group = groups * over.rank() / over.ranks();
       group < groups * (over.rank() + 1) / over.ranks(); ++group) {
    const std::int64_t first = group * largest.sequences;
    const int count =
        static_cast<int>(std::min<std::int64_t>(largest.sequences, stream.windows() - first));
    for (const TokenBatch& batch : equal_microbatches(stream, first, count, sequence)) {
      const Microbatch microbatch = to_device(batch);
      auto& activations = memory.of(shape_of(batch, largest));
      sums.clear(exec);
      model.forward(exec, microbatch, Dropout{}, activations.saved, activations.work);
      model.evaluate(exec, microbatch, activations.saved, activations.work, sums);
      losses.emplace_back();
      Kokkos::deep_copy(losses.back(), sums.cross_entropy);
      labels.front() += batch.label_count;
    }
  }
  over.sum(labels);
  EvaluationResult result;
  result.labels = labels.front();
  for (const double loss : over.all_gather(losses)) {
    result.loss += loss;
  }
  result.loss /= static_cast<double>(std::max<std::int64_t>(result.labels, 1));
  return result;
}

#define QNEXT_INSTANTIATE(Storage)                                                                \
  template EvaluationResult evaluate<Storage>(const Exec&, const Model<Storage>&,                 \
                                              ActivationMemory<Storage>&, const MicrobatchShape&, \
                                              const EvaluationStream&, const Communicator&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
