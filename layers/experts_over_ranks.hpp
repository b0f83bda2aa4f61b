// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/expert_projection.hpp"
#include "layers/kernels/experts_dispatch.hpp"
#include "layers/kernels/router.hpp"
#include "parallel/communicator.hpp"
#include "parallel/row_exchange.hpp"

namespace qnext {

/// The routed experts of one layer where the ranks of a group hold E / N of them each:
///
///     rows(place(t, k), :) = w_tk W_down (silu(W_gate x_t) W_up x_t),   expert selected(t, k)
///
/// The rows go to the ranks of their experts with their weights, in rounds of at most R rows, and
/// the results come back. Every number is computed as by one rank that holds all experts, and bit
/// for bit the same, except sums of weight gradients: see docs/parallel.md. All ranks of the group
/// make each call, in the same order. On a device the host waits for the counts, once in forward,
/// and where a message does for the kernels that fill it.
template <class Storage>
class ExpertsOverRanks {
 public:
  using Real = Accum<Storage>;

  /// What backward needs.
  struct Saved {
    RowExchange exchange;
    Tensor<Storage, 2> gate_up;  // (R, 2F)  of the first round; later ones are computed again
  };

  /// 2 R D + 3 R F elements, T K + 2 R Reals; R r elements of adapters.
  struct Work {
    Tensor<Storage, 2> received;      // (R, D)  rows that arrived, ordered by expert
    Tensor<Storage, 2> message;       // (R, D)  rows as they cross the network
    Tensor<Real, 2> received_weight;  // (R, 1)
    Tensor<Real, 2> message_weight;   // (R, 1)
    Tensor<Real, 2> dweight;          // (T K, 1)  by row
    Tensor<Storage, 2> hidden;        // (R, F)
    Tensor<Storage, 2> dgate_up;      // (R, 2F)
    Tensor<Storage, 2> low;           // (R, r)  of the adapters, or empty
    Tensor<int, 1> place;             // (R)  of what arrived, among the ordered rows
    Tensor<int, 1> offset;            // (E / N + 1)
    Tensor<int, 1> arrived, ordered;  // (E) both  pieces of RowExchange::Round
  };

  /// The experts that this rank holds.
  struct Weights {
    const ExpertProjection<Storage>& gate_up;  // (E / N, 2F, D)
    const ExpertProjection<Storage>& down;     // (E / N, D, F)
  };

  /// R is receive_factor times T K, the rows of a rank whose experts are chosen as often as the
  /// others. At least 1.
  ExpertsOverRanks(const Communicator& ranks, int degree, int experts, double receive_factor);

  /// R for a microbatch of T tokens with K choices each.
  int most_rows(int tokens, int per_token) const;

  Saved reserve_saved(Arena& arena, int rows, int expert_width) const;
  Work reserve_work(Arena& arena, const AdapterConfig& adapters, int choices, int rows,
                    int model_width, int expert_width) const;

  /// x (T, D), rows (T K, D).
  void forward(const Exec& exec, const Weights& weights, const Tensor<const Storage, 2>& x,
               const Routing<Real>& routing, const ExpertRows& choices, Saved& saved,
               const Work& work, const Tensor<Storage, 2>& rows) const;

  /// dy (T, D) comes in; rows (T K, D) leave as the gradient of the rows of x, dweights (T, K) as
  /// that of the weights. Adds to the gradients of the weights.
  void backward(const Exec& exec, const Weights& weights, const Tensor<const Storage, 2>& x,
                const Tensor<const Storage, 2>& dy, const Routing<Real>& routing,
                const ExpertRows& choices, const Saved& saved, const Work& work,
                const Tensor<Storage, 2>& rows, const Tensor<Real, 2>& dweights) const;

 private:
  class Round;

  Communicator ranks_;
  int degree_;
  int experts_;
  double receive_factor_;
};

}  // namespace qnext
