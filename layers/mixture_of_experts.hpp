// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/balance_loss.hpp"
#include "layers/capacity_over_ranks.hpp"
#include "layers/dense_mlp.hpp"
#include "layers/expert_projection.hpp"
#include "layers/experts_over_ranks.hpp"
#include "layers/kernels/capacity.hpp"
#include "layers/kernels/experts_dispatch.hpp"
#include "layers/kernels/router.hpp"
#include "layers/linear.hpp"
#include "parallel/process_grid.hpp"

#include <memory>
#include <string>

namespace qnext {

struct MixtureOfExpertsConfig {
  int model_width = 0;        // D
  int experts = 0;            // E
  int experts_per_token = 0;  // K
  bool renormalise = true;    // weights of a token sum to 1
  int expert_width = 0;       // F
  int shared_width = 0;       // G; 0: no shared expert
  Capacity capacity = {};
  double receive_factor = 2.0;  // rows that an expert rank takes in a round, of T K when balanced
  double init_deviation = 0.02;
};

/// The sparse MLP of Qwen3-Next:
///
///     p = softmax(W_r x),   w = the K largest p, divided by their sum if `renormalise`
///     y = sum_k w_k expert_k(x) + sigmoid(x . s) shared(x)
///     expert(x) = W_down (silu(W_gate x) W_up x)
///
/// T tokens in S sequences, D model width, E experts of width F, K for each token, G width of the
/// shared expert. Router, weights and sums over k in Accum<Storage>. The weight is multiplied into
/// the row before W_down, so that its gradient is a sum over F. With an expert degree N a rank
/// holds E / N consecutive experts and all ranks of the grid's expert group call together. Tensor
/// ranks route and compute their own rows, which T counts then, with all experts; they divide the
/// shared expert by its columns.
template <class Storage>
class MixtureOfExperts {
 public:
  using Real = Accum<Storage>;

  /// 2 K F + 2 G elements, E + K + 2 Reals and 2 K ints a token.
  struct Saved {
    Tensor<const Storage, 2> x;  // (T, D)  the caller's, who keeps it until backward
    Routing<Real> routing;       // what `compare` reads
    ExpertRows rows;             // T K - offset(E) choices were dropped
    Tensor<Storage, 2> gate_up;  // (T K, 2F)  empty with an expert degree, as `over_ranks` without
    typename ExpertsOverRanks<Storage>::Saved over_ranks;
    Tensor<Real, 1> shared_factor;  // (T)  sigmoid(x . s)
    typename DenseMlp<Storage>::Saved shared;
    RoutingStatistics<Real> statistics;  // for the balance losses; load of the experts
  };

  /// K D + 3 K F + 3 G elements, E + K + 1 Reals a token; D Reals more for bf16, K r
  /// elements for adapters of experts, r for each other one.
  struct Work {
    Tensor<Storage, 2> rows;      // (T K, D)
    Tensor<Storage, 2> hidden;    // (T K, F)   empty with an expert degree
    Tensor<Storage, 2> dgate_up;  // (T K, 2F)  empty with an expert degree
    Tensor<Storage, 2> low;       // (T K, r)   of adapters; empty with an expert degree
    Tensor<Real, 2> router_low;   // (T, r)     of the router's adapter, as the two below of that of
                                  //            the shared expert's gate
    Tensor<Storage, 2> gate_low;  // (T, r)
    Tensor<Storage, 2> dgate;     // (T, 1)     dshared_factor as an adapter takes it
    typename ExpertsOverRanks<Storage>::Work over_ranks;
    Tensor<Real, 2> dlogits;         // (T, E)
    Tensor<Real, 2> dweights;        // (T, K)
    Tensor<Real, 1> dshared_factor;  // (T)
    Tensor<Real, 2> widened;         // (T, D) x, then the router's dx; empty unless bf16
    Tensor<Real, 2> partial;         // (blocks, D)  sums of the gradient of s
    Tensor<Real, 2> decoded;         // (few tokens, K F + G)  hidden numbers of step
    DispatchWork<Real> dispatch;
    typename CapacityOverRanks<Real>::Work capacity;
    typename DenseMlp<Storage>::Work shared;
  };

  /// Registers prefix + ".gate.weight" (E, D), ".experts.gate_up_proj" (E, 2F, D) and
  /// ".experts.down_proj" (E, D, F), of which this rank holds its experts, and, with a shared
  /// expert, ".shared_expert.*" and ".shared_expert_gate.weight" (1, D).
  MixtureOfExperts(const MixtureOfExpertsConfig& config, const ProcessGrid& grid,
                   ParameterTable& table, const std::string& prefix);

  const MixtureOfExpertsConfig& config() const { return config_; }

  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// x, y (T, D), not the same memory. The `sequences` of the documents are equally long; nothing
  /// else of the documents matters.
  void forward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& x,
               const Tensor<Storage, 2>& y, Saved& saved, const Work& work) const;

  /// dy, dx (T, D), not the same memory. `balance` is what the balance losses add, or null.
  void backward(const Exec& exec, const Documents& documents, const Tensor<const Storage, 2>& dy,
                const Saved& saved, const BalanceGradient<Real>* balance,
                const Tensor<Storage, 2>& dx, const Work& work) const;

  /// Forward for decoding: never drops, and reads the weights of the chosen experts where they lie.
  /// What a token gets does not depend on the tokens beside it. Of `saved` it leaves the routing.
  void step(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& y,
            Saved& saved, const Work& work) const;

 private:
  /// Tokens of this rank, in all sequences.
  int rows_of(const MicrobatchShape& shape) const;
  int received_rows(const MicrobatchShape& shape) const;
  Tensor<const Real, 2> widen(const Exec& exec, const Tensor<const Storage, 2>& x,
                              const Work& work) const;
  void route_tokens(const Exec& exec, const Tensor<const Storage, 2>& x, const Saved& saved,
                    const Work& work) const;
  void compute(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& y,
               Saved& saved, const Work& work) const;
  void shared_forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                      const Tensor<Storage, 2>& y, Saved& saved, const Work& work) const;
  void experts_forward(const Exec& exec, const Tensor<const Storage, 2>& x, Saved& saved,
                       const Work& work) const;
  void experts_backward(const Exec& exec, const Tensor<const Storage, 2>& dy, const Saved& saved,
                        const Work& work) const;
  /// Adds the part of the gate's adapter to dx.
  void shared_gate_backward(const Exec& exec, const Saved& saved, const Tensor<Storage, 2>& dx,
                            const Work& work) const;
  bool routed_have_adapters() const { return gate_up_.has_adapter() || down_.has_adapter(); }
  bool gate_has_adapter() const { return shared_gate_ && shared_gate_->has_adapter(); }

  MixtureOfExpertsConfig config_;
  ProcessGrid grid_;
  AdapterConfig adapters_;
  CapacityOverRanks<Real> capacity_;
  Linear<Real> router_;                                    // (E, D)
  ExpertProjection<Storage> gate_up_;                      // (E / N, 2F, D)
  ExpertProjection<Storage> down_;                         // (E / N, D, F)
  std::unique_ptr<ExpertsOverRanks<Storage>> over_ranks_;  // null: this rank holds all experts
  std::unique_ptr<DenseMlp<Storage>> shared_;
  std::unique_ptr<Linear<Storage>> shared_gate_;  // (1, D)
};

}  // namespace qnext
