// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/decoder_layer.hpp"
#include "layers/embedding.hpp"
#include "layers/linear.hpp"
#include "layers/rms_norm.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

/// Predicts the token after the next one (spec 7):
///
///     e_i = E[x_{i+1}],   u_i = W_fc [norm_e(e_i) | norm_h(h_i)]
///     out = norm(layer(u)),   logits_i = head(out_i) predicts x_{i+2}
///
/// h is the main model's hidden state after its final norm; embedding and head are the main
/// model's. The shift stops at the end of each document: its last token has no label. T counts the
/// rows that this rank holds where tensor ranks divide them.
template <class Storage>
class MultiTokenPrediction {
 public:
  using Real = Accum<Storage>;

  struct Saved {
    Tensor<int, 1> tokens;           // (all tokens)  x_{i+1}; 0 where there is none
    Tensor<int, 1> labels;           // (all tokens)  x_{i+2}; -1 where there is none
    Tensor<Real, 2> embedded;        // (T, D)
    Tensor<Real, 1> embedded_scale;  // (T)
    Tensor<Real, 1> hidden_scale;    // (T)
    Tensor<Storage, 2> joined;       // (T, 2D)
    Tensor<Real, 2> input;           // (T, D)   of the layer
    typename DecoderLayer<Storage>::Saved layer;
    Tensor<Real, 2> output;        // (T, D)   of the layer
    Tensor<Real, 1> output_scale;  // (T)
    Tensor<Storage, 2> normed;     // (T, D)   input of the head
  };
  struct Work {
    Tensor<Storage, 2> dnormed;  // (T, D)   gradient of Saved::normed, an input of backward
    Tensor<Real, 2> gradient;    // (T, D)
    Tensor<Storage, 2> part;     // (T, D)
    Tensor<Storage, 2> djoined;  // (T, 2D)
    Tensor<Storage, 2> low;      // (T, r)   of the adapter of W_fc; empty without
    typename RmsNorm<Storage>::Work norm;
    typename Embedding<Storage>::Work embedding;  // lent by the model
  };

  MultiTokenPrediction(const DecoderLayerConfig& config, double init_deviation,
                       const ProcessGrid& grid, ParameterTable& table);

  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// h (T, D) is the input of the main head; `labels` are the main model's, -1 for none; `behind`
  /// (S, 2) is that of Microbatch.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const int, 1>& tokens,
               const Tensor<const int, 1>& labels, const Tensor<const int, 2>& behind,
               const Embedding<Storage>& embedding, const Tensor<const Storage, 2>& h,
               const Dropout& dropout, Saved& saved, const Work& work,
               const typename DecoderLayer<Storage>::Work& layer_work) const;

  /// Decodes: the module behind what `state` holds of each document, for hidden states h (T, D) and
  /// `tokens`, each the one behind the token of h. Advances the state. For a further draft h is
  /// what saved.normed was.
  void step(const Exec& exec, const Documents& documents, const Tensor<const int, 1>& tokens,
            const Embedding<Storage>& embedding, const Tensor<const Storage, 2>& h,
            typename DecoderLayer<Storage>::State& state, Saved& saved, const Work& work,
            const typename DecoderLayer<Storage>::Work& layer_work) const;

  /// work.dnormed comes in as the gradient of saved.normed; adds to dh, to the embedding's gradient
  /// and to those of the module.
  void backward(const Exec& exec, const Documents& documents, const Embedding<Storage>& embedding,
                const Tensor<const Storage, 2>& h, const BalanceGradient<Real>* balance,
                const Dropout& dropout, const Saved& saved, const Tensor<Storage, 2>& dh,
                const Work& work, const typename DecoderLayer<Storage>::Work& layer_work) const;

  const DecoderLayer<Storage>& layer() const { return layer_; }

 private:
  /// saved.input from saved.embedded and h.
  void join(const Exec& exec, const Tensor<const Storage, 2>& h, const Saved& saved,
            const Work& work) const;

  int width_;
  ProcessGrid grid_;
  AdapterConfig adapters_;
  Linear<Storage> fc_;
  RmsNorm<Storage> embedding_norm_;
  RmsNorm<Storage> hidden_norm_;
  DecoderLayer<Storage> layer_;
  RmsNorm<Storage> norm_;
};

}  // namespace qnext
