// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/parameter.hpp"
#include "layers/gated_delta_net.hpp"
#include "tests/reference/gated_delta_net.hpp"
#include "tests/support.hpp"

#include <memory>
#include <string>
#include <vector>

namespace qnext::test {

/// A small layer with random weights, and everything around it.
template <class Storage>
struct GatedDeltaNetCase {
  using Real = Accum<Storage>;
  using Layer = GatedDeltaNet<Storage>;
  using State = typename Layer::State;

  reference::DeltaRuleShape n;
  GatedDeltaNetConfig config;
  ParameterTable table;
  std::unique_ptr<Layer> layer;
  Documents documents;
  Arena arena;
  typename Layer::Saved saved;
  typename Layer::Work work;
  State initial, final, dinitial;
  Tensor<Storage, 2> y, dx;

  GatedDeltaNetCase(const reference::DeltaRuleShape& shape, int taps, int chunk = 64)
      : n(shape),
        config{.model_width = 10,
               .key_heads = n.G,
               .value_heads = n.H,
               .key_width = n.K,
               .value_width = n.V,
               .conv_taps = taps,
               .chunk = chunk,
               .norm_epsilon = 1e-5,
               .init_deviation = 0.5} {
    layer = std::make_unique<Layer>(config, ProcessGrid{}, table, "mixer");
    table.lay_out();
    initialise(table, 7);
    documents = make_documents(n.lengths);
    Arena measuring;
    reserve(measuring);
    arena = Arena(measuring.peak());
    reserve(arena);
    y = nan_tensor<Storage>(n.T(), config.model_width);
    dx = nan_tensor<Storage>(n.T(), config.model_width);
  }

  int channels() const { return 2 * n.G * n.K + n.H * n.V; }

  State state_of(const std::vector<double>& conv_tail, const std::vector<double>& memory) const {
    return {to_device<Storage>(conv_tail, n.N(), config.conv_taps - 1, channels()),
            to_device<Real>(memory, n.N(), n.H, n.K, n.V)};
  }

  Tensor<Storage, 2> input(const std::vector<double>& x) const {
    return to_device<Storage>(x, n.T(), config.model_width);
  }

  /// The value of a weight by the end of its name: "conv1d.weight".
  std::vector<double> weight(const std::string& name) const {
    const Parameter& row = *table.find("mixer." + name);
    return row.type == data_type_of<Storage>() ? to_host(table.values<Storage>(row))
                                               : to_host(table.values<Real>(row));
  }
  std::vector<double> gradient(const std::string& name) const {
    return to_host(table.gradients<Real>(*table.find("mixer." + name)));
  }
  void set_weight(const std::string& name, const std::vector<double>& values) {
    const Parameter& row = *table.find("mixer." + name);
    if (row.type == data_type_of<Storage>()) {
      Kokkos::deep_copy(table.values<Storage>(row), to_device<Storage>(values, values.size()));
    } else {
      Kokkos::deep_copy(table.values<Real>(row), to_device<Real>(values, values.size()));
    }
  }

  reference::GatedDeltaNetWeights weights() const {
    return {weight("in_proj_qkvz.weight"),
            weight("in_proj_ba.weight"),
            weight("conv1d.weight"),
            weight("A_log"),
            weight("dt_bias"),
            weight("norm.weight"),
            weight("out_proj.weight")};
  }

 private:
  void reserve(Arena& from) {
    const MicrobatchShape shape{.tokens = n.T(), .documents = n.N()};
    saved = layer->reserve_saved(from, shape);
    work = layer->reserve_work(from, shape);
    initial = layer->reserve_state(from, n.N());
    final = layer->reserve_state(from, n.N());
    dinitial = layer->reserve_state(from, n.N());
    if (!from.measuring()) {
      poison_all();
    }
  }

  void poison_all() {
    for (const State& state : {initial, final, dinitial}) {
      poison(state.conv_tail);
      poison(state.memory);
    }
    poison(saved.qkvz);
    poison(saved.log_decay);
    poison(saved.beta);
    poison(saved.read);
    poison(work.convolved.q);
    poison(work.convolved.k);
    poison(work.convolved.v);
    poison(work.ba);
    poison(work.normed);
    poison(work.dnormed);
    poison(work.dqkvz);
    poison(work.dba);
    poison(work.dlog_decay);
    poison(work.dbeta);
    poison(work.conv.weight);
    poison(work.conv.partial);
    poison(work.norm.partial);
    poison(work.gates.partial);
    poison(work.rule.slots);
  }
};

}  // namespace qnext::test
