// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <string>

namespace qnext {

class Hdf5File;

/// How far a program may be from a golden file. The file holds what rounding does to another one:
/// logits and gradients of transformers in float beside those in double. Another order of summation
/// gives errors of the same size; ten times the largest covers the tail. In double the same errors
/// shrink with the spacing of the numbers, by 2^-29, and the golden numbers have errors of their
/// own.
struct GoldenBounds {
  double logits = 0.0;              // absolute
  double hidden = 0.0;              // absolute
  double loss = 0.0;                // absolute
  double sensitive_gradient = 0.0;  // A_log and dt_bias, relative to the largest of the tensor
  double gradient = 0.0;            // the other tensors

  static GoldenBounds read(const Hdf5File& golden, DataType precision);

  /// Of a gradient of that name, stored as the group's attribute `storage` says.
  double of_gradient(const std::string& name, const std::string& storage) const;
};

/// What is judged in bf16: sums over the whole model. Where two experts are nearly as probable,
/// rounding decides which is chosen, and a whole expert comes or goes: such a pass is held to ten
/// times what transformers shows in bf16 on the worst of the models of the golden data. A pass that
/// replays the experts of the file has rounding alone, and is held to ten times what transformers
/// shows on the model `odd`, whose weights are no bf16 numbers and which changes few choices.
struct Bf16Bounds {
  double divergence;       // nats, worst position
  double loss;             // absolute
  double gradient_cosine;  // of all gradients together, at least

  static Bf16Bounds own_choice() { return {0.11, 7e-2, 0.975}; }
  static Bf16Bounds replayed() { return {4e-2, 7e-2, 0.975}; }
};

}  // namespace qnext
