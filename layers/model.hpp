// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/context_share.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/balance_loss.hpp"
#include "layers/chunk.hpp"
#include "layers/decoder_layer.hpp"
#include "layers/embedding.hpp"
#include "layers/head_loss.hpp"
#include "layers/multi_token_prediction.hpp"
#include "layers/rms_norm.hpp"
#include "parallel/process_grid.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace qnext {

/// Which activations of the forward pass are computed again in the backward pass instead of kept:
/// nothing, what the mixers keep, or everything but the input of each layer. All give the same
/// bits.
enum class Recompute { none, mixer, block };

struct ModelConfig {
  int vocabulary = 0;
  int width = 0;
  std::vector<Mixer> mixers;  // one for each layer
  std::vector<Mlp> mlps;      // one for each layer
  DecoderLayerConfig layer;
  bool tied_head = false;
  double norm_epsilon = 1e-6;
  double init_deviation = 0.02;
  int mtp_modules = 0;  // 0 or 1
  BalanceLossConfig balance;
  Recompute recompute = Recompute::none;
  AdapterConfig adapters;  // with some, they alone are trained

  int layers() const { return static_cast<int>(mixers.size()); }
};

/// What one forward and backward pass takes from the data. Context ranks take a piece of each of
/// its S sequences.
struct Microbatch {
  Tensor<const int, 1> tokens;  // (T)  in [0, vocabulary)
  Tensor<const int, 1> labels;  // (T)  the token to predict, -1: none
  Documents documents;
  // (S, 2)  token and label behind the piece of each sequence, of its document if that goes on;
  // empty where sequences are whole.
  Tensor<const int, 2> behind = {};
  std::shared_ptr<const ContextRing> ring = {};  // that of the documents
};

/// The factors of the parts of the loss of one microbatch, so that their sum over all microbatches
/// of a step is the loss of the step.
struct LossScale {
  double cross_entropy = 0.0;  // 1 / labels of the step
  double mtp = 0.0;            // MTP coefficient / MTP labels of the step
  double balance = 0.0;  // 1 / microbatches of the step; the coefficient is in BalanceLossConfig
};

/// Sums over the tokens of one or more microbatches; on the device.
struct LossSums {
  Tensor<double, 0> cross_entropy;
  Tensor<double, 0> mtp;
  Tensor<double, 0> balance;   // of the chosen form, without coefficient, summed over microbatches
  Tensor<double, 0> router_z;  // mean squared log-sum-exp of the router, summed over microbatches

  static LossSums make();
  void clear(const Exec& exec) const;
};

/// Called between layers with the number of a row of the parameter table.
using AtRow = std::function<void(std::size_t row)>;

/// Qwen3-Next: embedding, decoder layers, final norm, head, and a module for multi-token
/// prediction.
///
/// T tokens, D width, V vocabulary. Parameters carry the names of the released checkpoint, experts
/// those of transformers' memory form ("...mlp.experts.gate_up_proj").
template <class Storage>
class Model {
 public:
  using Real = Accum<Storage>;
  using Layer = DecoderLayer<Storage>;

  /// One microbatch in flight in one chunk. T counts the rows of this rank where tensor ranks
  /// divide them.
  struct Saved {
    Chunk chunk;
    std::vector<Tensor<Real, 2>> hidden;  // (layers + 1) x (T, D): the input of each layer of the
                                          // chunk, the output of the last
    std::vector<typename Layer::Saved> layers;  // of the chunk; memory shared as the recompute
                                                // policy allows
    Tensor<Real, 1> scale;                      // (T) of the final norm
    Tensor<Storage, 2> normed;                  // (T, D) input of the head
    typename MultiTokenPrediction<Storage>::Saved mtp;
    typename BalanceLoss<Real>::Saved balance;
  };
  struct Work {
    Tensor<Storage, 2> dnormed;  // (T, D)  of the input of the head
    Tensor<Real, 2> gradient;    // (T, D)  of the residual stream
    Tensor<Real, 2> recomputed;  // (T, D)  output of a layer that is computed again
    typename RmsNorm<Storage>::Work norm;
    typename HeadLoss<Storage>::Work head;
    std::vector<typename Layer::Work> layers;  // all in the same memory
    typename MultiTokenPrediction<Storage>::Work mtp;
    typename Layer::Work mtp_layer;
    typename Embedding<Storage>::Work embedding;
  };
  /// What documents carry from one piece to the next.
  struct State {
    std::vector<typename Layer::State> layers;  // of the whole model; empty where others have them
    typename Layer::State mtp;
  };
  /// What the MTP module needs to draft.
  struct Draft {
    typename MultiTokenPrediction<Storage>::Saved saved;
    typename MultiTokenPrediction<Storage>::Work work;
    typename Layer::Work layer;
    typename HeadLoss<Storage>::Work head;
  };

  /// Registers every weight in `table`; call table.lay_out() before anything is computed. Tensor
  /// ranks take the same microbatch and know all of its losses; the gradients of what they hold
  /// alike are still to be summed (parallel/replica_sum.hpp). Context ranks take pieces of the same
  /// sequences; each knows the cross entropies of its own tokens and the balance losses of all, and
  /// gradients are still to be summed as those of data ranks are.
  ///
  /// With `chunks` the model has these alone, in their order: a stage of a pipeline. Forward and
  /// backward are then those of the chunk whose activations they are given. The embedding is on the
  /// last stage too where the head is tied to it or the MTP module wants it, and gathers another
  /// part of its gradient there.
  Model(const ModelConfig& config, const ProcessGrid& grid, ParameterTable& table,
        std::vector<Chunk> chunks = {});

  const ModelConfig& config() const { return config_; }
  const std::vector<Chunk>& chunks() const { return chunks_; }

  /// The rows of the table that a backward pass adds to, piece after piece, of each chunk: between
  /// the calls of `adds_before`.
  std::vector<std::vector<std::vector<std::size_t>>> backward_pieces() const;

  /// Arithmetic on the arena alone: on a measuring arena, the plan of the memory. `chunk` counts
  /// those of this model.
  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape, int chunk = 0) const;
  /// The two halves of it: what is kept until backward, and what the recompute policy computes
  /// again, whose memory microbatches in flight may share.
  Saved reserve_kept(Arena& arena, const MicrobatchShape& shape, int chunk) const;
  void reserve_recomputed(Arena& arena, const MicrobatchShape& shape, Saved& saved) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;
  /// For so many documents of at most `capacity` tokens, and so many kept states of each.
  State reserve_state(Arena& arena, int documents, int capacity, int kept = 1) const;
  Draft reserve_draft(Arena& arena, const MicrobatchShape& shape) const;
  void clear(const Exec& exec, const State& state) const;

  /// Trunk and, where there is one, the MTP module. `initial` and `final` may be null; with them
  /// the documents go on where `initial` ends (prefill in chunks). A chunk that is not the first
  /// one takes saved.hidden.front(), and where the balance loss couples layers saved.balance.
  /// constant, from the chunk in front of it, and leaves saved.hidden.back() to the next one.
  /// `reads_to` is called before weights are read, of rows in front of the one that it is told.
  void forward(const Exec& exec, const Microbatch& batch, const Dropout& dropout, Saved& saved,
               const Work& work, const State* initial = nullptr, State* final = nullptr,
               const AtRow& reads_to = {}) const;

  /// Adds the losses of a forward pass to `sums`, nothing else. Of the last chunk.
  void evaluate(const Exec& exec, const Microbatch& batch, Saved& saved, const Work& work,
                const LossSums& sums) const;

  /// Adds the losses to `sums` and the gradients, times `scale`, to the table. In work.gradient
  /// comes the gradient of the chunk's output, if it is not the last one, and leaves that of its
  /// input; where the balance loss couples layers, saved.balance.constant comes from the last one.
  /// Losses of balance are added the last layer first. `adds_before` is called when no gradient of
  /// this chunk will be added to any more but those of rows in front of the one that it is told.
  void backward(const Exec& exec, const Microbatch& batch, const LossScale& scale,
                const Dropout& dropout, Saved& saved, const Work& work, const LossSums& sums,
                const AtRow& adds_before = {}) const;

  /// Decodes: the next tokens of each document, few of them, go through a chunk of the trunk behind
  /// `state`, which they advance; behind the last chunk saved.normed holds the input of the head.
  /// What a document gets does not depend on those beside it. Context ranks decode documents of
  /// their own, each as a rank without them.
  void step(const Exec& exec, const Microbatch& batch, State& state, Saved& saved, const Work& work,
            Keep keep = Keep::last) const;

  /// Drafts: the MTP module goes over `batch`, each token the one behind the token whose hidden
  /// state is in h (rows, D), and leaves the input of the head in draft.saved.normed.
  void draft(const Exec& exec, const Microbatch& batch, const Tensor<const Storage, 2>& h,
             State& state, Draft& draft) const;

  const HeadLoss<Storage>& head() const { return *head_; }

  /// logits (rows, V) of the given rows of saved.normed or of the MTP module's output; with tensor
  /// ranks, for the part of the vocabulary that this rank knows. `low` (rows, r) is memory for the
  /// head's adapter, if it has one.
  void logits(const Exec& exec, const Tensor<const Storage, 2>& normed,
              const Tensor<Real, 2>& logits, const Tensor<Storage, 2>& low = {}) const;

  /// Of a microbatch, on this rank.
  int rows(const MicrobatchShape& shape) const { return split_of(shape).rows(); }

  const Layer& layer(int i) const { return *layers_[i]; }
  const MultiTokenPrediction<Storage>* mtp() const { return mtp_.get(); }
  const BalanceLoss<Real>& balance_loss() const { return balance_; }

 private:
  void head_backward(const Exec& exec, const Microbatch& batch, const LossScale& scale,
                     const Dropout& dropout, Saved& saved, const Work& work,
                     const LossSums& sums) const;
  void layer_backward(const Exec& exec, const Documents& documents, const LossScale& scale,
                      const Dropout& dropout, int layer, Saved& saved, const Work& work) const;

  /// Where the router of a layer stands among those that are balanced, or -1; the MTP module's
  /// layer comes after the last.
  int balance_index(int layer) const;
  std::optional<BalanceGradient<Real>> balance_gradient(const Saved& saved, int layer,
                                                        double scale) const;

  /// How the tensor ranks divide the rows of a microbatch.
  RowSplit split_of(const MicrobatchShape& shape) const {
    return RowSplit(grid_, shape.tokens, shape.sequences);
  }
  Dropout on_rows(const Dropout& dropout, const Microbatch& batch) const;

  /// Those of a chunk: the first one, that of each of its layers, the one behind its layers, and
  /// the one behind the chunk.
  using Rows = std::vector<std::size_t>;
  const Rows& rows_of(const Chunk& chunk) const;

  ModelConfig config_;
  ProcessGrid grid_;
  std::vector<Chunk> chunks_;
  std::vector<Rows> rows_;                         // (chunks)
  std::unique_ptr<Embedding<Storage>> embedding_;  // null where this rank has no such part
  std::vector<std::unique_ptr<Layer>> layers_;     // of the whole model
  std::unique_ptr<RmsNorm<Storage>> norm_;
  std::unique_ptr<HeadLoss<Storage>> head_;
  std::unique_ptr<MultiTokenPrediction<Storage>> mtp_;
  BalanceLoss<Real> balance_;
};

}  // namespace qnext
