// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "layers/gated_attention.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace qnext::test {

/// A gated attention layer with random weights of its own, and memory for one microbatch.
template <class Storage>
class AttentionLayer {
 public:
  using Real = Accum<Storage>;
  using Layer = GatedAttention<Storage>;
  using State = typename Layer::State;

  explicit AttentionLayer(const reference::AttentionShape& n)
      : n(n), layer(config(n), ProcessGrid{}, table, "attn") {
    table.lay_out();
    const double size = 1.0 / std::sqrt(n.D);
    weights.q = random("q_proj", n.H * (n.gated ? 2 : 1) * n.W * n.D, 2.0 * size, 11);
    weights.k = random("k_proj", n.G * n.W * n.D, 2.0 * size, 12);
    weights.v = random("v_proj", n.G * n.W * n.D, 2.0 * size, 13);
    weights.o = random("o_proj", n.D * n.H * n.W, size, 14);
    weights.q_norm = random("q_norm", n.W, 0.4, 15);
    weights.k_norm = random("k_norm", n.W, 0.4, 16);
  }

  const Parameter& row(const std::string& name) const {
    return *table.find("attn." + name + ".weight");
  }

  void set(const std::string& name, const std::vector<double>& values) {
    if (row(name).type == data_type_of<Storage>()) {
      Kokkos::deep_copy(table.template values<Storage>(row(name)),
                        to_device<Storage>(values, values.size()));
    } else {
      Kokkos::deep_copy(table.template values<Real>(row(name)),
                        to_device<Real>(values, values.size()));
    }
  }

  std::vector<double> gradient(const std::string& name) const {
    return to_host(table.template gradients<Real>(row(name)));
  }

  State make_state(int documents, int capacity) {
    Arena plan;
    layer.reserve_state(plan, documents, capacity);
    state_arena = Arena(plan.peak());
    const State state = layer.reserve_state(state_arena, documents, capacity);
    poison(state.keys);
    poison(state.values);
    return state;
  }

  std::vector<double> forward(const Documents& documents, const std::vector<double>& x,
                              const State* initial = nullptr, State* final = nullptr) {
    reserve(documents);
    input = to_device<Storage>(x, documents.position.extent(0), n.D);
    const auto y = nan_tensor<Storage>(documents.position.extent(0), n.D);
    layer.forward(Exec{}, documents, input, initial, y, final, saved, work);
    return to_host(y);
  }

  std::vector<double> step(const Documents& documents, const std::vector<double>& x, State& state) {
    reserve(documents, true);
    input = to_device<Storage>(x, documents.position.extent(0), n.D);
    const auto y = nan_tensor<Storage>(documents.position.extent(0), n.D);
    layer.step(Exec{}, documents, input, state, y, saved, work);
    return to_host(y);
  }

  /// Of the last forward. Gradients of the weights start at zero.
  std::vector<double> backward(const Documents& documents, const std::vector<double>& dy) {
    table.zero_gradients(Exec{});
    const auto dx = nan_tensor<Storage>(documents.position.extent(0), n.D);
    layer.backward(Exec{}, documents, to_device<Storage>(dy, documents.position.extent(0), n.D),
                   nullptr, saved, dx, nullptr, work);
    return to_host(dx);
  }

  /// How far y may be from the definition. Normed heads have length sqrt(W) times at most 1.4, so
  /// that the products of a score sum up to at most 2 sqrt(W). The projections commit D errors
  /// relative to sums that the norm takes back to size 1, the scores W: a weight is off by
  /// 4 sqrt(W) (D + W) epsilon of Real, and by 8 sqrt(W) epsilon of Storage where projections, q
  /// and k are rounded to it. The mean of v adds an error a key, the output projection one a term.
  double bound(const std::vector<double>& x, bool same_rounding = false) const {
    double largest_value = 0.0, largest_sum = 0.0;
    for (const double v : reference::project(x, weights.v, n.D)) {
      largest_value = std::max(largest_value, std::abs(v));
    }
    const int terms = n.H * n.W;
    for (int d = 0; d < n.D; ++d) {
      double sum = 0.0;
      for (int i = 0; i < terms; ++i) {
        sum += std::abs(weights.o[d * terms + i]);
      }
      largest_sum = std::max(largest_sum, sum);
    }
    const double longest = *std::max_element(n.lengths.begin(), n.lengths.end());
    const double root = std::sqrt(n.W);
    return largest_value * largest_sum *
           ((4.0 * root * (n.D + n.W) + longest + terms) * epsilon_of<Real>() +
            (same_rounding ? 0.0 : 8.0 * root * epsilon_of<Storage>()));
  }

  reference::AttentionShape n;
  reference::AttentionWeights weights;  // numbers of Storage

 private:
  static GatedAttentionConfig config(const reference::AttentionShape& n) {
    return {.model_width = n.D,
            .heads = n.H,
            .key_value_heads = n.G,
            .head_width = n.W,
            .rotary_width = n.rotary,
            .rotary_base = n.base,
            .norm_epsilon = n.epsilon,
            .gated = n.gated};
  }

  std::vector<double> random(const std::string& name, int count, double size, int seed) {
    const auto values = rounded<Storage>(uniform(count, -size, size, seed));
    set(name, values);
    return values;
  }

  void reserve(const Documents& documents, bool decoding = false) {
    const MicrobatchShape shape{documents.position.extent_int(0), documents.count, 1, decoding};
    const auto all = [&](Arena& in) {
      saved = layer.reserve_saved(in, shape);
      work = layer.reserve_work(in, shape);
    };
    Arena plan;
    all(plan);
    arena = Arena(plan.peak());
    all(arena);
    poison(saved.query);
    poison(saved.attended);
    poison(saved.log_sum_exp);
    poison(work.attention.slots);
    poison(work.attention.partial);
    poison(work.attention.partial_lse);
    poison(work.dquery);
    poison(work.dkey);
    poison(work.dvalue);
  }

  ParameterTable table;
  Layer layer;
  Arena arena;
  Arena state_arena;
  Tensor<Storage, 2> input;
  typename Layer::Saved saved;
  typename Layer::Work work;
};

}  // namespace qnext::test
