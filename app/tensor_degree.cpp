// SPDX-License-Identifier: Apache-2.0
#include "app/tensor_degree.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>

namespace qnext {
namespace {

template <class Kind>
bool any(const std::vector<Kind>& kinds, Kind kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// What stands in the way of a degree, or nothing.
std::string obstacle(int tensor, const ModelConfig& model, int sequence) {
  const auto& attention = model.layer.attention;
  const auto& experts = model.layer.experts;
  const bool mtp = model.mtp_modules > 0;
  if (mtp || any(model.mixers, Mixer::attention)) {
    if (attention.heads % tensor != 0) {
      return fmt::format("attention.heads, {}, is no multiple of it", attention.heads);
    }
    const int shared = attention.key_value_heads;
    if (shared % tensor != 0 && tensor % shared != 0) {
      return fmt::format("attention.key_value_heads, {}, is no multiple and no divisor of it",
                         shared);
    }
  }
  const int key_heads = model.layer.delta_net.key_heads;
  if (any(model.mixers, Mixer::delta_net) && key_heads % tensor != 0) {
    return fmt::format("delta_net.key_heads, {}, is no multiple of it", key_heads);
  }
  const bool has_experts = mtp || any(model.mlps, Mlp::experts);
  if (has_experts && tensor > 1 && experts.capacity.rule != Capacity::Rule::dropless) {
    return "experts.capacity is not dropless, and tensor ranks do not count together what is "
           "dropped";
  }
  struct Size {
    const char* key;
    int size;
  };
  for (const Size& divided :
       {Size{"model.vocabulary", model.vocabulary},
        Size{"dense_width", any(model.mlps, Mlp::dense) ? model.layer.dense.width : tensor},
        Size{"experts.shared_width",
             has_experts && experts.shared_width > 0 ? experts.shared_width : tensor},
        Size{"data.sequence", sequence}}) {
    if (divided.size < tensor) {
      return fmt::format("{}, {}, is less", divided.key, divided.size);
    }
  }
  return "";
}

}  // namespace

void check_tensor_degree(const Section& parallel, int tensor, const ModelConfig& model,
                         int sequence) {
  parallel.check(tensor > 0, "tensor", "must be positive");
  const std::string reason = obstacle(tensor, model, sequence);
  if (reason.empty()) {
    return;
  }
  std::string fitting;
  for (int degree = 1; degree <= tensor || degree <= model.layer.attention.heads; ++degree) {
    if (obstacle(degree, model, sequence).empty()) {
      fitting += fmt::format("{}{}", fitting.empty() ? "" : ", ", degree);
    }
  }
  parallel.check(false, "tensor", fmt::format("{}; what divides this model: {}", reason, fitting));
}

}  // namespace qnext
