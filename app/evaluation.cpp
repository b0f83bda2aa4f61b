// SPDX-License-Identifier: Apache-2.0
#include "app/evaluation.hpp"

#include "app/microbatch.hpp"
#include "core/phase.hpp"

#include <algorithm>

namespace qnext {
namespace {

struct Windows {
  std::int64_t first;
  int count;
};

// Microbatches of this rank, whose sequences are equally long: a shorter window is one of its own.
std::vector<Windows> microbatches_of_rank(const EvaluationStream& stream,
                                          const MicrobatchShape& largest, const ProcessGrid& grid) {
  const Communicator& data = grid.data;
  const auto sequence =
      static_cast<std::size_t>(largest.tokens / largest.sequences * grid.degrees.context);
  const std::int64_t groups = (stream.windows() + largest.sequences - 1) / largest.sequences;
  std::vector<Windows> microbatches;
  for (std::int64_t group = groups * data.rank() / data.ranks();
       group < groups * (data.rank() + 1) / data.ranks(); ++group) {
    const std::int64_t first = group * largest.sequences;
    const int count =
        static_cast<int>(std::min<std::int64_t>(largest.sequences, stream.windows() - first));
    if (stream.batch(first, count).tokens.size() == count * sequence) {
      microbatches.push_back({first, count});
      continue;
    }
    for (int i = 0; i < count; ++i) {
      microbatches.push_back({first + i, 1});
    }
  }
  return microbatches;
}

}  // namespace

template <class Storage>
EvaluationResult evaluate(const Exec& exec, const Model<Storage>& model,
                          ActivationMemory<Storage>& memory, const MicrobatchShape& largest,
                          const EvaluationStream& stream, const ProcessGrid& grid) {
  const Phase phase("evaluation");
  const LossSums sums = LossSums::make();
  std::vector<Windows> microbatches = microbatches_of_rank(stream, largest, grid);
  const std::size_t counted = microbatches.size();
  std::vector<std::int64_t> calls{static_cast<std::int64_t>(counted)};
  grid.stage.maximum(calls);
  microbatches.resize(calls.front(), Windows{0, 1});
  const int context = grid.degrees.context;
  const int least_piece = model.config().layer.delta_net.conv_taps - 1;
  std::vector<double> losses;  // of each microbatch of this rank, of its own tokens
  std::vector<std::int64_t> labels{0};
  for (std::size_t m = 0; m < microbatches.size(); ++m) {
    const TokenBatch batch =
        fill_up(stream.batch(microbatches[m].first, microbatches[m].count), context, least_piece);
    const Microbatch microbatch = to_device(batch, grid);
    auto& activations = memory.of(shape_of(batch, largest, context));
    sums.clear(exec);
    model.forward(exec, microbatch, Dropout{}, activations.saved, activations.work);
    if (m < counted) {
      model.evaluate(exec, microbatch, activations.saved, activations.work, sums);
      losses.emplace_back();
      Kokkos::deep_copy(losses.back(), sums.cross_entropy);
      labels.front() += batch.label_count;
    }
  }
  grid.data.sum(labels);
  EvaluationResult result;
  result.labels = labels.front();
  for (const double loss : grid.copies.all_gather(losses)) {
    result.loss += loss;
  }
  result.loss /= static_cast<double>(std::max<std::int64_t>(result.labels, 1));
  return result;
}

#define QNEXT_INSTANTIATE(Storage)                                                                \
  template EvaluationResult evaluate<Storage>(const Exec&, const Model<Storage>&,                 \
                                              ActivationMemory<Storage>&, const MicrobatchShape&, \
                                              const EvaluationStream&, const ProcessGrid&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
