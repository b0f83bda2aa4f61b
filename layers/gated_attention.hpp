// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/kernels/attention.hpp"
#include "layers/kernels/rotary.hpp"
#include "layers/linear.hpp"
#include "layers/ring_attention.hpp"
#include "layers/shared_rows.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

struct GatedAttentionConfig {
  int model_width = 0;
  int heads = 0;            // over all ranks
  int key_value_heads = 0;  // over all ranks; divides heads
  int head_width = 0;
  int rotary_width = 0;  // channels of a head that are rotated; even
  double rotary_base = 1e7;
  double norm_epsilon = 1e-6;
  double init_deviation = 0.02;
  bool gated = true;  // false: the projection of the query has no gate (Qwen3)
};

/// Attention with normed and partly rotated queries and keys, grouped heads and a gate on the
/// output:
///
///     [q_h | gate_h] = W_q x for every head h;   k, v = W_k x, W_v x
///     q, k = rotate(norm(q)), rotate(norm(k))      norm per head, zero-centred
///     y = W_o (attention(q, k, v) * sigmoid(gate))
///
/// Extents: T tokens of N documents in one row, D model width, H query heads, G key/value heads, W
/// the width of a head. Tensor ranks divide the query heads with the key/value heads that they
/// read, of which neighbours hold the same one where there are fewer than ranks: H and G count the
/// heads of this rank, x and y are its rows. Context ranks hold pieces of the sequences: T counts
/// the tokens of this one.
template <class Storage>
class GatedAttention {
 public:
  using Real = Accum<Storage>;

  /// What backward needs. Normed and rotated queries and keys are rebuilt from what the projections
  /// gave, which the adjoint of the norm needs anyway.
  struct Saved {
    Tensor<const Storage, 2> x;   // (rows, D)    the input itself, not a copy
    Tensor<Storage, 3> query;     // (T, H, 2 W)  [q | gate] of every head, or (T, H, W)
    Tensor<Storage, 3> key;       // (T, G, W)
    Tensor<Storage, 3> value;     // (T, G, W)
    Tensor<Storage, 3> attended;  // (T, H, W)    with the gate: input of the output projection
    Tensor<Real, 2> log_sum_exp;  // (T, H)       of the scores of a row
  };

  struct Work {
    SharedRows<Storage> rows;
    Tensor<Real, 2> rotation;      // (T, rotary)
    Tensor<Storage, 3> q;          // (T, H, W)  normed and rotated
    Tensor<Storage, 3> k;          // (T, G, W)
    Tensor<Storage, 3> dattended;  // (T, H, W)
    Tensor<Storage, 3> dquery;     // (T, H, 2 W) or (T, H, W)
    Tensor<Storage, 3> dkey;       // (T, G, W)
    Tensor<Storage, 3> dvalue;     // (T, G, W)
    Tensor<Real, 2> delta;         // (T, H)
    Tensor<Real, 2> partial;       // (blocks of tokens, W)  sums of the norms' gradients
    AttentionWork<Real> attention;
    typename RingAttention<Storage>::Work ring;
    Tensor<Storage, 2> low;  // (T, r)  of the adapters
  };

  /// Keys (normed and rotated) and values of all earlier tokens of every document, at their
  /// positions.
  struct State {
    Tensor<Storage, 4> keys;    // (N, capacity, G, W)
    Tensor<Storage, 4> values;  // (N, capacity, G, W)
  };

  GatedAttention(const GatedAttentionConfig& config, const ProcessGrid& grid, ParameterTable& table,
                 const std::string& prefix);

  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;
  State reserve_state(Arena& arena, int documents, int capacity) const;

  /// x, y (rows, D). With `initial`, document n goes on behind the position(begin(n)) tokens that
  /// `initial` holds of it. `final` gets the keys and values of these tokens at their positions and
  /// nothing else: for a document that goes on it is the memory of `initial`. Both are null with
  /// context ranks, which all call together.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& x,
               const State* initial, const Tensor<Storage, 2>& y, State* final, Saved& saved,
               const Work& work) const;

  /// Overwrites dx, adds to the gradients of the weights. Documents without initial state, so that
  /// `dfinal` and `dinitial` are null.
  void backward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& dy,
                const State* dfinal, const Saved& saved, const Tensor<Storage, 2>& dx,
                State* dinitial, const Work& work) const;

  /// Forward for one or more tokens of each document behind what `state` holds; adds them to it.
  void step(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& x,
            State& state, const Tensor<Storage, 2>& y, Saved& saved, const Work& work) const;

 private:
  HeadNorm<Storage> query_norm(const Saved& saved, const Work& work) const;
  HeadNorm<Storage> key_norm(const Saved& saved, const Work& work) const;
  void rotate(const Exec& exec, const Documents& documents, const Saved& saved,
              const Work& work) const;
  void attend(const Exec& exec, const Documents& documents, const State* initial,
              const Saved& saved, const Work& work) const;
  Tensor<const Storage, 3> gate_of(const Tensor<Storage, 3>& query) const;
  int query_width() const { return config_.gated ? 2 * config_.head_width : config_.head_width; }

  GatedAttentionConfig config_;
  ProcessGrid grid_;
  int H_;
  int G_;
  Linear<Storage> q_proj_;  // D -> H [q | gate]
  Linear<Storage> k_proj_;  // D -> G W
  Linear<Storage> v_proj_;  // D -> G W
  Linear<Storage> o_proj_;  // H W -> D, summed over tensor ranks
  Weight<Real, 1> q_norm_;  // (W)
  Weight<Real, 1> k_norm_;  // (W)
  RingAttention<Storage> ring_;
  AdapterConfig adapters_;
};

}  // namespace qnext
