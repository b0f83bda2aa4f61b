// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/adapter_factors.hpp"
#include "core/parameter.hpp"
#include "layers/model.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Adapters as PEFT keeps them: a folder with adapter_config.json and adapter_model.safetensors,
// whose tensors have the names of the table behind "base_model.model.".
namespace qnext {

/// The adapters of such a folder, which have to be beside projections of the model. A key that
/// means other mathematics, a tensor that is no factor, and factors of another rank are refused by
/// name.
AdapterConfig read_peft_config(const std::string& folder, const ModelConfig& model);

/// Fills the adapters of a table with those of a folder, converted to its types.
void import_peft(const std::string& folder, const ParameterTable& table);

/// The head's weight that a folder has beside the head's adapter, in the type of the row; empty
/// where it has none, or the row is not the head's.
std::vector<std::byte> read_peft_head(const std::string& folder, const Parameter& row);

/// The adapters of a folder for a table that need not be laid out.
AdapterFactors read_peft_factors(const std::string& folder, const ParameterTable& table);

struct ExportedAdapter {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;
};

/// Writes the adapters of a checkpoint as such a folder, which must not be there and appears when
/// it is whole. Numbers have the type of the run.
ExportedAdapter export_peft(const std::string& checkpoint, const std::string& folder);

}  // namespace qnext
