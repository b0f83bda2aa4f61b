// SPDX-License-Identifier: Apache-2.0
#include "app/evaluation.hpp"

#include "app/microbatch.hpp"
#include "app/pipeline_schedule.hpp"
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
                          ActivationMemory<Storage>& memory, const StageMessages<Storage>& messages,
                          const MicrobatchShape& largest, const EvaluationStream& stream,
                          const ProcessGrid& grid) {
  const Phase phase("evaluation");
  const LossSums sums = LossSums::make();
  std::vector<Windows> microbatches = microbatches_of_rank(stream, largest, grid);
  const std::size_t counted = microbatches.size();
  std::vector<std::int64_t> calls{static_cast<std::int64_t>(counted)};
  grid.stage.maximum(calls);
  microbatches.resize(calls.front(), Windows{0, 1});
  const int context = grid.degrees.context;
  const int least_piece = model.config().layer.delta_net.conv_taps - 1;
  std::vector<double> losses(counted, 0.0);  // of each microbatch, of the tokens of this rank
  std::vector<std::int64_t> labels{0};
  for (const PipelineAction& action :
       forward_schedule({grid.degrees.pipeline, static_cast<int>(model.chunks().size()),
                         static_cast<int>(microbatches.size())})) {
    const std::size_t m = action.microbatch;
    const TokenBatch batch =
        fill_up(stream.batch(microbatches[m].first, microbatches[m].count), context, least_piece);
    const MicrobatchShape shape = shape_of(batch, largest, context);
    auto& slot = memory.slot(action.chunk, 0, shape);
    slot.batch = to_device(batch, grid);
    const auto& work = memory.work(shape);
    messages.receive_input(slot);
    model.forward(exec, slot.batch, Dropout{}, slot.saved, work);
    messages.send_output(slot);
    if (slot.saved.chunk.last() && m < counted) {
      sums.clear(exec);
      model.evaluate(exec, slot.batch, slot.saved, work, sums);
      Kokkos::deep_copy(losses[m], sums.cross_entropy);
      labels.front() += batch.label_count;
    }
  }
  memory.wait();
  grid.data.sum(labels);
  grid.pipeline.sum(labels);
  EvaluationResult result;
  result.labels = labels.front();
  for (const double loss : grid.copies.all_gather(losses)) {
    result.loss += loss;
  }
  grid.pipeline.broadcast(HostTensor<double, 1>(&result.loss, 1), grid.pipeline.ranks() - 1);
  result.loss /= static_cast<double>(std::max<std::int64_t>(result.labels, 1));
  return result;
}

#define QNEXT_INSTANTIATE(Storage)                                                    \
  template EvaluationResult evaluate<Storage>(                                        \
      const Exec&, const Model<Storage>&, ActivationMemory<Storage>&,                 \
      const StageMessages<Storage>&, const MicrobatchShape&, const EvaluationStream&, \
      const ProcessGrid&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
