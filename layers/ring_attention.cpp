// SPDX-License-Identifier: Apache-2.0
#include "layers/ring_attention.hpp"

#include "core/require.hpp"
#include "parallel/shift.hpp"

#include <algorithm>

namespace qnext {
namespace {

// Keys, 0, or values, 1.
template <class View>
Tensor<typename View::value_type, 3> part_of(const View& both, int part) {
  const std::size_t tokens = both.extent(1), G = both.extent(2), W = both.extent(3);
  return Tensor<typename View::value_type, 3>(both.data() + part * tokens * G * W, tokens, G, W);
}

}  // namespace

template <class Storage>
typename RingAttention<Storage>::Work RingAttention<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& microbatch) const {
  Work work;
  if (alone()) {
    return work;
  }
  const auto [H, G, W] = shape_;
  const int T = microbatch.tokens, piece = T / microbatch.sequences;
  for (int i = 0; i < 2; ++i) {
    work.visitors[i] = arena.reserve<Storage, 4>("visiting_keys", 2, T, G, W);
    work.dvisitors[i] = arena.reserve<Real, 4>("visiting_gradients", 2, T, G, W);
  }
  work.out = arena.reserve<Real, 3>("ring_out", T, H, W);
  work.sum = arena.reserve<Real, 2>("ring_sum", T, H);
  work.lse = arena.reserve<Real, 2>("ring_lse", T, H);
  work.half = arena.reserve<Real, 1>(
      "swapped_half", HalfSwap::room(T, piece, std::int64_t{1} * std::max(H, 2 * G) * W));
  return work;
}

template <class Storage>
template <class View>
void RingAttention<Storage>::swap(const Exec& exec, const Documents& documents, const View& rows,
                                  const Work& work) const {
  using T = typename View::value_type;
  const int tokens = work.out.extent_int(0), piece = tokens / documents.sequences;
  const int kinds = View::rank == 4 ? 2 : 1;  // keys and values, or one tensor
  const std::size_t all = std::size_t{1} * kinds * tokens;
  HalfSwap(group_, piece)
      .swap<T>(exec, Tensor<T, 2>(rows.data(), all, rows.size() / all),
               Tensor<T, 1>(reinterpret_cast<T*>(work.half.data()),
                            work.half.size() * sizeof(Real) / sizeof(T)));
}

template <class Storage>
void RingAttention<Storage>::begin(const Exec& exec, const Documents& documents,
                                   const Tensor<Storage, 3>& q, const Tensor<const Storage, 3>& k,
                                   const Tensor<const Storage, 3>& v, const Work& work) const {
  require(documents.ring != nullptr, "attention: context ranks want documents that are shared out");
  attention_copy<Storage, Storage>(exec, k, part_of(work.visitors[0], 0));
  attention_copy<Storage, Storage>(exec, v, part_of(work.visitors[0], 1));
  swap(exec, documents, work.visitors[0], work);
  swap(exec, documents, q, work);
}

template <class Storage>
AttentionInput<Storage> RingAttention<Storage>::input(const Tensor<Storage, 3>& q,
                                                      const Tensor<Storage, 4>& visitors) const {
  return {q, part_of(visitors, 0), part_of(visitors, 1)};
}

// The last ones have been everywhere.
template <class Storage>
Transfer RingAttention<Storage>::start_next_visitors(int step, const Work& work) const {
  return step + 1 < ranks_
             ? start_rotation(group_, work.visitors[step % 2], work.visitors[(step + 1) % 2])
             : Transfer{};
}

template <class Storage>
void RingAttention<Storage>::forward(const Exec& exec, const Documents& documents,
                                     const Tensor<Storage, 3>& q, const Tensor<const Storage, 3>& k,
                                     const Tensor<const Storage, 3>& v,
                                     const Tensor<const Storage, 3>& projected,
                                     const Tensor<Storage, 3>& out, const Tensor<Real, 2>& lse,
                                     const Work& work, const AttentionWork<Real>& attention) const {
  const AttentionCarry<Real> carry{work.out, lse, work.sum};
  begin(exec, documents, q, k, v, work);
  attention_ring_begin(exec, carry);
  for (int step = 0; step < ranks_; ++step) {
    Transfer coming = start_next_visitors(step, work);
    for (const RunPairs& pairs : documents.ring->pairs(step)) {
      attention_ring_visit<Storage>(exec, pairs, AttentionTiles::usual(),
                                    input(q, work.visitors[step % 2]), carry, attention);
    }
    coming.wait();
  }
  attention_ring_end(exec, carry);
  swap(exec, documents, work.out, work);
  swap(exec, documents, lse, work);
  attention_gate<Storage>(exec, work.out, projected, out);
}

template <class Storage>
void RingAttention<Storage>::backward(
    const Exec& exec, const Documents& documents, const Tensor<Storage, 3>& q,
    const Tensor<const Storage, 3>& k, const Tensor<const Storage, 3>& v,
    const Tensor<Storage, 3>& dout, const Tensor<const Real, 2>& lse, const Tensor<Real, 2>& delta,
    const AttentionGradient<Storage>& gradient, const Work& work,
    const AttentionWork<Real>& attention) const {
  begin(exec, documents, q, k, v, work);
  Kokkos::deep_copy(exec, work.lse, lse);
  swap(exec, documents, work.lse, work);
  swap(exec, documents, delta, work);
  swap(exec, documents, dout, work);
  Kokkos::deep_copy(exec, work.out, Real(0));
  Kokkos::deep_copy(exec, work.dvisitors[0], Real(0));
  const AttentionRingRows<Storage> rows{dout, work.lse, delta};
  Transfer dcoming;
  for (int step = 0; step < ranks_; ++step) {
    const auto in = input(q, work.visitors[step % 2]);
    const auto& dhere = work.dvisitors[step % 2];
    const auto& pairs_of_step = documents.ring->pairs(step);
    Transfer coming = start_next_visitors(step, work);
    for (const RunPairs& pairs : pairs_of_step) {
      attention_ring_query_gradient<Storage>(exec, pairs, AttentionTiles::usual(), in, rows,
                                             work.out, attention);
    }
    dcoming.wait();
    for (const RunPairs& pairs : pairs_of_step) {
      attention_ring_key_gradient<Storage>(exec, pairs, AttentionTiles::usual(), in, rows,
                                           part_of(dhere, 0), part_of(dhere, 1), attention);
    }
    dcoming = start_rotation(group_, dhere, work.dvisitors[(step + 1) % 2]);  // at last: home
    coming.wait();
  }
  dcoming.wait();
  const auto& home = work.dvisitors[ranks_ % 2];
  attention_copy<Real, Storage>(exec, part_of(home, 0), gradient.k);
  attention_copy<Real, Storage>(exec, part_of(home, 1), gradient.v);
  swap(exec, documents, gradient.k, work);
  swap(exec, documents, gradient.v, work);
  attention_copy<Real, Storage>(exec, work.out, q);
  swap(exec, documents, q, work);
  attention_copy<Storage, Storage>(exec, q, gradient.q);
}

template class RingAttention<bf16>;
template class RingAttention<float>;
template class RingAttention<double>;

}  // namespace qnext
