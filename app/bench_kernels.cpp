// SPDX-License-Identifier: Apache-2.0
#include "app/bench_kernels.hpp"

#include "core/matmul.hpp"
#include "core/tile_operand.hpp"
#include "layers/adamw.hpp"
#include "layers/dense_mlp.hpp"
#include "layers/gated_attention.hpp"
#include "layers/gated_delta_net.hpp"
#include "layers/head_loss.hpp"
#include "layers/kernels/attention.hpp"
#include "layers/kernels/delta_rule.hpp"
#include "layers/mixture_of_experts.hpp"
#include "layers/rms_norm.hpp"

#include <fmt/format.h>

namespace qnext {
namespace {

/// A tensor of small numbers, none of them zero, so that nothing underflows.
template <class T, class... Extents>
Tensor<T, sizeof...(Extents)> numbers(double largest, Extents... extents) {
  const Tensor<T, sizeof...(Extents)> tensor("bench", static_cast<std::size_t>(extents)...);
  const Tensor<T, 1> flat(tensor.data(), tensor.size());
  Kokkos::parallel_for(
      "bench::fill", Kokkos::RangePolicy<Exec>(0, flat.extent_int(0)), KOKKOS_LAMBDA(const int i) {
        flat(i) = T(static_cast<float>(largest * ((i * 37 % 101) - 50.5) / 51.0));
      });
  return tensor;
}

/// Logarithms of decays a little below 1.
template <class Real>
Tensor<Real, 2> log_decays(int rows, int columns) {
  const auto tensor = numbers<Real>(0.1, rows, columns);
  const Tensor<Real, 1> flat(tensor.data(), tensor.size());
  Kokkos::parallel_for(
      "bench::log_decays", Kokkos::RangePolicy<Exec>(0, flat.extent_int(0)),
      KOKKOS_LAMBDA(const int i) { flat(i) -= Real(0.11); });
  return tensor;
}

/// Products of tiles as the chunked delta rule has them: each team makes as many as it is told,
/// with operands that are prepared once or, if `prepare`, for every product.
template <class Storage>
struct TileProducts {
  using Real = Accum<Storage>;

  int M, N, K, products;
  bool prepare;
  Tensor<Real, 2> memory;

  int elements() const {
    TileSpace<Real> space{nullptr, 0};
    operands(space);
    return static_cast<int>(space.used);
  }

  struct Operands {
    tile::Tile<Real> a, b, c;
    tile::OperandMemory<Storage> left, right;
  };
  KOKKOS_FUNCTION Operands operands(TileSpace<Real>& space) const {
    return {space.take(M, K), space.take(K, N), space.take(M, N),
            tile::take_left<Storage>(space, M, K), tile::take_right<Storage>(space, K, N)};
  }

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    TileSpace<Real> space{&memory(team.league_rank(), 0), 0};
    const Operands n = operands(space);
    tile::fill(team, n.a, Real(0.5));
    tile::fill(team, n.b, Real(0.25));
    auto left = tile::left<Storage>(team, tile::Turn::plain, n.a, n.left);
    auto right = tile::right<Storage>(team, tile::Turn::plain, n.b, n.right);
    for (int i = 0; i < products; ++i) {
      if (prepare) {
        left = tile::left<Storage>(team, tile::Turn::plain, n.a, n.left);
        right = tile::right<Storage>(team, tile::Turn::plain, n.b, n.right);
      }
      tile::multiply<Storage>(team, left, right, n.c);
    }
  }
};

template <class Storage>
class KernelBench {
 public:
  using Real = Accum<Storage>;

  KernelBench(const ModelConfig& model, int sequences, int sequence)
      : model_(model),
        T_(sequences * sequence),
        shape_{T_, sequences, sequences},
        documents_(make_documents(std::vector<int>(sequences, sequence), sequences)),
        sequence_(sequence) {}

  std::vector<Measurement> all() {
    tiles();
    delta_rule();
    attention();
    layers();
    norm();
    return measurements_;
  }

  std::vector<Measurement> layers() {
    mixer<GatedDeltaNet<Storage>>("gated delta net", model_.layer.delta_net, delta_net_products());
    mixer<GatedAttention<Storage>>("gated attention", model_.layer.attention, attention_products());
    experts();
    dense();
    head();
    return measurements_;
  }

 private:
  static constexpr double size = sizeof(Storage);

  void add(const std::string& name, double flops, double bytes, const std::function<void()>& run) {
    measurements_.push_back({name, flops, bytes, shortest_time(run)});
  }

  /// Reserves on an arena of the size that it measured first.
  template <class Reserve>
  auto with_memory(const Reserve& reserve) {
    Arena plan;
    reserve(plan);
    arena_ = std::make_unique<Arena>(plan.peak());
    return reserve(*arena_);
  }

  /// S^T [k^T q^T] of the delta rule, as many as keep every team busy for a while.
  void tiles() {
    const auto& c = model_.layer.delta_net;
    const int teams = slots_for(256), products = device_backend ? 16 : 1024;
    for (const bool prepare : {false, true}) {
      TileProducts<Storage> kernel{c.value_width, 2 * c.chunk, c.key_width, products, prepare, {}};
      kernel.memory = Tensor<Real, 2>("bench tiles", teams, kernel.elements());
      add(fmt::format("tile product {} x {} x {}{}", kernel.M, kernel.N, kernel.K,
                      prepare ? ", operands too" : ""),
          2.0 * teams * products * kernel.M * kernel.N * kernel.K, 0.0,
          [&] { Kokkos::parallel_for("bench::tiles", row_policy(Exec{}, teams), kernel); });
    }
  }

  /// Forward counted as 4 H K V multiply-adds a token, backward as 8: what the recurrence needs.
  void delta_rule() {
    const auto& c = model_.layer.delta_net;
    const int G = c.key_heads, H = c.value_heads, K = c.key_width, V = c.value_width;
    const DeltaRuleInput<Storage> in{
        numbers<Storage>(0.1, T_, G, K), numbers<Storage>(0.1, T_, G, K),
        numbers<Storage>(1.0, T_, H, V), log_decays<Real>(T_, H), numbers<Real>(0.5, T_, H)};
    const auto out = numbers<Storage>(1.0, T_, H, V);
    const DeltaRuleGradient<Storage> gradient{
        numbers<Storage>(1.0, T_, G, K), numbers<Storage>(1.0, T_, G, K),
        numbers<Storage>(1.0, T_, H, V), numbers<Real>(1.0, T_, H), numbers<Real>(1.0, T_, H)};
    const auto work = with_memory([&](Arena& arena) {
      return reserve_delta_rule_work<Storage>(arena, {G, H, K, V, c.chunk}, shape_);
    });
    const double macs = 4.0 * T_ * H * K * V;
    const double bytes = size * T_ * (2.0 * G * K + 2.0 * H * V) + 2.0 * sizeof(Real) * T_ * H;
    const std::string name = fmt::format("delta rule {}/{} x {} x {}, ", G, H, K, V);
    const auto forward = [&] {
      delta_rule_chunked<Storage>(Exec{}, documents_, c.chunk, in, {}, out, {}, work);
    };
    const auto backward = [&] {
      delta_rule_chunked_backward<Storage>(Exec{}, documents_, c.chunk, in, {}, out, {}, gradient,
                                           {}, work);
    };
    add(name + "forward", 2.0 * macs, bytes, forward);
    add(name + "backward", 4.0 * macs, 2.0 * bytes, backward);
    add(name + "both", 6.0 * macs, 3.0 * bytes, [&] {
      forward();
      backward();
    });
  }

  /// The causal half is counted: L / 2 keys for a query, two products forward and five backward.
  void attention() {
    const auto& c = model_.layer.attention;
    const int H = c.heads, G = c.key_value_heads, W = c.head_width;
    const auto tiles = AttentionTiles::usual();
    const AttentionInput<Storage> in{numbers<Storage>(1.0, T_, H, W),
                                     numbers<Storage>(1.0, T_, G, W),
                                     numbers<Storage>(1.0, T_, G, W)};
    const auto out = numbers<Storage>(1.0, T_, H, W);
    const auto lse = numbers<Real>(1.0, T_, H), delta = numbers<Real>(1.0, T_, H);
    const AttentionGradient<Storage> gradient{numbers<Storage>(1.0, T_, H, W),
                                              numbers<Storage>(1.0, T_, G, W),
                                              numbers<Storage>(1.0, T_, G, W)};
    const auto work = with_memory([&](Arena& arena) {
      return reserve_attention_work<Storage>(arena, {H, G, W}, tiles, shape_);
    });
    const double macs = 0.5 * T_ * sequence_ * H * W;
    const double bytes = size * T_ * W * (2.0 * H + 2.0 * G);
    const std::string name = fmt::format("attention {}/{} x {}, ", H, G, W);
    add(name + "forward", 2.0 * 2.0 * macs, bytes,
        [&] { attention_forward<Storage>(Exec{}, documents_, tiles, in, {}, out, lse, work); });
    add(name + "backward", 2.0 * 5.0 * macs, 2.0 * bytes, [&] {
      attention_backward<Storage>(Exec{}, documents_, tiles, in, out, lse, delta, gradient, work);
    });
  }

  /// Multiply-adds of the matrices of a layer for one token.
  double delta_net_products() const {
    const auto& c = model_.layer.delta_net;
    const double key = 1.0 * c.key_heads * c.key_width, value = 1.0 * c.value_heads * c.value_width;
    return model_.width * (2 * key + 3 * value + 2 * c.value_heads) +
           c.conv_taps * (2 * key + value) + 4.0 * c.value_heads * c.key_width * c.value_width;
  }
  double attention_products() const {
    const auto& c = model_.layer.attention;
    const double query = 1.0 * c.heads * c.head_width, key = 1.0 * c.key_value_heads * c.head_width;
    return model_.width * (3 * query + 2 * key) + query * sequence_;
  }

  /// `forward` and `backward` are given the layer, its input, its output or the gradient of it, and
  /// the layer's memory.
  template <class Layer, class Config, class Forward, class Backward>
  void layer(const std::string& name, const Config& config, double macs_per_token,
             const Forward& forward, const Backward& backward) {
    ParameterTable table;
    const Layer layer(config, ProcessGrid{}, table, "bench");
    table.lay_out();
    initialise(table, 1);
    const auto x = numbers<Storage>(1.0, T_, model_.width),
               y = numbers<Storage>(1.0, T_, model_.width);
    auto memory = with_memory([&](Arena& arena) {
      auto saved = layer.reserve_saved(arena, shape_);
      return std::pair(saved, layer.reserve_work(arena, shape_));
    });
    add(name + ", forward", 2.0 * macs_per_token * T_, 0.0,
        [&] { forward(layer, x, y, memory.first, memory.second); });
    add(name + ", backward", 4.0 * macs_per_token * T_, 0.0,
        [&] { backward(layer, x, y, memory.first, memory.second); });
  }

  template <class Mixer, class Config>
  void mixer(const std::string& name, const Config& config, double macs_per_token) {
    layer<Mixer>(
        name, config, macs_per_token,
        [&](const auto& layer, const auto& x, const auto& y, auto& saved, const auto& work) {
          layer.forward(Exec{}, documents_, x, nullptr, y, nullptr, saved, work);
        },
        [&](const auto& layer, const auto& x, const auto& dy, auto& saved, const auto& work) {
          layer.backward(Exec{}, documents_, x, nullptr, saved, dy, nullptr, work);
        });
  }

  void experts() {
    const auto& c = model_.layer.experts;
    if (c.experts == 0) {
      return;
    }
    layer<MixtureOfExperts<Storage>>(
        "experts", c, 3.0 * model_.width * (c.experts_per_token * c.expert_width + c.shared_width),
        [&](const auto& layer, const auto& x, const auto& y, auto& saved, const auto& work) {
          layer.forward(Exec{}, documents_, x, y, saved, work);
        },
        [&](const auto& layer, const auto& x, const auto& dy, auto& saved, const auto& work) {
          layer.backward(Exec{}, documents_, x, saved, nullptr, dy, work);
        });
  }

  void dense() {
    const auto& c = model_.layer.dense;
    if (c.width == 0) {
      return;
    }
    layer<DenseMlp<Storage>>(
        "dense MLP", c, 3.0 * model_.width * c.width,
        [&](const auto& layer, const auto& x, const auto& y, auto& saved, const auto& work) {
          layer.forward(Exec{}, x, y, saved, work);
        },
        [&](const auto& layer, const auto& x, const auto& dy, auto& saved, const auto& work) {
          layer.backward(Exec{}, x, saved, dy, work);
        });
  }

  void norm() {
    ParameterTable table;
    const RmsNorm<Storage> norm(table, "bench", model_.width, 1e-6);
    table.lay_out();
    const auto x = numbers<Storage>(1.0, T_, model_.width),
               y = numbers<Storage>(1.0, T_, model_.width);
    const auto scale = numbers<Real>(1.0, T_);
    const auto work = with_memory([&](Arena& arena) { return norm.reserve_work(arena, T_); });
    const double bytes = size * T_ * model_.width;
    add("rms norm, forward", 0.0, 2.0 * bytes,
        [&] { norm.template forward<Storage>(Exec{}, x, y, scale); });
    add("rms norm, backward", 0.0, 3.0 * bytes,
        [&] { norm.template backward<Storage>(Exec{}, x, y, scale, y, Write::replace, work); });
  }

  void head() {
    ParameterTable table;
    const HeadLoss<Storage> head(table, "bench", model_.vocabulary, model_.width, 0.02, "");
    table.lay_out();
    initialise(table, 1);
    const auto h = numbers<Storage>(1.0, T_, model_.width),
               dh = numbers<Storage>(1.0, T_, model_.width);
    const Tensor<int, 1> labels("labels", T_);
    const Tensor<double, 0> sum("sum");
    const auto work = with_memory([&](Arena& arena) { return head.reserve_work(arena, shape_); });
    add("head and loss, both", 6.0 * T_ * model_.width * model_.vocabulary, 0.0,
        [&] { head.forward_backward(Exec{}, h, labels, 1.0 / T_, sum, dh, Write::replace, work); });
    AdamW optimizer(AdamWConfig{}, table);
    const double elements = static_cast<double>(table.local_elements());
    add("adamw", 0.0, elements * (7.0 * sizeof(Real) + (size == 2 ? 2.0 : 0.0)),
        [&] { optimizer.update(Exec{}, 1, 1e-9, 1.0); });
  }

  const ModelConfig& model_;
  int T_;
  MicrobatchShape shape_;
  Documents documents_;
  int sequence_;
  std::unique_ptr<Arena> arena_;
  std::vector<Measurement> measurements_;
};

}  // namespace

template <class Storage>
std::vector<Measurement> bench_kernels(const ModelConfig& model, int sequences, int sequence) {
  return KernelBench<Storage>(model, sequences, sequence).all();
}

template <class Storage>
std::vector<Measurement> bench_layers(const ModelConfig& model, int sequences, int sequence) {
  return KernelBench<Storage>(model, sequences, sequence).layers();
}

#define QNEXT_INSTANTIATE(Storage)                                                        \
  template std::vector<Measurement> bench_kernels<Storage>(const ModelConfig&, int, int); \
  template std::vector<Measurement> bench_layers<Storage>(const ModelConfig&, int, int);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
