// SPDX-License-Identifier: Apache-2.0
#include "parallel/shards.hpp"

#include <algorithm>

namespace qnext {
namespace {

// Where each block of a group begins, and the end of the group.
std::vector<std::int64_t> block_begins(const ParameterTable& table, int group) {
  std::vector<std::int64_t> begins;
  for (const Parameter& row : table.rows()) {
    if (row.group == group && row.alias_of.empty()) {
      for (std::int64_t b = 0; b < blocks_of(row); ++b) {
        begins.push_back(row.begin + b * Shards::block);
      }
    }
  }
  begins.push_back(table.groups()[group].elements);
  return begins;
}

// Of the parts: the blocks nearest behind equal shares.
std::vector<std::int64_t> cut(const std::vector<std::int64_t>& begins, int parts) {
  std::vector<std::int64_t> borders;
  for (int part = 0; part <= parts; ++part) {
    const std::int64_t share = begins.back() / parts * part + begins.back() % parts * part / parts;
    borders.push_back(std::lower_bound(begins.begin(), begins.end(), share) - begins.begin());
  }
  return borders;
}

}  // namespace

std::int64_t blocks_of(const Parameter& row) {
  return (row.elements() + Shards::block - 1) / Shards::block;
}

PartBorders part_borders(const ParameterTable& table, int group, int parts) {
  const auto begins = block_begins(table, group);
  PartBorders borders{{}, cut(begins, parts)};
  for (const std::int64_t block : borders.blocks) {
    borders.elements.push_back(begins[block]);
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

std::int64_t largest_part(const ParameterTable& table, int group, int parts) {
  const auto borders = part_borders(table, group, parts).elements;
  std::int64_t largest = 0;
  for (int part = 0; part < parts; ++part) {
    largest = std::max(largest, borders[part + 1] - borders[part]);
  }
  return largest;
}

}  // namespace qnext
