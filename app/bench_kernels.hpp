// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/measure.hpp"
#include "layers/model.hpp"

#include <vector>

namespace qnext {

/// Times the kernels and layers of a model on `sequences` documents of `sequence` tokens. FLOPs are
/// those that the mathematics needs, bytes those of operands that are read and results that are
/// written once; layers of several kernels have no bytes.
template <class Storage>
std::vector<Measurement> bench_kernels(const ModelConfig& model, int sequences, int sequence);

/// The layers among them, forward and backward, the head with its loss, and the optimizer.
template <class Storage>
std::vector<Measurement> bench_layers(const ModelConfig& model, int sequences, int sequence);

}  // namespace qnext
