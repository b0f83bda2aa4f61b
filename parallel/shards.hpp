// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "parallel/process_grid.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// Which rank owns which part of a flat buffer of the parameter table: consecutive parts of nearly
/// equal size. A border never cuts one of the blocks that tensors are divided into, so that sums
/// over a block are made by one rank, whatever the number of ranks.
struct Shards {
  static constexpr int block = 4096;  // elements; the last block of a tensor is shorter

  Communicator over;                        // the ranks that share the buffer
  std::vector<std::int64_t> borders;        // (ranks + 1)  elements
  std::vector<std::int64_t> block_borders;  // (ranks + 1)  blocks

  std::int64_t begin() const { return borders[over.rank()]; }
  std::int64_t end() const { return borders[over.rank() + 1]; }
  std::int64_t elements() const { return end() - begin(); }
};

/// The blocks of a tensor.
std::int64_t blocks_of(const Parameter& row);

/// One for each group of the table: padding belongs to the tensor before it.
std::vector<Shards> make_shards(const ParameterTable& table, const ProcessGrid& grid);

/// The same parts, with groups of ranks of their own: messages that are under way meet no others
/// there. `name` is what their traffic is counted by, with " of experts" for those. Made by all
/// ranks of the grid together.
std::vector<Shards> named_apart(std::vector<Shards> shards, const ParameterTable& table,
                                const ProcessGrid& grid, const std::string& name);

/// Where each of that many parts of a group begins, and the end: elements, and blocks.
struct PartBorders {
  std::vector<std::int64_t> elements;
  std::vector<std::int64_t> blocks;
};
PartBorders part_borders(const ParameterTable& table, int group, int parts);

/// Elements of the largest of that many parts.
std::int64_t largest_part(const ParameterTable& table, int group, int parts);

}  // namespace qnext
