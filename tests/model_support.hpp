// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/microbatch.hpp"
#include "layers/model.hpp"
#include "tests/support.hpp"

#include <memory>
#include <vector>

namespace qnext::test {

/// A model of awkward small shapes with every kind of layer in it.
inline ModelConfig small_model_config() {
  ModelConfig config;
  config.vocabulary = 37;
  config.width = 24;
  config.mixers = {Mixer::delta_net, Mixer::attention, Mixer::delta_net};
  config.mlps = {Mlp::experts, Mlp::dense, Mlp::experts};
  config.norm_epsilon = 1e-6;
  config.init_deviation = 0.2;
  config.mtp_modules = 1;
  DecoderLayerConfig& layer = config.layer;
  layer.width = config.width;
  layer.norm_epsilon = 1e-6;
  layer.delta_net = {.model_width = 24,
                     .key_heads = 2,
                     .value_heads = 4,
                     .key_width = 8,
                     .value_width = 12,
                     .conv_taps = 3,
                     .chunk = 16,
                     .norm_epsilon = 1e-6,
                     .init_deviation = 0.2};
  layer.attention = {.model_width = 24,
                     .heads = 4,
                     .key_value_heads = 2,
                     .head_width = 12,
                     .rotary_width = 4,
                     .rotary_base = 1e4,
                     .norm_epsilon = 1e-6,
                     .init_deviation = 0.2};
  layer.experts.model_width = 24;
  layer.experts.experts = 5;
  layer.experts.experts_per_token = 2;
  layer.experts.renormalise = true;
  layer.experts.expert_width = 12;
  layer.experts.shared_width = 8;
  layer.experts.init_deviation = 0.2;
  layer.dense = {.model_width = 24, .width = 20, .init_deviation = 0.2};
  config.balance.form = BalanceLossConfig::Form::megatron;
  config.balance.coefficient = 0.01;
  config.balance.router_z_loss = 0.001;
  return config;
}

/// A microbatch of random tokens: documents of the given lengths, every token labelled with the
/// next one of its document.
struct TestBatch {
  std::vector<int> tokens, labels, lengths;
  Microbatch batch;
  int label_count = 0;
  int mtp_label_count = 0;

  TestBatch(const std::vector<int>& lengths, int vocabulary, std::uint64_t seed, int sequences = 1)
      : lengths(lengths) {
    const std::uint64_t key = random_key(seed, "tokens");
    for (const int length : lengths) {
      for (int i = 0; i < length; ++i) {
        tokens.push_back(static_cast<int>(random_bits(key, tokens.size()) % vocabulary));
      }
      for (int i = 0; i + 1 < length; ++i) {
        labels.push_back(tokens[labels.size() + 1]);
      }
      labels.push_back(-1);
      label_count += length - 1;
      mtp_label_count += length > 2 ? length - 2 : 0;
    }
    batch = {to_device_ids(tokens), to_device_ids(labels), make_documents(lengths, sequences)};
  }

  static Tensor<const int, 1> to_device_ids(const std::vector<int>& ids) {
    const Tensor<int, 1> device("ids", ids.size());
    const auto host = Kokkos::create_mirror_view(device);
    for (std::size_t i = 0; i < ids.size(); ++i) {
      host(i) = ids[i];
    }
    Kokkos::deep_copy(device, host);
    return device;
  }

  MicrobatchShape shape() const {
    return {batch.tokens.extent_int(0), batch.documents.count, batch.documents.sequences};
  }

  /// What a context rank takes of it, with the counts of the whole.
  TestBatch on(const ProcessGrid& grid) const {
    TestBatch piece = *this;
    const TokenBatch whole{{tokens.begin(), tokens.end()},
                           {labels.begin(), labels.end()},
                           lengths,
                           batch.documents.sequences,
                           label_count};
    piece.batch = qnext::to_device(whole, grid);
    return piece;
  }
};

/// A model with its table and, for one batch, its memory, full of NaN before the first pass.
template <class Storage>
struct ModelUnderTest {
  ParameterTable table;
  Model<Storage> model;
  std::unique_ptr<Arena> arena;
  typename Model<Storage>::Saved saved;
  typename Model<Storage>::Work work;
  LossSums sums = LossSums::make();

  explicit ModelUnderTest(const ModelConfig& config, std::uint64_t seed = 1,
                          const ProcessGrid& grid = {})
      : model(config, grid, table) {
    table.lay_out();
    initialise(table, seed);
  }

  void reserve(const MicrobatchShape& shape) {
    Arena plan;
    model.reserve_saved(plan, shape);
    model.reserve_work(plan, shape);
    arena = std::make_unique<Arena>(plan.peak());
    {
      const Arena::Scope scope(*arena);
      poison(arena->template reserve<float, 1>("everything", plan.peak() / 4));
    }
    saved = model.reserve_saved(*arena, shape);
    work = model.reserve_work(*arena, shape);
  }

  static LossScale scale_of(const TestBatch& batch) {
    return {1.0 / batch.label_count, 0.3 / batch.mtp_label_count, 1.0};
  }

  /// cross entropy + 0.3 MTP loss + balance losses; gradients in the table if asked for.
  double loss(const TestBatch& batch, bool with_gradients, const Dropout& dropout = {}) {
    reserve(batch.shape());
    sums.clear(Exec{});
    const LossScale scale = scale_of(batch);
    model.forward(Exec{}, batch.batch, dropout, saved, work);
    if (with_gradients) {
      table.zero_gradients(Exec{});
      model.backward(Exec{}, batch.batch, scale, dropout, saved, work, sums);
    } else {
      model.evaluate(Exec{}, batch.batch, saved, work, sums);
    }
    const auto& balance = model.config().balance;
    return to_host(sums.cross_entropy)[0] * scale.cross_entropy + to_host(sums.mtp)[0] * scale.mtp +
           to_host(sums.balance)[0] * balance.coefficient +
           to_host(sums.router_z)[0] * balance.router_z_loss;
  }

  std::vector<double> gradient(const Parameter& row) const {
    return to_host(table.template gradients<Accum<Storage>>(row));
  }
};

}  // namespace qnext::test
