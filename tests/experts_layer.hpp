// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/mixture_of_experts.hpp"
#include "tests/reference/experts.hpp"
#include "tests/support.hpp"

#include <map>
#include <string>
#include <vector>

namespace qnext::test {

/// Numbers for all weights: the router's large enough that probabilities differ.
inline reference::ExpertsWeights expert_weights(const reference::ExpertsShape& n,
                                                std::uint64_t seed) {
  const auto matrix = [&](std::int64_t count, double size) {
    return uniform(count, -size, size, ++seed);
  };
  return {.router = matrix(n.E * n.D, 0.6),
          .gate_up = matrix(n.E * 2 * n.F * n.D, 0.3),
          .down = matrix(n.E * n.D * n.F, 0.3),
          .shared_gate = matrix(n.G * n.D, 0.3),
          .shared_up = matrix(n.G * n.D, 0.3),
          .shared_down = matrix(n.G * n.D, 0.3),
          .shared_expert_gate = matrix(n.G > 0 ? n.D : 0, 0.3)};
}

/// The weights by the names that the layer registers.
inline std::map<std::string, std::vector<double>*> by_name(reference::ExpertsWeights& w) {
  std::map<std::string, std::vector<double>*> names{{"mlp.gate.weight", &w.router},
                                                    {"mlp.experts.gate_up_proj", &w.gate_up},
                                                    {"mlp.experts.down_proj", &w.down}};
  if (!w.shared_gate.empty()) {
    names.insert({{"mlp.shared_expert.gate_proj.weight", &w.shared_gate},
                  {"mlp.shared_expert.up_proj.weight", &w.shared_up},
                  {"mlp.shared_expert.down_proj.weight", &w.shared_down},
                  {"mlp.shared_expert_gate.weight", &w.shared_expert_gate}});
  }
  return names;
}

/// A layer alone, with the memory of one microbatch, which is NaN before each forward.
template <class Storage>
struct ExpertsLayer {
  using Real = Accum<Storage>;
  using Layer = MixtureOfExperts<Storage>;

  reference::ExpertsShape n;
  int sequences;
  ParameterTable table;
  Layer layer;
  Arena arena;
  Tensor<double, 1> memory;  // all of the arena
  typename Layer::Saved saved;
  typename Layer::Work work;
  Tensor<Storage, 2> x;

  explicit ExpertsLayer(const reference::ExpertsShape& shape, int sequence_count = 1,
                        const Capacity& capacity = {}, const ProcessGrid& grid = {},
                        double receive_factor = 2.0)
      : n(shape),
        sequences(sequence_count),
        layer(config(n, capacity, receive_factor), grid, table, "mlp") {
    table.lay_out();
    Arena plan;
    reserve(plan);
    arena = Arena(plan.peak());
    {
      const Arena::Scope scope(arena);
      memory = arena.template reserve<double, 1>("all", plan.peak() / 8);
    }
    reserve(arena);
  }

  static MixtureOfExpertsConfig config(const reference::ExpertsShape& n, const Capacity& capacity,
                                       double receive_factor) {
    return {.model_width = n.D,
            .experts = n.E,
            .experts_per_token = n.K,
            .renormalise = n.renormalise,
            .expert_width = n.F,
            .shared_width = n.G,
            .capacity = capacity,
            .receive_factor = receive_factor};
  }

  void reserve(Arena& from) {
    const MicrobatchShape shape{n.T, sequences, sequences};
    saved = layer.reserve_saved(from, shape);
    work = layer.reserve_work(from, shape);
  }

  Documents documents() const {
    return make_documents(std::vector<int>(sequences, n.T / sequences), sequences);
  }

  /// Rounds `w` to what the layers then hold, each of them its part.
  void set(reference::ExpertsWeights& w) {
    for (const auto& [name, values] : by_name(w)) {
      const Parameter& row = *table.find(name);
      if (row.type == data_type_of<Storage>()) {
        set<Storage>(row, *values);
      } else {
        set<Real>(row, *values);
      }
    }
  }

  template <class T>
  void set(const Parameter& row, std::vector<double>& values) {
    values = rounded<T>(values);
    const auto begin = values.begin() + first_element(row);
    const std::vector<double> part(begin, begin + row.elements());
    Kokkos::deep_copy(table.values<T>(row), to_device<T>(part, part.size()));
  }

  /// Where the one box of a row, cut along its first extent, begins in the global tensor.
  static std::int64_t first_element(const Parameter& row) {
    const Box& box = row.shard.boxes.front();
    return box.offset[0] * (box.elements() / box.extent[0]);
  }

  std::vector<double> forward(const std::vector<double>& values) {
    poison(memory);
    x = to_device<Storage>(values, n.T, n.D);
    const auto y = nan_tensor<Storage>(n.T, n.D);
    layer.forward(Exec{}, documents(), x, y, saved, work);
    return to_host(y);
  }

  std::vector<double> step(const std::vector<double>& values) {
    poison(memory);
    x = to_device<Storage>(values, n.T, n.D);
    const auto y = nan_tensor<Storage>(n.T, n.D);
    layer.step(Exec{}, x, y, saved, work);
    return to_host(y);
  }

  /// After forward. The gradients of the weights start from zero.
  std::vector<double> backward(const std::vector<double>& dy,
                               const BalanceGradient<Real>* balance = nullptr) {
    table.zero_gradients(Exec{});
    const auto dx = nan_tensor<Storage>(n.T, n.D);
    layer.backward(Exec{}, documents(), to_device<Storage>(dy, n.T, n.D), saved, balance, dx, work);
    return to_host(dx);
  }

  std::vector<double> gradient(const std::string& name) const {
    return to_host(table.gradients<Real>(*table.find(name)));
  }

  std::vector<double> selected() const { return to_host(saved.routing.selected); }
};

}  // namespace qnext::test
