// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "core/types.hpp"
#include "layers/model.hpp"
#include "parallel/process_grid.hpp"

namespace qnext {

/// What the stages of a pipeline say to each other: forward the residual stream, backward its
/// gradient, (T, D) in Accum<Storage> each, with T the rows of this tensor rank.
///
/// With them go the sums over layers that one rank makes in one go. Where the balance loss couples
/// the layers, a layer's gradient wants the shares C_e of all of them: forward each chunk adds its
/// own to those in front of it, and backward the last one's, which are complete, go along. The
/// losses of balance are added on the way back.
///
/// A rank receives when it wants to compute and sends without waiting. Each direction has a group
/// of its own, in which two ranks exchange messages in the order of the schedule.
template <class Storage>
class StageMessages {
 public:
  using Memory = ActivationMemory<Storage>;
  using Slot = typename Memory::Slot;
  using Work = typename Model<Storage>::Work;

  /// Made by all ranks of the pipeline together.
  explicit StageMessages(const ProcessGrid& grid, const Model<Storage>& model);

  /// Before and behind the forward pass of a slot.
  void receive_input(Slot& slot) const;
  void send_output(Slot& slot) const;

  /// Before and behind its backward pass, with `sums.balance`.
  void receive_gradient(Slot& slot, const Work& work, const LossSums& sums) const;
  void send_gradient(const Exec& exec, Memory& memory, const Slot& slot, const Work& work,
                     const LossSums& sums) const;

 private:
  bool couples_layers_;
  Communicator forward_, backward_;
  int before_, behind_;  // ranks of the neighbours, in a ring
};

}  // namespace qnext
