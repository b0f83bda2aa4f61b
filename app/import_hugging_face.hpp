// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/hugging_face_names.hpp"
#include "core/parameter.hpp"
#include "io/safetensors.hpp"
#include "parallel/communicator.hpp"

#include <functional>
#include <string>
#include <vector>

namespace qnext {

/// The tensors of a folder that make up each row of a table; none for an alias.
struct HuggingFaceSources {
  std::vector<std::vector<HuggingFaceTensor>> tensors;  // (rows of the table)
  std::vector<std::string> remarks;  // one for each group of tensors that the model has no use for
};

/// Compares a folder and a table that need not be laid out. A tensor that is missing, unknown, or
/// of another shape is an InputError. Two things may be left over: mtp.* when the model has no MTP
/// module, and lm_head.weight of a tied head if it equals the embedding. All ranks of `world` call
/// it, each with its own rows of the model.
HuggingFaceSources hugging_face_sources(const SafetensorsFolder& folder,
                                        const ParameterTable& table,
                                        const Communicator& world = {});

/// Fills the table from the safetensors of a Hugging Face folder, converted to the types of the
/// table, after hugging_face_sources. Returns its remarks.
std::vector<std::string> import_hugging_face(const std::string& folder, const ParameterTable& table,
                                             const Communicator& world = {});

/// Fills a row with its part of the tensors that make it up, each found by its name.
void fill_row(const ParameterTable& table, const Parameter& row,
              const std::vector<HuggingFaceTensor>& sources,
              const std::function<const SafeTensor&(const std::string&)>& find);

/// Whether the folder holds mtp.* tensors: config.json does not say.
bool has_mtp_weights(const std::string& folder);

}  // namespace qnext
