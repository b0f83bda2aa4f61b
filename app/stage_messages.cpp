// SPDX-License-Identifier: Apache-2.0
#include "app/stage_messages.hpp"

#include "core/phase.hpp"

#include <vector>

namespace qnext {

template <class Storage>
StageMessages<Storage>::StageMessages(const ProcessGrid& grid, const Model<Storage>& model)
    : couples_layers_(model.balance_loss().couples_layers()),
      forward_(grid.pipeline.split(0).named("stages")),
      backward_(grid.pipeline.split(0).named("stages")),
      before_((forward_.rank() + forward_.ranks() - 1) % forward_.ranks()),
      behind_((forward_.rank() + 1) % forward_.ranks()) {}

template <class Storage>
void StageMessages<Storage>::receive_input(Slot& slot) const {
  if (slot.saved.chunk.first()) {
    return;
  }
  const Phase phase("from the stage before");
  std::vector<Parcel> parcels{{before_, buffer_of(slot.saved.hidden.front())}};
  if (couples_layers_) {
    parcels.push_back({before_, buffer_of(slot.saved.balance.constant)});
  }
  forward_.exchange({}, parcels);
}

template <class Storage>
void StageMessages<Storage>::send_output(Slot& slot) const {
  if (slot.saved.chunk.last()) {
    return;
  }
  std::vector<Parcel> parcels{{behind_, buffer_of(slot.saved.hidden.back())}};
  if (couples_layers_) {
    parcels.push_back({behind_, buffer_of(slot.saved.balance.constant)});
  }
  slot.sent = forward_.start(parcels, {});
}

template <class Storage>
void StageMessages<Storage>::receive_gradient(Slot& slot, const Work& work,
                                              const LossSums& sums) const {
  if (slot.saved.chunk.last()) {
    return;
  }
  const Phase phase("from the stage behind");
  std::vector<Parcel> parcels{{behind_, buffer_of(work.gradient)},
                              {behind_, buffer_of(sums.balance)}};
  if (couples_layers_) {
    slot.sent.wait();  // the shares so far are sent from the same memory
    parcels.push_back({behind_, buffer_of(slot.saved.balance.constant)});
  }
  backward_.exchange({}, parcels);
}

template <class Storage>
void StageMessages<Storage>::send_gradient(const Exec& exec, Memory& memory, const Slot& slot,
                                           const Work& work, const LossSums& sums) const {
  if (slot.saved.chunk.first()) {
    return;
  }
  auto& outgoing = memory.outgoing();
  outgoing.sent.wait();
  Kokkos::deep_copy(exec, outgoing.gradient, work.gradient);
  Kokkos::deep_copy(exec, Kokkos::subview(outgoing.balance, 0), sums.balance);
  std::vector<Parcel> parcels{{before_, buffer_of(outgoing.gradient)},
                              {before_, buffer_of(outgoing.balance)}};
  if (couples_layers_) {
    const auto& shares = slot.saved.balance.constant;
    Kokkos::deep_copy(exec, outgoing.shares,
                      Tensor<const Accum<Storage>, 1>(shares.data(), shares.size()));
    parcels.push_back({before_, buffer_of(outgoing.shares)});
  }
  outgoing.sent = backward_.start(parcels, {});
}

template class StageMessages<bf16>;
template class StageMessages<float>;
template class StageMessages<double>;

}  // namespace qnext
