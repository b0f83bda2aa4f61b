// SPDX-License-Identifier: Apache-2.0
#include "app/golden_model.hpp"

#include "app/hugging_face_model.hpp"
#include "app/import_hugging_face.hpp"
#include "core/fence.hpp"
#include "core/require.hpp"
#include "io/hugging_face_config.hpp"

#include <algorithm>

namespace qnext {
namespace {

template <class View>
std::vector<double> on_host(const View& tensor) {
  fence(Exec{}, "golden model: results are read on the host");
  using T = typename View::non_const_value_type;
  const Tensor<const T, 1> flat(tensor.data(), tensor.size());
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), flat);
  std::vector<double> values(tensor.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(host(i));
  }
  return values;
}

Tensor<const int, 1> on_device(const std::vector<int>& ids) {
  const Tensor<int, 1> device("ids", ids.size());
  const auto host = Kokkos::create_mirror_view(device);
  std::copy(ids.begin(), ids.end(), host.data());
  Kokkos::deep_copy(device, host);
  return device;
}

std::vector<int> next_tokens(const std::vector<int>& tokens, const std::vector<int>& lengths) {
  std::vector<int> labels;
  for (const int length : lengths) {
    for (int i = 0; i + 1 < length; ++i) {
      labels.push_back(tokens[labels.size() + 1]);
    }
    labels.push_back(-1);
  }
  return labels;
}

}  // namespace

// One microbatch with its memory.
template <class Storage>
struct GoldenModel<Storage>::Pass {
  std::vector<int> labels;
  Microbatch batch;
  std::unique_ptr<Arena> arena;
  typename Model<Storage>::Saved saved;
  typename Model<Storage>::Work work;
  LossSums sums = LossSums::make();
  double label_count = 0.0;
  double mtp_label_count = 0.0;
};

template <class Storage>
GoldenModel<Storage>::GoldenModel(const std::string& folder, int chunk) {
  config_ = model_config(HuggingFaceConfig::read(folder));
  config_.layer.delta_net.chunk = chunk;
  config_.mtp_modules = has_mtp_weights(folder) ? 1 : 0;
  config_.balance.form = BalanceLossConfig::Form::huggingface;
  config_.balance.coefficient = 1.0;
  model_ = std::make_unique<Model<Storage>>(config_, ProcessGrid{}, table_);
  table_.lay_out();
  import_hugging_face(folder, table_);
}

template <class Storage>
int GoldenModel<Storage>::routers() const {
  return static_cast<int>(std::count(config_.mlps.begin(), config_.mlps.end(), Mlp::experts)) +
         config_.mtp_modules;
}

template <class Storage>
void GoldenModel<Storage>::replay(const Choices& choices,
                                  typename Model<Storage>::Saved& saved) const {
  std::vector<Routing<Real>*> routers;
  for (int i = 0; i < config_.layers(); ++i) {
    if (config_.mlps[i] == Mlp::experts) {
      routers.push_back(&saved.layers[i].mlp.experts.routing);
    }
  }
  if (model_->mtp() != nullptr) {
    routers.push_back(&saved.mtp.layer.mlp.experts.routing);
  }
  require(choices.size() <= routers.size(), std::to_string(choices.size()) +
                                                " lists of experts for " +
                                                std::to_string(routers.size()) + " routers");
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const auto& selected = routers[i]->selected;
    require(choices[i].size() == selected.size(), std::to_string(choices[i].size()) +
                                                      " chosen experts for " +
                                                      std::to_string(selected.size()) + " places");
    Kokkos::deep_copy(selected, HostTensor<const int, 2>(choices[i].data(), selected.extent(0),
                                                         selected.extent(1)));
    routers[i]->given = true;
  }
}

template <class Storage>
typename GoldenModel<Storage>::Pass GoldenModel<Storage>::prepare(const std::vector<int>& tokens,
                                                                  const std::vector<int>& lengths,
                                                                  const Choices& choices) {
  Pass pass;
  pass.labels = next_tokens(tokens, lengths);
  pass.batch = {on_device(tokens), on_device(pass.labels), make_documents(lengths)};
  for (const int length : lengths) {
    pass.label_count += length - 1;
    pass.mtp_label_count += std::max(0, length - 2);
  }
  const MicrobatchShape shape{static_cast<int>(tokens.size()), static_cast<int>(lengths.size()), 1};
  Arena plan;
  model_->reserve_saved(plan, shape);
  model_->reserve_work(plan, shape);
  pass.arena = std::make_unique<Arena>(plan.peak());
  pass.saved = model_->reserve_saved(*pass.arena, shape);
  pass.work = model_->reserve_work(*pass.arena, shape);
  pass.sums.clear(Exec{});
  replay(choices, pass.saved);
  model_->forward(Exec{}, pass.batch, Dropout{}, pass.saved, pass.work);
  return pass;
}

template <class Storage>
GoldenOutputs GoldenModel<Storage>::run(const std::vector<int>& tokens,
                                        const std::vector<int>& lengths, const Choices& choices) {
  Pass pass = prepare(tokens, lengths, choices);
  const auto& saved = pass.saved;
  GoldenOutputs outputs;
  const Tensor<Real, 2> logits("logits", tokens.size(), config_.vocabulary);
  model_->logits(Exec{}, saved.normed, logits);
  outputs.logits = on_host(logits);
  for (int i = 0; i < config_.layers(); ++i) {
    outputs.hidden.push_back(on_host(saved.hidden[i + 1]));
    if (config_.mlps[i] == Mlp::experts) {
      const auto& routing = saved.layers[i].mlp.experts.routing;
      outputs.routing.push_back(
          {on_host(routing.probabilities), on_host(routing.selected), on_host(routing.weights)});
    }
  }
  outputs.final_norm = on_host(saved.normed);
  if (model_->mtp() != nullptr) {
    outputs.mtp_fc = on_host(saved.mtp.input);
    outputs.mtp_layer = on_host(saved.mtp.output);
    outputs.mtp_probabilities = on_host(saved.mtp.layer.mlp.experts.routing.probabilities);
    outputs.mtp_selected = on_host(saved.mtp.layer.mlp.experts.routing.selected);
    model_->logits(Exec{}, saved.mtp.normed, logits);
    outputs.mtp_logits = on_host(logits);
  }
  model_->evaluate(Exec{}, pass.batch, pass.saved, pass.work, pass.sums);
  outputs.loss_ce = on_host(pass.sums.cross_entropy)[0] / pass.label_count;
  outputs.loss_mtp = on_host(pass.sums.mtp)[0] / pass.mtp_label_count;
  outputs.loss_aux = on_host(pass.sums.balance)[0];
  return outputs;
}

template <class Storage>
std::map<std::string, std::vector<double>> GoldenModel<Storage>::gradients(
    const std::vector<int>& tokens, const std::vector<int>& lengths, double ce, double mtp,
    double aux, const Choices& choices) {
  Pass pass = prepare(tokens, lengths, choices);
  table_.zero_gradients(Exec{});
  const LossScale scale{ce / pass.label_count, mtp / pass.mtp_label_count, aux};
  model_->backward(Exec{}, pass.batch, scale, Dropout{}, pass.saved, pass.work, pass.sums);
  std::map<std::string, std::vector<double>> gradients;
  for (const Parameter& row : table_.rows()) {
    if (row.alias_of.empty()) {
      gradients[row.name] = on_host(table_.template gradients<Real>(row));
    }
  }
  return gradients;
}

template <class Storage>
typename GoldenModel<Storage>::States GoldenModel<Storage>::states(
    const typename Model<Storage>::State& state, int tokens) const {
  States states;
  for (int i = 0; i < config_.layers(); ++i) {
    const std::string name = "layer" + std::to_string(i) + ".";
    if (config_.mixers[i] == Mixer::delta_net) {
      const auto& layer = state.layers[i].delta_net;
      states[name + "recurrent"] = on_host(layer.memory);
      const auto tail = on_host(layer.conv_tail);  // (1, taps - 1, channels), oldest first
      const auto inputs = layer.conv_tail.extent(1), channels = layer.conv_tail.extent(2);
      auto& conv = states[name + "conv"];
      for (std::size_t c = 0; c < channels; ++c) {
        for (std::size_t j = 0; j < inputs; ++j) {
          conv.push_back(tail[j * channels + c]);
        }
      }
      continue;
    }
    // (1, capacity, heads, width) in the cache, (heads, tokens, width) in the golden file
    const auto& cache = state.layers[i].attention;
    const auto heads = cache.keys.extent(2), width = cache.keys.extent(3);
    for (const bool is_key : {true, false}) {
      const auto values = on_host(is_key ? cache.keys : cache.values);
      auto& by_head = states[name + (is_key ? "keys" : "values")];
      for (std::size_t h = 0; h < heads; ++h) {
        for (int t = 0; t < tokens; ++t) {
          const auto* const row = &values[(t * heads + h) * width];
          by_head.insert(by_head.end(), row, row + width);
        }
      }
    }
  }
  return states;
}

template <class Storage>
typename GoldenModel<Storage>::Generated GoldenModel<Storage>::generate(
    const std::vector<int>& prompt, int count) {
  const int length = static_cast<int>(prompt.size());
  Arena plan;
  model_->reserve_state(plan, 1, length + count);
  Arena state_arena(plan.peak());
  auto state = model_->reserve_state(state_arena, 1, length + count);
  model_->clear(Exec{}, state);
  const Tensor<Real, 2> logits("logits", 1, config_.vocabulary);
  Generated generated;
  std::vector<int> piece = prompt;
  for (int fed = 0, n = 0;; ++n) {
    const int size = static_cast<int>(piece.size());
    const MicrobatchShape shape{size, 1, 1};
    Arena measure;
    model_->reserve_saved(measure, shape);
    model_->reserve_work(measure, shape);
    Arena arena(measure.peak());
    auto saved = model_->reserve_saved(arena, shape);
    const auto work = model_->reserve_work(arena, shape);
    const Microbatch batch{on_device(piece), {}, make_documents({size}, 1, {fed})};
    if (n == 0) {
      model_->forward(Exec{}, batch, Dropout{}, saved, work, &state, &state);
    } else {
      model_->step(Exec{}, batch, state, saved, work);
    }
    fed += size;
    if (n == 0) {
      generated.after_prompt = states(state, fed);
    }
    if (n == count) {
      generated.at_end = states(state, fed);
      return generated;
    }
    const Tensor<const Storage, 2> last(
        saved.normed.data() + std::int64_t{size - 1} * config_.width, 1, config_.width);
    model_->logits(Exec{}, last, logits);
    const auto row = on_host(logits);
    piece = {static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin())};
    generated.tokens.push_back(piece[0]);
    generated.logits.insert(generated.logits.end(), row.begin(), row.end());
  }
}

template class GoldenModel<bf16>;
template class GoldenModel<float>;
template class GoldenModel<double>;

}  // namespace qnext
