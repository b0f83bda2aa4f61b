// SPDX-License-Identifier: Apache-2.0
#include "app/expert_load.hpp"

#include <algorithm>
#include <limits>

namespace qnext {
namespace {

// One expert of one layer. Whole numbers below 2^53: exact in any order.
struct AddChoices {
  Tensor<const int, 2> count;  // (S, E)
  Tensor<double, 2> chosen, kept;
  int layer;
  int sequence_limit;    // of one expert in one sequence
  int microbatch_limit;  // in all of them

  KOKKOS_FUNCTION void operator()(const int e) const {
    std::int64_t all = 0, below_limit = 0;
    for (int s = 0; s < count.extent_int(0); ++s) {
      const int n = count(s, e);
      all += n;
      below_limit += n < sequence_limit ? n : sequence_limit;
    }
    chosen(layer, e) += static_cast<double>(all);
    kept(layer, e) +=
        static_cast<double>(below_limit < microbatch_limit ? below_limit : microbatch_limit);
  }
};

int layers_with_experts(const ModelConfig& model) {
  return static_cast<int>(std::count(model.mlps.begin(), model.mlps.end(), Mlp::experts)) +
         model.mtp_modules;
}

}  // namespace

ExpertLoadCounter::ExpertLoadCounter(const ModelConfig& model)
    : config_(model.layer.experts),
      chosen_("expert load: chosen", layers_with_experts(model), config_.experts),
      kept_("expert load: kept", layers_with_experts(model), config_.experts) {}

void ExpertLoadCounter::clear(const Exec& exec) const {
  Kokkos::deep_copy(exec, chosen_, 0.0);
  Kokkos::deep_copy(exec, kept_, 0.0);
}

template <class Storage>
void ExpertLoadCounter::add(const Exec& exec, const typename Model<Storage>::Saved& saved,
                            int tokens) const {
  const auto& statistics = saved.balance.statistics;
  const Capacity& capacity = config_.capacity;
  for (std::size_t layer = 0; layer < statistics.size(); ++layer) {
    const auto& count = statistics[layer].count;
    AddChoices add{count,
                   chosen_,
                   kept_,
                   saved.balance.first + static_cast<int>(layer),
                   std::numeric_limits<int>::max(),
                   std::numeric_limits<int>::max()};
    if (capacity.rule == Capacity::Rule::position) {
      add.sequence_limit =
          capacity.limit(tokens / count.extent_int(0), config_.experts, config_.experts_per_token);
    } else if (capacity.rule == Capacity::Rule::probability) {
      add.microbatch_limit = capacity.limit(tokens, config_.experts, config_.experts_per_token);
    }
    Kokkos::parallel_for("expert_load::add", Kokkos::RangePolicy<Exec>(exec, 0, config_.experts),
                         add);
  }
}

ExpertLoad ExpertLoadCounter::read(const ProcessGrid& grid) const {
  for (const Communicator* over : {&grid.data, &grid.pipeline}) {
    over->sum_whole(chosen_);
    over->sum_whole(kept_);
  }
  const auto chosen = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), chosen_);
  const auto kept = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), kept_);
  ExpertLoad load;
  if (chosen.size() == 0) {
    return load;
  }
  const double* const first = chosen.data();
  const double* const last = first + chosen.size();
  double all = 0.0, all_kept = 0.0;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    all += first[i];
    all_kept += kept.data()[i];
  }
  load.least = *std::min_element(first, last);
  load.most = *std::max_element(first, last);
  load.mean = all / static_cast<double>(chosen.size());
  load.dropped = all > 0.0 ? 1.0 - all_kept / all : 0.0;
  return load;
}

#define QNEXT_INSTANTIATE(Storage)                                                              \
  template void ExpertLoadCounter::add<Storage>(const Exec&, const Model<Storage>::Saved&, int) \
      const;
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
