// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/types.hpp"
#include "layers/dense_mlp.hpp"
#include "layers/gated_attention.hpp"
#include "layers/gated_delta_net.hpp"
#include "layers/mixture_of_experts.hpp"
#include "layers/residual.hpp"
#include "layers/rms_norm.hpp"
#include "parallel/process_grid.hpp"

#include <memory>
#include <string>

namespace qnext {

enum class Mixer { delta_net, attention };
enum class Mlp { experts, dense };

/// The shapes that all layers of a model share; a layer takes what its kind needs.
struct DecoderLayerConfig {
  int width = 0;
  double norm_epsilon = 1e-6;
  GatedDeltaNetConfig delta_net;
  GatedAttentionConfig attention;
  MixtureOfExpertsConfig experts;
  DenseMlpConfig dense;
};

/// One block of the trunk:
///
///     mid = x + mixer(norm(x)),   y = mid + mlp(norm(mid))
///
/// with a Gated DeltaNet or gated attention as mixer, experts or a dense MLP behind it. x, mid, y
/// and their gradients are held in Accum<Storage>, branches in Storage. T counts the rows that this
/// rank holds where tensor ranks divide them; the documents are those of all tokens.
template <class Storage>
class DecoderLayer {
 public:
  using Real = Accum<Storage>;

  /// What backward of the mixer half needs, the input x itself aside.
  struct MixerSaved {
    Tensor<Real, 1> scale;      // (T)     of the norm
    Tensor<Storage, 2> normed;  // (T, D)
    typename GatedDeltaNet<Storage>::Saved delta_net;
    typename GatedAttention<Storage>::Saved attention;
  };
  /// The same of the MLP half.
  struct MlpSaved {
    Tensor<Real, 1> scale;      // (T)
    Tensor<Storage, 2> normed;  // (T, D)
    typename MixtureOfExperts<Storage>::Saved experts;
    typename DenseMlp<Storage>::Saved dense;
  };
  struct Saved {
    MixerSaved mixer;
    Tensor<Real, 2> mid;  // (T, D)
    MlpSaved mlp;
  };
  struct Work {
    Tensor<Storage, 2> branch;   // (T, D)
    Tensor<Storage, 2> dbranch;  // (T, D)
    typename RmsNorm<Storage>::Work norm;
    typename GatedDeltaNet<Storage>::Work delta_net;
    typename GatedAttention<Storage>::Work attention;
    typename MixtureOfExperts<Storage>::Work experts;
    typename DenseMlp<Storage>::Work dense;
  };
  struct State {
    typename GatedDeltaNet<Storage>::State delta_net;
    typename GatedAttention<Storage>::State attention;
  };

  DecoderLayer(const DecoderLayerConfig& config, Mixer mixer, Mlp mlp, const ProcessGrid& grid,
               ParameterTable& table, const std::string& prefix);

  Mixer mixer() const { return delta_net_ ? Mixer::delta_net : Mixer::attention; }
  Mlp mlp() const { return experts_ ? Mlp::experts : Mlp::dense; }

  MixerSaved reserve_mixer(Arena& arena, const MicrobatchShape& shape) const;
  MlpSaved reserve_mlp(Arena& arena, const MicrobatchShape& shape) const;
  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// Room for `documents` documents of at most `capacity` tokens, and for so many kept states of
  /// the delta net of each.
  State reserve_state(Arena& arena, int documents, int capacity, int kept = 1) const;

  /// Every document starts from nothing.
  static void clear(const Exec& exec, const State& state);

  /// x, y (T, D). `initial` and `final` may be null.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const Real, 2>& x,
               const State* initial, const Tensor<Real, 2>& y, State* final, const Dropout& dropout,
               Saved& saved, const Work& work) const;

  /// Fills `saved.mixer` once more, with the same bits.
  void recompute_mixer(const Exec& exec, const Documents& documents, const Tensor<const Real, 2>& x,
                       MixerSaved& saved, const Work& work) const;

  /// gradient (T, D) comes in as that of y and leaves as that of x. `balance` is what the balance
  /// loss adds to the router's gradient, if the layer has experts.
  void backward(const Exec& exec, const Documents& documents, const Tensor<const Real, 2>& x,
                const Tensor<Real, 2>& gradient, const BalanceGradient<Real>* balance,
                const Dropout& dropout, const Saved& saved, const Work& work) const;

  /// Forward for few tokens of each document behind what `state` holds; advances the state. A rank
  /// without documents only serves the others of its expert group.
  void step(const Exec& exec, const Documents& documents, const Tensor<const Real, 2>& x,
            const Tensor<Real, 2>& y, State& state, Saved& saved, const Work& work,
            Keep keep = Keep::last) const;

 private:
  /// Tokens of this rank, in all sequences.
  int rows_of(const MicrobatchShape& shape) const;
  void mixer_forward(const Exec& exec, const Documents& documents, const Tensor<const Real, 2>& x,
                     const State* initial, State* final, MixerSaved& saved, const Work& work) const;

  int width_;
  ProcessGrid grid_;
  RmsNorm<Storage> input_norm_;
  std::unique_ptr<GatedDeltaNet<Storage>> delta_net_;
  std::unique_ptr<GatedAttention<Storage>> attention_;
  RmsNorm<Storage> post_attention_norm_;
  std::unique_ptr<MixtureOfExperts<Storage>> experts_;
  std::unique_ptr<DenseMlp<Storage>> dense_;
};

}  // namespace qnext
