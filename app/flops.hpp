// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/model.hpp"

#include <string>
#include <vector>

namespace qnext {

/// One line of the count: multiply-add pairs of the forward pass for one token, in one layer.
struct FlopPart {
  std::string name;
  double multiply_adds;
  int layers;
};

/// The count that model FLOPs utilisation is measured with: what a forward and a backward pass of
/// the model need, two backward products for each forward one, nothing recomputed. Router and
/// shared expert's gate are not counted.
///
///     delta net  D (2 G K + 2 H V + 2 H) + taps (2 G K + H V) + 4 H K V + D H V
///     attention  D (2 H W + 2 N W) + D H W + H W L
///     experts    3 D (F K + F_shared);   dense 3 D F
///     logits     D vocabulary
///     MTP        3 D + 2 D^2, one more attention layer and one more head
///
/// L is the mean length that attention sees, sum of squares of the lengths of the documents over
/// their sum: the sequence where rows are not packed. The causal half of L tokens is counted.
std::vector<FlopPart> flop_parts(const ModelConfig& model, double mean_length);

/// FLOPs of training for each of these multiply-adds: 2 in each of three products, or of two where
/// adapters alone are trained, which themselves are not counted.
int flops_per_multiply_add(const ModelConfig& model);

/// Sum of the parts, times that.
double flops_per_token(const ModelConfig& model, double mean_length);

/// Multiply-adds of one token, forward: of one layer, and of all that stands behind the last one.
double layer_multiply_adds(const ModelConfig& model, int layer, double mean_length);
double behind_layers_multiply_adds(const ModelConfig& model, double mean_length);

}  // namespace qnext
