// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "tests/mpi/world.hpp"

#include <map>
#include <string>
#include <vector>

namespace qnext::test {

/// Numbers by name.
using Tensors = std::map<std::string, std::vector<double>>;

/// What one rank has of them, on all ranks: a judge that one of them made.
inline void share(Tensors& tensors, int root) {
  const bool mine = world().rank() == root;
  std::string names;
  std::vector<double> numbers;
  if (mine) {
    for (const auto& [name, values] : tensors) {
      names += name + '\n';
      numbers.push_back(static_cast<double>(values.size()));
      numbers.insert(numbers.end(), values.begin(), values.end());
    }
  }
  world().broadcast(names, root);
  numbers = world().all_gather(numbers);  // of the root alone
  tensors.clear();
  auto next = numbers.begin();
  for (std::size_t begin = 0; begin < names.size();) {
    const std::size_t end = names.find('\n', begin);
    const auto count = static_cast<std::ptrdiff_t>(*next++);
    tensors[names.substr(begin, end - begin)] = {next, next + count};
    next += count;
    begin = end + 1;
  }
}

}  // namespace qnext::test
