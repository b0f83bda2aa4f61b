// SPDX-License-Identifier: Apache-2.0
#include "core/parameter.hpp"

#include "core/parts.hpp"
#include "core/random.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

namespace qnext {
namespace {

// 256 bytes of the widest type, so that no vector load of a row crosses into the next one.
constexpr std::int64_t padding = 64;

std::int64_t padded(std::int64_t elements) {
  return (elements + padding - 1) / padding * padding;
}

std::int64_t product(const std::array<std::int64_t, 4>& extent) {
  return extent[0] * extent[1] * extent[2] * extent[3];
}

double initial_number(const Init& init, std::uint64_t key, std::uint64_t i) {
  switch (init.kind) {
    case Init::Kind::zeros:
      return 0.0;
    case Init::Kind::ones:
      return 1.0;
    case Init::Kind::normal:
      return init.scale * random_normal(key, i);
    case Init::Kind::uniform:
      return init.scale * (2.0 * random_uniform(key, i) - 1.0);
    case Init::Kind::log_uniform:
      return std::log(std::max(1e-6, init.scale * random_uniform(key, i)));
  }
  return 0.0;
}

// Walks the boxes of a shard: place(i) in the memory of this rank <- place(j) in the global tensor.
template <class Visit>
void for_each_element(const Shard& shard, const Visit& visit) {
  const auto& global = shard.global_extent;
  std::int64_t local = 0;
  for (const Box& box : shard.boxes) {
    for (std::int64_t a = 0; a < box.extent[0]; ++a) {
      for (std::int64_t b = 0; b < box.extent[1]; ++b) {
        for (std::int64_t c = 0; c < box.extent[2]; ++c) {
          const std::int64_t row =
              ((box.offset[0] + a) * global[1] + box.offset[1] + b) * global[2] + box.offset[2] + c;
          for (std::int64_t d = 0; d < box.extent[3]; ++d) {
            visit(local++, row * global[3] + box.offset[3] + d);
          }
        }
      }
    }
  }
}

template <class T>
void initialise_row(const ParameterTable& table, const Parameter& row, std::uint64_t seed) {
  const auto values = table.values<T>(row);
  const auto host = Kokkos::create_mirror_view(values);
  const std::uint64_t key = random_key(seed, row.name);
  if (row.shard.boxes.size() == 1 && row.elements() == row.shard.global_elements()) {
    Kokkos::parallel_for("parameter::initialise",
                         Kokkos::RangePolicy<Kokkos::DefaultHostExecutionSpace>(0, row.elements()),
                         [&](std::int64_t i) { host(i) = T(initial_number(row.init, key, i)); });
    Kokkos::fence();
  } else {
    for_each_element(row.shard, [&](std::int64_t local, std::int64_t global) {
      host(local) = T(initial_number(row.init, key, global));
    });
  }
  Kokkos::deep_copy(values, host);
}

// The distance between numbers of T where x is.
template <class T>
double rounding_at(double x) {
  constexpr int digits = std::is_same_v<T, bf16> ? 8 : std::numeric_limits<Accum<T>>::digits;
  return x == 0.0 ? 0.0 : std::scalbn(1.0, std::ilogb(x) + 1 - digits);
}

template <class T>
void move_row(const ParameterTable& table, const Parameter& row, std::uint64_t member) {
  const auto values = table.values<T>(row);
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), values);
  const std::uint64_t key = random_key(member, row.name);
  for_each_element(row.shard, [&](std::int64_t local, std::int64_t global) {
    const double value = static_cast<double>(host(local));
    const double rounding = rounding_at<T>(row.zero_centred_norm ? 1.0 + value : value);
    host(local) = T(random_bits(key, global) % 2 == 0 ? value + rounding : value - rounding);
  });
  Kokkos::deep_copy(values, host);
}

// visit(row, T{}) for each row that has memory of its own, T its type.
template <class Visit>
void for_each_row(const ParameterTable& table, const Visit& visit) {
  for (const Parameter& row : table.rows()) {
    if (!row.alias_of.empty()) {
      continue;
    }
    switch (row.type) {
      case DataType::bf16:
        visit(row, bf16{});
        break;
      case DataType::float32:
        visit(row, float{});
        break;
      case DataType::float64:
        visit(row, double{});
        break;
    }
  }
}

}  // namespace

Shard Shard::whole(const std::vector<std::int64_t>& extents) {
  Shard shard;
  shard.rank = static_cast<int>(extents.size());
  std::copy(extents.begin(), extents.end(), shard.global_extent.begin());
  shard.boxes.push_back({{}, shard.global_extent});
  return shard;
}

Shard Shard::part(const std::vector<std::int64_t>& extents, int axis, int part, int parts) {
  Shard shard = whole(extents);
  Box& box = shard.boxes.front();
  box.offset[axis] = part_begin(extents[axis], part, parts);
  box.extent[axis] = part_begin(extents[axis], part + 1, parts) - box.offset[axis];
  return shard;
}

std::array<std::int64_t, 4> Shard::local_extent() const {
  auto extent = boxes.front().extent;
  extent[0] = 0;
  for (const Box& box : boxes) {
    extent[0] += box.extent[0];
  }
  return extent;
}

std::int64_t Shard::local_elements() const {
  return product(local_extent());
}
std::int64_t Shard::global_elements() const {
  return product(global_extent);
}

void ParameterTable::begin_adapters(const AdapterConfig& adapters) {
  require(rows_.empty(), "adapters come before the first of " + std::to_string(rows_.size()) +
                             " rows of the table");
  adapters_ = adapters;
}

void ParameterTable::begin_chunk(int chunk) {
  require(chunk >= chunk_, "chunk " + std::to_string(chunk) + " comes behind chunk " +
                               std::to_string(chunk_) + " in the table");
  chunk_ = chunk;
}

// The newest group of the row's kind, if it has room, or another one behind all others.
int ParameterTable::group_for(const Parameter& row) {
  const std::int64_t bytes = padded(row.elements()) * size_of(accum_of(row.type));
  for (int g = static_cast<int>(groups_.size()) - 1; g >= 0 && groups_[g].chunk == row.chunk; --g) {
    const Group& group = groups_[g];
    if (group.type == row.type && group.reduce_over == row.reduce_over &&
        group.replicas == row.replicas && group.on_two_stages == row.on_two_stages &&
        group.frozen == row.frozen) {
      if (bytes <= bucket_ - group.elements * size_of(accum_of(group.type))) {
        return g;
      }
      break;
    }
  }
  Group group{row.type, row.reduce_over};
  group.replicas = row.replicas;
  group.on_two_stages = row.on_two_stages;
  group.frozen = row.frozen;
  group.chunk = row.chunk;
  group.first_row = rows_.size() - 1;
  groups_.push_back(std::move(group));
  return static_cast<int>(groups_.size()) - 1;
}

void ParameterTable::append(Parameter parameter, Bind bind) {
  require(find(parameter.name) == nullptr, parameter.name + " is registered twice");
  rows_.push_back(std::move(parameter));
  binds_.push_back(std::move(bind));
  Parameter& row = rows_.back();
  row.chunk = chunk_;
  row.frozen = adapters_.any() && !row.of_adapter;
  if (!row.alias_of.empty()) {
    const Parameter* const original = find(row.alias_of);
    require(original != nullptr && original->type == row.type,
            row.name + ": is an alias of " + row.alias_of + ", which is not there in that type");
    row.group = original->group;
    row.begin = original->begin;
    return;
  }
  row.group = group_for(row);
  Group& group = groups_[row.group];
  row.begin = group.elements;
  group.elements += padded(row.elements());
}

void ParameterTable::lay_out(bool with_gradients) {
  for (Group& group : groups_) {
    group.values = Tensor<std::byte, 1>("parameter values", group.elements * size_of(group.type));
    if (with_gradients && !group.frozen) {
      group.gradients = Tensor<std::byte, 1>("parameter gradients",
                                             group.elements * size_of(accum_of(group.type)));
    }
  }
  bind();
}

void ParameterTable::lay_out(const std::vector<std::int64_t>& gradient_begins, std::int64_t bytes) {
  const Tensor<std::byte, 1> window("parameter gradients", bytes);
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    group.values = Tensor<std::byte, 1>("parameter values", group.elements * size_of(group.type));
    const std::int64_t end = gradient_begins[g] + group.elements * size_of(accum_of(group.type));
    group.gradients = Kokkos::subview(window, std::pair(gradient_begins[g], end));
  }
  bind();
}

void ParameterTable::bind() const {
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const Parameter& row = rows_[i];
    const Group& group = groups_[row.group];
    std::byte* const grad = group.gradients.data() == nullptr
                                ? nullptr
                                : group.gradients.data() + row.begin * size_of(accum_of(row.type));
    binds_[i](group.values.data() + row.begin * size_of(row.type), grad);
  }
  for (const auto& make : makes_) {
    make();
  }
}

// A fill by bytes is not made into vectors: by numbers it is several times as fast.
void ParameterTable::zero_gradients(const Exec& exec) const {
  const auto zero = [&]<class Real>(const Group& group, Real) {
    Kokkos::deep_copy(exec,
                      Tensor<Real, 1>(reinterpret_cast<Real*>(group.gradients.data()),
                                      group.gradients.extent(0) / sizeof(Real)),
                      Real(0));
  };
  for (const Group& group : groups_) {
    if (group.frozen) {
      continue;
    }
    if (accum_of(group.type) == DataType::float64) {
      zero(group, 0.0);
    } else {
      zero(group, 0.0f);
    }
  }
}

const Parameter* ParameterTable::find(std::string_view name) const {
  const auto it = std::find_if(rows_.begin(), rows_.end(),
                               [&](const Parameter& row) { return row.name == name; });
  return it == rows_.end() ? nullptr : &*it;
}

std::int64_t ParameterTable::local_elements() const {
  std::int64_t sum = 0;
  for (const Parameter& row : rows_) {
    sum += row.alias_of.empty() ? row.elements() : 0;
  }
  return sum;
}

std::int64_t ParameterTable::global_elements() const {
  std::int64_t sum = 0;
  for (const Parameter& row : rows_) {
    sum += row.alias_of.empty() ? row.shard.global_elements() : 0;
  }
  return sum;
}

void initialise(const ParameterTable& table, std::uint64_t seed) {
  for_each_row(table,
               [&]<class T>(const Parameter& row, T) { initialise_row<T>(table, row, seed); });
}

void initialise_adapters(const ParameterTable& table, std::uint64_t seed) {
  for_each_row(table, [&]<class T>(const Parameter& row, T) {
    if (row.of_adapter) {
      initialise_row<T>(table, row, seed);
    }
  });
}

void move_by_one_rounding(const ParameterTable& table, std::uint64_t member) {
  for_each_row(table, [&]<class T>(const Parameter& row, T) { move_row<T>(table, row, member); });
}

}  // namespace qnext
