// SPDX-License-Identifier: Apache-2.0
#include "layers/delta_net_pieces.hpp"

#include "parallel/shift.hpp"

namespace qnext {

template <class Storage>
Tensor<Accum<Storage>, 4> DeltaNetPieces<Storage>::reserve_transition(Arena& arena,
                                                                      int sequences) const {
  return arena.reserve<Real, 4>("transition", sequences, shape_.H, shape_.K, shape_.K);
}

template <class Storage>
typename DeltaNetPieces<Storage>::Work DeltaNetPieces<Storage>::reserve_work(Arena& arena,
                                                                             int sequences) const {
  Work work;
  if (alone()) {
    return work;
  }
  const auto tails = [&](const char* name) {
    return arena.reserve<Storage, 3>(name, sequences, taps_ - 1, channels_);
  };
  const auto memories = [&](const char* name) {
    return arena.reserve<Real, 4>(name, sequences, shape_.H, shape_.K, shape_.V);
  };
  work.tails = tails("leaving_tails");
  work.arrived_tails = tails("returned_tails");
  work.memory = memories("leaving_memories");
  work.arrived = memories("returned_memories");
  return work;
}

template <class Storage>
void DeltaNetPieces<Storage>::find_tails(const Exec& exec, const Documents& documents,
                                         const CausalConv<Storage>& conv,
                                         const Tensor<const Storage, 2>& qkvz,
                                         const Tensor<Storage, 3>& initial,
                                         const Work& work) const {
  Kokkos::deep_copy(exec, work.tails, Storage(0.0f));
  Kokkos::deep_copy(exec, initial, Storage(0.0f));
  conv.tails(exec, documents, qkvz, work.tails);
  shift_right(group_, work.tails, initial);
}

template <class Storage>
void DeltaNetPieces<Storage>::find_memories(const Exec& exec, const Documents& documents,
                                            const DeltaRuleInput<Storage>& in,
                                            const Tensor<Real, 4>& transition,
                                            const Tensor<Real, 4>& initial, const Work& work,
                                            const DeltaRuleWork<Real>& rule) const {
  delta_rule_piece<Storage>(exec, documents, shape_.chunk, in, {transition, work.memory}, rule);
  Kokkos::deep_copy(exec, initial, Real(0));
  if (group_.rank() > 0) {
    group_.receive(initial, group_.rank() - 1);
    delta_rule_pass<Real>(exec, transition, false, initial, work.memory);
  }
  if (group_.rank() + 1 < ranks_) {
    group_.send(work.memory, group_.rank() + 1);
  }
}

template <class Storage>
void DeltaNetPieces<Storage>::find_memory_gradients(const Exec& exec, const Documents& documents,
                                                    const DeltaRuleInput<Storage>& in,
                                                    const Tensor<const Storage, 3>& dout,
                                                    const Tensor<const Real, 4>& transition,
                                                    const Work& work,
                                                    const DeltaRuleWork<Real>& rule) const {
  delta_rule_piece_adjoint<Storage>(exec, documents, shape_.chunk, in, dout, work.memory, rule);
  Kokkos::deep_copy(exec, work.arrived, Real(0));
  if (group_.rank() + 1 < ranks_) {
    group_.receive(work.arrived, group_.rank() + 1);
    delta_rule_pass<Real>(exec, transition, true, work.arrived, work.memory);
  }
  if (group_.rank() > 0) {
    group_.send(work.memory, group_.rank() - 1);
  }
}

template <class Storage>
void DeltaNetPieces<Storage>::return_tails(const Exec& exec, const Documents& documents,
                                           const CausalConv<Storage>& conv,
                                           const Tensor<Storage, 2>& dqkvz,
                                           const Work& work) const {
  Kokkos::deep_copy(exec, work.arrived_tails, Storage(0.0f));
  shift_left(group_, work.tails, work.arrived_tails);
  conv.add_tail_gradient(exec, documents, work.arrived_tails, dqkvz);
}

template class DeltaNetPieces<bf16>;
template class DeltaNetPieces<float>;
template class DeltaNetPieces<double>;

}  // namespace qnext
