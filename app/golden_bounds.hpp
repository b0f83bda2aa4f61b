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

/// Bf16 changes which experts are chosen, so that only sums over the whole model can be judged.
/// Defaults: ten times what transformers shows in bf16 on the worst of the models of the golden
/// data.
struct Bf16Bounds {
  double divergence = 0.11;        // nats, worst position
  double loss = 7e-2;              // absolute
  double gradient_cosine = 0.975;  // of all gradients together, at least
};

}  // namespace qnext
