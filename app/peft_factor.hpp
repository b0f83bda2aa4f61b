// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "io/safetensors.hpp"
#include "layers/model.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

// Where the factors of an adapter stand in a file of PEFT. Those of a layer's experts are there in
// two matrices: of E experts with a rank of r
//
//     A (E r, in)    from (E, r, in), as they are,
//     B (out, r E)   from (E, out, r): the expert is the last index, the rank the one before it.
//
// They are named after the module of the experts, the wrapper of `down_proj`; where that has
// adapters too, those of `gate_up_proj` are of the layer inside of it.
namespace qnext {

/// A factor as the file has it, of the rank of its row.
struct PeftFactor {
  std::string name;
  std::vector<std::int64_t> extents;
  bool experts_last;        // B of stacked experts
  int rank_axis;            // of the extents
  std::int64_t rows, unit;  // the factor is (rows, rank, unit) as the row has it
};

PeftFactor peft_factor(const Parameter& row, const AdapterConfig& adapters);

/// The head's weight, which PEFT puts beside the factors of an adapter of the head.
inline constexpr const char* peft_head = "base_model.model.lm_head.base_layer.weight";

/// What names of the module for multi-token prediction begin with, which a model may leave out.
inline constexpr const char* peft_mtp = "base_model.model.mtp.";

/// What the names of the factors of a projection begin with in this file, if they are there.
std::string peft_prefix(const SafetensorsFile& file, const ModelConfig& model,
                        const std::string& projection);

/// The numbers of B of stacked experts, (E, out, r), from (out, r, E), or back. `width`: the bytes
/// of one of them.
std::vector<std::byte> experts_first(const Parameter& row, std::span<const std::byte> bytes,
                                     std::int64_t width);
std::vector<std::byte> experts_last(const Parameter& row, std::span<const std::byte> bytes,
                                    std::int64_t width);

/// (rows, from, unit bytes) with zeros up to (rows, to, unit bytes): the same adapter of a higher
/// rank.
std::vector<std::byte> raise_rank(std::span<const std::byte> bytes, std::int64_t rows,
                                  std::int64_t from, std::int64_t to, std::int64_t unit_bytes);

}  // namespace qnext
