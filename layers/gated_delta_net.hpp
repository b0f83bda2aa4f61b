// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/causal_conv.hpp"
#include "layers/delta_net_pieces.hpp"
#include "layers/gated_rms_norm.hpp"
#include "layers/kernels/delta_gates.hpp"
#include "layers/kernels/delta_rule.hpp"
#include "layers/linear.hpp"
#include "layers/shared_rows.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

struct GatedDeltaNetConfig {
  int model_width = 0;
  int key_heads = 0;    // over all ranks
  int value_heads = 0;  // over all ranks; a multiple of key_heads
  int key_width = 0;
  int value_width = 0;
  int conv_taps = 4;
  int chunk = 64;  // tokens solved as one dense block
  double norm_epsilon = 1e-6;
  double init_deviation = 0.02;
};

/// Gated DeltaNet mixer: attention whose whole past is one K x V matrix per head.
///
///     q, k, v = silu(conv(W_qkv x)), q and k then L2-normalised per head, q / sqrt(K)
///     z = W_z x;   beta = sigmoid(W_b x)
///     log_decay = -exp(A_log) softplus(W_a x + dt_bias)
///     y = W_o (rms_norm(delta_rule(q, k, v, log_decay, beta)) * silu(z))
///
/// Extents: T tokens of N documents in one row, D model width, G key heads, H value heads, K and V
/// their widths, R = H / G. Tensor ranks divide the key heads with their value heads: G and H count
/// those of this rank, x and y are its rows; D is always whole. Context ranks hold pieces of the S
/// sequences: T counts the tokens of this one.
template <class Storage>
class GatedDeltaNet {
 public:
  using Real = Accum<Storage>;

  /// What a document carries from one piece of it to the next: in decoding, in chunked prefill and
  /// from rank to rank under context parallelism, where it has S rows. Its size does not grow with
  /// the context.
  struct State {
    Tensor<Storage, 3> conv_tail;  // (N, taps - 1, 2GK+HV)  last inputs of the convolution
    Tensor<Real, 4> memory;        // (N, H, K, V)
  };

  /// What backward needs and cannot cheaply rebuild: the convolution is computed again, and so are
  /// the memories at the chunk borders, which at 4096 tokens and 32 heads of 128 x 128 would take
  /// 134 MB a sequence.
  struct Saved {
    Tensor<const Storage, 2> x;  // (rows, D)            the input itself, not a copy
    State initial;               // what forward began with, not a copy; empty without. With context
                                 // ranks: what the left neighbour left
    Tensor<Real, 4> transition;  // (S, H, K, K)        of the piece; empty without context ranks
    Tensor<Storage, 2> qkvz;     // (T, G(2K+2RV))       grouped by key head: q k v z
    Tensor<Real, 2> log_decay;   // (T, H)
    Tensor<Real, 2> beta;        // (T, H)
    Tensor<Storage, 3> read;     // (T, H, V)            what the delta rule returned
  };

  /// Temporaries of one call. In backward dq, dk and dv replace q, k and v.
  struct Work {
    SharedRows<Storage> rows;
    QueryKeyValue<Storage> convolved;
    Tensor<Real, 2> ba;          // (T, 2H)
    Tensor<Storage, 2> normed;   // (T, HV)
    Tensor<Storage, 2> dnormed;  // (T, HV)           then the gradient of read
    Tensor<Storage, 2> dqkvz;    // (T, G(2K+2RV))
    Tensor<Storage, 2> dba;      // (T, 2H)
    Tensor<Real, 2> dlog_decay;  // (T, H)
    Tensor<Real, 2> dbeta;       // (T, H)
    typename CausalConv<Storage>::Work conv;
    typename GatedRmsNorm<Storage>::Work norm;
    DeltaGatesWork<Real> gates;
    DeltaRuleWork<Real> rule;
    typename DeltaNetPieces<Storage>::Work pieces;
    Tensor<Storage, 2> low;  // (T, r)            of the adapters
  };

  GatedDeltaNet(const GatedDeltaNetConfig& config, const ProcessGrid& grid, ParameterTable& table,
                const std::string& prefix);

  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;
  State reserve_state(Arena& arena, int documents) const;

  /// `initial` may be null (every document starts from nothing), `final` may be null. `final` may
  /// be `initial` where nothing is differentiated. Both are null with context ranks, which all call
  /// together.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& x,
               const State* initial, const Tensor<Storage, 2>& y, State* final, Saved& saved,
               const Work& work) const;

  /// Overwrites dx and `dinitial`; adds to the parameter gradients. `dfinal` is what comes back
  /// from the next piece, or null.
  void backward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& dy,
                const State* dfinal, const Saved& saved, const Tensor<Storage, 2>& dx,
                State* dinitial, const Work& work) const;

  /// Forward for the next tokens of each document, token by token, without anything to
  /// differentiate; advances `state` from the document's initial row to its final one. Where each
  /// state is kept, that behind token i goes to row final + i: rejected drafts cost no second run.
  /// `saved` only lends its memory.
  void step(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& x,
            State& state, const Tensor<Storage, 2>& y, Saved& saved, const Work& work,
            Keep keep = Keep::last) const;

 private:
  void project(const Exec& exec, const Tensor<const Storage, 2>& x, Saved& saved,
               const Work& work) const;
  void finish(const Exec& exec, const Saved& saved, const Tensor<Storage, 2>& y,
              const Work& work) const;

  GatedDeltaNetConfig config_;
  GroupedProjection layout_;  // of the heads of this rank
  ProcessGrid grid_;
  Linear<Storage> qkvz_proj_;        // D -> G(2K+2RV), rows as in the released file
  Linear<Storage> ba_proj_;          // D -> 2H, grouped by key head
  CausalConv<Storage> conv_;         // over 2GK+HV channels
  Weight<Real, 1> a_log_, dt_bias_;  // (H)
  GatedRmsNorm<Storage> norm_;       // over V
  Linear<Storage> out_proj_;         // HV -> D, summed over tensor ranks
  DeltaNetPieces<Storage> pieces_;   // of documents that lie on several context ranks
  AdapterConfig adapters_;
};

}  // namespace qnext
