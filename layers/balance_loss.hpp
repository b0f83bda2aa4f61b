// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"

#include <memory>
#include <vector>

namespace qnext {

/// Which balance loss is trained, and how much of it. The coefficients of the forms are not
/// interchangeable: near balance `megatron` pushes layers / K times as hard as the others.
struct BalanceLossConfig {
  enum class Form { none, huggingface, megatron, maxtext };
  /// Of the form megatron: what the counts are taken over. `global` takes those of the whole step
  /// before, because those of this step are not known in its first microbatch.
  enum class Scope { microbatch, sequence, global };

  Form form = Form::none;
  Scope scope = Scope::microbatch;
  double coefficient = 0.0;
  double router_z_loss = 0.0;  // coefficient
};

/// What the balance losses need from the router of one layer. S sequences, E experts.
template <class Real>
struct RoutingStatistics {
  Tensor<int, 2> count;         // (S, E)  tokens that chose the expert, before dropping
  Tensor<Real, 2> probability;  // (S, E)  sum over the tokens
  Tensor<Real, 1> square;       // (S)     sum over the tokens of (log sum_e exp(logit))^2

  static RoutingStatistics reserve(Arena& arena, int sequences, int experts);
};

/// The same of all layers, each kind in one piece of memory.
template <class Real>
struct RoutingOfLayers {
  Tensor<int, 3> count;         // (L, S, E)
  Tensor<Real, 3> probability;  // (L, S, E)
  Tensor<Real, 2> square;       // (L, S)

  static RoutingOfLayers reserve(Arena& arena, int layers, int sequences, int experts);
  std::vector<RoutingStatistics<Real>> layers() const;
};

/// What the balance losses add to the gradient of the logits l of one layer:
///
///     dl_te += kappa p_te (C_e - sum_j p_tj C_j) + zeta p_te log_sum_t
template <class Real>
struct BalanceGradient {
  Tensor<const Real, 2> constant;  // (1, E) or (S, E)  C, of the sequence of the token
  Real factor = 0;                 // kappa
  Real z_factor = 0;               // zeta
};

/// The load-balancing losses of all mixtures of experts of a model. With the shares f_e = tokens
/// that chose expert e / tokens and P_e = mean_t p_te, for L layers and K experts per token:
///
///     huggingface   E sum_e f_e P_e, over the tokens of all layers together     K when balanced
///     megatron      sum_layers E / K sum_e f_e P_e, mean over sequences if      1 a layer
///                   these are the scope
///     maxtext       mean over layers and sequences of E sum_e f_e P_e           K
///
/// Shares are constants: gradients go through P alone. Router z loss: sum over layers of
/// mean_t (log sum_e exp(logit_te))^2.
template <class Real>
class BalanceLoss {
 public:
  using Form = BalanceLossConfig::Form;
  using Scope = BalanceLossConfig::Scope;

  struct Saved {
    int first = 0;     // router, of those of the whole model
    int balanced = 0;  // L: routers with losses; behind them are those that are watched
    std::vector<RoutingStatistics<Real>> mine;        // filled by the layers' forward
    std::vector<RoutingStatistics<Real>> statistics;  // of all tokens; `mine` if alone
    RoutingOfLayers<Real> part, whole;                // their memory, if ranks share tokens
    Tensor<Real, 1> received;                         // for their sum
    Tensor<int, 1> received_counts;
    Tensor<Real, 3> constant;  // (L or 1, 1 or S, E)  C of each layer
    int tokens = 0;            // of the microbatch, on all ranks that share it
  };

  /// `watched` more layers have statistics and no loss. The counts of global scope have memory once
  /// the table is laid out.
  BalanceLoss(const BalanceLossConfig& config, int layers, int experts, int experts_per_token,
              ParameterTable& table, const ProcessGrid& grid = {}, int watched = 0);

  /// Neither a form nor the z loss: forward adds nothing and there are no gradients.
  bool empty() const { return config_.form == Form::none && config_.router_z_loss == 0.0; }

  /// For the routers of all layers, or for consecutive ones from `first` on.
  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const {
    return reserve_saved(arena, shape, 0, layers_ + watched_);
  }
  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape, int first, int routers) const;

  /// Whether the gradient of one layer depends on the counts of the others. Then `share_out` of
  /// consecutive layers adds to the shares C of those in front of them, in saved.constant, and the
  /// gradients want those of the last ones.
  bool couples_layers() const { return config_.form == Form::huggingface; }

  /// After the forward pass of the layers: the statistics of all tokens of the sequences from those
  /// of the rows of each tensor rank, then of the pieces of each context rank, in the order of the
  /// ranks, and the shares. `goes_on`: there are layers in front of them.
  void share_out(const Exec& exec, const Saved& saved, bool goes_on = false) const;

  /// After that: adds the losses of the layers, without coefficients, to `balance` and `router_z`,
  /// the last layer first. In training the counts join those of the step.
  void forward(const Exec& exec, const Saved& saved, bool training,
               const Tensor<double, 0>& balance, const Tensor<double, 0>& router_z) const;

  /// What the backward pass of layer l of these adds: d (scale (coefficient loss + z coefficient z
  /// loss)).
  BalanceGradient<Real> gradient(const Saved& saved, int layer, double scale) const;

  /// Global scope: the counts of the running step on this rank, to be summed over the ranks that
  /// share them before `end_step`; and of the step before, which belongs to the restart. Zero
  /// before the first step, whose microbatches take their own counts.
  const Tensor<double, 2>& step_counts() const { return counts_->step; }          // (L, E)
  const Tensor<double, 2>& previous_counts() const { return counts_->previous; }  // (L, E)
  void end_step(const Exec& exec) const;

 private:
  /// Of global scope; empty in all others.
  struct Counts {
    Tensor<double, 2> step, previous;  // (L, E)
  };

  bool counts_steps() const {
    return config_.form == Form::megatron && config_.scope == Scope::global;
  }
  /// This rank sees all tokens of its sequences.
  bool alone() const { return grid_.degrees.tensor * grid_.degrees.context == 1; }
  bool per_sequence() const {
    return config_.form == Form::maxtext ||
           (config_.form == Form::megatron && config_.scope == Scope::sequence);
  }
  double slope(int tokens) const;
  Tensor<Real, 2> constant(const Saved& saved, int layer) const;
  void sum_over_ranks(const Exec& exec, const Saved& saved) const;

  BalanceLossConfig config_;
  ProcessGrid grid_;
  int layers_;
  int watched_;
  int experts_;
  int experts_per_token_;
  std::shared_ptr<Counts> counts_;  // the table has it too, and makes their memory
};

}  // namespace qnext
