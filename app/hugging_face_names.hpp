// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// How a Hugging Face folder holds the experts of a layer: one tensor for each expert and
/// projection, as released, or all experts in one tensor, as transformers keeps them in memory.
enum class ExpertLayout { one_by_one, stacked };

/// A tensor of the file and the box of the global tensor in memory that it fills, in its order.
struct HuggingFaceTensor {
  std::string name;
  std::vector<std::int64_t> extents;  // in the file
  Box box;                            // of the memory form
};

/// The tensors of the file that make up one parameter. Everything but stacked experts is one tensor
/// of the same name and shape:
///
///     ...mlp.experts.gate_up_proj  (E, 2F, D)   <- ...mlp.experts.E.gate_proj.weight (F, D), then
///                                                  ...mlp.experts.E.up_proj.weight   (F, D)
///     ...mlp.experts.down_proj     (E, D, F)    <- ...mlp.experts.E.down_proj.weight (D, F)
std::vector<HuggingFaceTensor> hugging_face_tensors(const Parameter& row, ExpertLayout layout);

}  // namespace qnext
