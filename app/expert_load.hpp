// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "layers/model.hpp"
#include "parallel/communicator.hpp"

#include <cstdint>

namespace qnext {

/// How evenly the experts of all layers were used in one step.
struct ExpertLoad {
  double least = 0.0;    // tokens that chose the least wanted expert of any layer
  double mean = 0.0;     // tokens of an expert when balanced
  double most = 0.0;     // tokens that chose the most wanted one
  double dropped = 0.0;  // share of the choices that a capacity dropped
};

/// Sums the choices of the routers over the microbatches of a step, on the device.
class ExpertLoadCounter {
 public:
  explicit ExpertLoadCounter(const ModelConfig& model);

  void clear(const Exec& exec) const;

  /// After the forward pass in one chunk of the model, of a microbatch of `tokens` tokens on all
  /// ranks that share it. Counts hold whatever the recompute policy, and the module for multi-token
  /// prediction is one of the layers whatever the balance loss.
  template <class Storage>
  void add(const Exec& exec, const typename Model<Storage>::Saved& saved, int tokens) const;

  /// Of all stages and of all data ranks, which have other sequences. Waits for the device.
  ExpertLoad read(const ProcessGrid& grid) const;

 private:
  MixtureOfExpertsConfig config_;
  Tensor<double, 2> chosen_;  // (L, E)
  Tensor<double, 2> kept_;    // (L, E)
};

}  // namespace qnext
