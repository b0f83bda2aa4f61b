// SPDX-License-Identifier: Apache-2.0
#include "parallel/shards.hpp"

#include <algorithm>

namespace qnext {
std::int64_t blocks_of(const Parameter& row) {
  return (row.elements() + Shards::block - 1) / Shards::block;
}

// The blocks nearest behind equal shares, found row by row: a large model has millions of blocks.
PartBorders part_borders(const ParameterTable& table, int group, int parts) {
  const std::int64_t elements = table.groups()[group].elements;
  const auto share = [&](int part) {
    return elements / parts * part + elements % parts * part / parts;
  };
  PartBorders borders;
  int part = 0;
  std::int64_t blocks = 0;  // in front of the row
  for (const Parameter& row : table.rows()) {
    if (row.group != group || !row.alias_of.empty()) {
      continue;
    }
    for (; part <= parts; ++part) {
      const std::int64_t behind = std::max<std::int64_t>(0, share(part) - row.begin);
      const std::int64_t block = (behind + Shards::block - 1) / Shards::block;
      if (block >= blocks_of(row)) {
        break;
      }
      borders.elements.push_back(row.begin + block * Shards::block);
      borders.blocks.push_back(blocks + block);
    }
    blocks += blocks_of(row);
  }
  for (; part <= parts; ++part) {
    borders.elements.push_back(elements);
    borders.blocks.push_back(blocks);
  }
  return borders;
}

std::vector<Shards> make_shards(const ParameterTable& table, const ProcessGrid& grid) {
  std::vector<Shards> all;
  for (std::size_t g = 0; g < table.groups().size(); ++g) {
    Shards shards;
    shards.over = grid.over(table.groups()[g].reduce_over);
    PartBorders borders = part_borders(table, static_cast<int>(g), shards.over.ranks());
    shards.borders = std::move(borders.elements);
    shards.block_borders = std::move(borders.blocks);
    all.push_back(std::move(shards));
  }
  return all;
}

std::vector<Shards> named_apart(std::vector<Shards> shards, const ParameterTable& table,
                                const ProcessGrid& grid, const std::string& name) {
  const Communicator dense = grid.copies.split(0).named(name);
  const Communicator experts = grid.beside_experts.split(0).named(name + " of experts");
  for (std::size_t g = 0; g < shards.size(); ++g) {
    const bool of_experts = table.groups()[g].reduce_over == ReduceOver::data_beside_experts;
    shards[g].over = of_experts ? experts : dense;
  }
  return shards;
}

std::int64_t largest_part(const ParameterTable& table, int group, int parts) {
  const auto borders = part_borders(table, group, parts).elements;
  std::int64_t largest = 0;
  for (int part = 0; part < parts; ++part) {
    largest = std::max(largest, borders[part + 1] - borders[part]);
  }
  return largest;
}

}  // namespace qnext
