// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"

#include <cstddef>

namespace qnext {

/// Sums the gradients of a step over the microbatches of this rank and over the ranks, while
/// backward passes go on: the part of this rank of each group of the table, where the optimizer
/// finds it.
class StepGradients {
 public:
  virtual ~StepGradients() = default;

  /// In front of the backward pass of a microbatch through one of this rank's chunks.
  virtual void before_backward(const Exec& exec, int chunk, int microbatch) = 0;

  /// Behind each piece of it (Model::backward_pieces): it adds to rows in front of that one from
  /// here on.
  virtual void behind_piece(const Exec& exec, int chunk, int microbatch, std::size_t row) = 0;

  /// Until the sums of the step are made.
  virtual void finish(const Exec& exec) = 0;
};

}  // namespace qnext
