// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "io/checkpoint.hpp"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace qnext::test {

/// A table as layers fill it: matrices in Storage, a norm in Accum<Storage>, experts, channels in
/// three boxes, a tied head; and an optimizer's buffers beside it.
template <class Storage>
struct CheckpointModel {
  using Real = Accum<Storage>;

  explicit CheckpointModel(int rows = 37, bool with_expert = true) {
    const auto add = [&](auto& weight, const std::string& name,
                         const std::vector<std::int64_t>& extents) {
      Parameter parameter{.name = name, .shard = Shard::whole(extents)};
      table.add(parameter, weight);
    };
    add(embedding, "model.embed_tokens.weight", {rows, 5});
    add(norm, "model.norm.weight", {5});
    if (with_expert) {
      add(experts, "model.layers.0.mlp.experts.down_proj", {3, 5, 7});
    }
    Parameter channels{.name = "model.layers.0.linear_attn.conv1d.weight",
                       .shard = Shard::whole({12, 1, 4})};
    channels.shard.boxes = {{{0}, {2, 1, 4, 1}}, {{2}, {4, 1, 4, 1}}, {{6}, {6, 1, 4, 1}}};
    table.add(channels, convolution);
    Parameter tied{.name = "lm_head.weight", .shard = Shard::whole({rows, 5})};
    tied.alias_of = "model.embed_tokens.weight";
    table.add(tied, head);
    table.lay_out();
    families = {family("optimizer/first_moment", false), family("optimizer/second_moment", false),
                family("masters", true)};
  }

  TensorFamily family(const std::string& name, bool only_bf16) const {
    TensorFamily result{name, {}};
    for (const auto& group : table.groups()) {
      const DataType type = accum_of(group.type);
      const bool has = !only_bf16 || group.type == DataType::bf16;
      result.buffers.push_back(
          {type, Tensor<std::byte, 1>("family", has ? group.elements * size_of(type) : 0)});
    }
    return result;
  }

  std::vector<TensorFamily> all_families() const {
    auto all = families;
    all.push_back(parameter_family(table));
    return all;
  }

  /// Every byte of every buffer, padding included.
  void fill(int seed) {
    unsigned word = 12345u + seed;
    for (const auto& family : all_families()) {
      for (const auto& buffer : family.buffers) {
        const auto host = Kokkos::create_mirror_view(buffer.memory);
        for (std::size_t i = 0; i < host.extent(0); ++i) {
          word = word * 1664525u + 1013904223u;
          host(i) = static_cast<std::byte>(word >> 24);
        }
        Kokkos::deep_copy(buffer.memory, host);
      }
    }
  }

  /// The bytes of all tensors, without padding.
  std::string bytes() const {
    std::string text;
    for (const auto& family : all_families()) {
      for (const Parameter& row : table.rows()) {
        const auto& buffer = family.buffers[row.group];
        if (buffer.memory.extent(0) > 0) {
          const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), buffer.memory);
          text.append(reinterpret_cast<const char*>(host.data()) + row.begin * size_of(buffer.type),
                      row.elements() * size_of(buffer.type));
        }
      }
    }
    return text;
  }

  ParameterTable table;
  Weight<Storage, 2> embedding, head;
  Weight<Storage, 3> experts, convolution;
  Weight<Real, 1> norm;
  std::vector<TensorFamily> families;
};

/// Records of every kind of value.
inline CheckpointContent content_at(std::int64_t step) {
  CheckpointContent content{step, "run:\n  seed: 1\n", "run: {seed: 1, steps: 20}\n", {}};
  auto& progress = content.record("progress");
  progress.set("tokens", std::int64_t{1} << 40);
  progress.set("best_evaluation", 1.25);
  progress.set("note", std::string("\xc3\xa9"));
  progress.set("norms", std::vector<double>{});
  progress.set("best_so_far", std::numeric_limits<double>::infinity());
  content.record("data").set("cursor", std::vector<std::int64_t>{3, -1, 7});
  content.record("balance").set("counts", std::vector<double>{0.5, 1e-300});
  content.record("empty");
  content.records["program"] = program_record(2, "avx2 avx512f");
  return content;
}

/// Of the files in a folder, sorted.
inline std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace qnext::test
