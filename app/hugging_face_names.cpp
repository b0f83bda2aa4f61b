// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_names.hpp"

#include <string_view>

namespace qnext {
namespace {

/// The projections that lie one after the other in the second extent of a stacked parameter.
struct Stacked {
  std::string_view ending;
  std::vector<std::string_view> projections;
};

const Stacked stacked[] = {
    {".mlp.experts.gate_up_proj", {"gate_proj", "up_proj"}},
    {".mlp.experts.down_proj", {"down_proj"}},
};

std::vector<HuggingFaceTensor> one_by_one(const Parameter& row, const Stacked& form) {
  const auto& extent = row.shard.global_extent;
  const auto parts = static_cast<std::int64_t>(form.projections.size());
  require(row.shard.rank == 3 && extent[1] % parts == 0,
          row.name + ": stacked experts have three extents");
  const std::int64_t rows = extent[1] / parts;
  const std::string experts = row.name.substr(0, row.name.rfind('.'));
  std::vector<HuggingFaceTensor> tensors;
  for (std::int64_t e = 0; e < extent[0]; ++e) {
    for (std::int64_t part = 0; part < parts; ++part) {
      tensors.push_back({experts + "." + std::to_string(e) + "." +
                             std::string(form.projections[part]) + ".weight",
                         {rows, extent[2]},
                         {{e, part * rows, 0, 0}, {1, rows, extent[2], 1}}});
    }
  }
  return tensors;
}

}  // namespace

std::vector<HuggingFaceTensor> hugging_face_tensors(const Parameter& row, ExpertLayout layout) {
  for (const Stacked& form : stacked) {
    if (layout == ExpertLayout::one_by_one && row.name.ends_with(form.ending)) {
      return one_by_one(row, form);
    }
  }
  const auto& extent = row.shard.global_extent;
  return {{row.name, {extent.begin(), extent.begin() + row.shard.rank}, {{}, extent}}};
}

}  // namespace qnext
