// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "layers/model.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace qnext {

/// Everything that a pass over some documents computes, on the host and in double.
struct GoldenOutputs {
  /// The router of one layer with experts.
  struct Routing {
    std::vector<double> probabilities;  // (T, E)
    std::vector<double> selected;       // (T, K)
    std::vector<double> weights;        // (T, K)
  };

  std::vector<double> logits;               // (T, V)
  std::vector<std::vector<double>> hidden;  // layers x (T, D): outputs of the layers
  std::vector<double> final_norm;           // (T, D)
  std::vector<Routing> routing;             // one for each layer with experts
  std::vector<double> mtp_fc;               // (T, D)  as all of these with an MTP module
  std::vector<double> mtp_layer;            // (T, D)
  std::vector<double> mtp_logits;           // (T, V)
  std::vector<double> mtp_probabilities;    // (T, E)
  std::vector<double> mtp_selected;         // (T, K)
  double loss_ce = 0.0;                     // means
  double loss_mtp = 0.0;
  double loss_aux = 0.0;  // of transformers' form
};

/// A model from a Hugging Face folder that shows what golden files hold.
template <class Storage>
class GoldenModel {
 public:
  using Real = Accum<Storage>;

  /// State of one decoded document, by the names of the golden files: "layer0.conv" (channels,
  /// taps - 1), "layer0.recurrent" (H, K, V), "layer3.keys" and "layer3.values" (heads, tokens,
  /// width).
  using States = std::map<std::string, std::vector<double>>;

  struct Generated {
    std::vector<int> tokens;
    std::vector<double> logits;  // (tokens, V), row n chose token n
    States after_prompt;
    States at_end;
  };

  /// Experts chosen by another program: a list (T, K) for each layer with experts, then for the MTP
  /// module's; its probabilities and weights are still the model's own. A layer without a list
  /// chooses itself.
  using Choices = std::vector<std::vector<int>>;

  GoldenModel(const std::string& folder, int chunk);

  const ModelConfig& config() const { return config_; }

  /// Layers with experts, the MTP module's among them.
  int routers() const;

  /// Documents of `tokens` one after the other; the losses are means over all of them.
  GoldenOutputs run(const std::vector<int>& tokens, const std::vector<int>& lengths,
                    const Choices& choices = {});

  /// Gradients, by name, of  ce * cross entropy + mtp * MTP loss + aux * balance loss, each a mean.
  std::map<std::string, std::vector<double>> gradients(const std::vector<int>& tokens,
                                                       const std::vector<int>& lengths, double ce,
                                                       double mtp, double aux,
                                                       const Choices& choices = {});

  /// Greedy: prefill, then one token at a time.
  Generated generate(const std::vector<int>& prompt, int count);

 private:
  struct Pass;

  Pass prepare(const std::vector<int>& tokens, const std::vector<int>& lengths,
               const Choices& choices);
  void replay(const Choices& choices, typename Model<Storage>::Saved& saved) const;
  States states(const typename Model<Storage>::State& state, int tokens) const;

  ModelConfig config_;
  ParameterTable table_;
  std::unique_ptr<Model<Storage>> model_;
};

}  // namespace qnext
