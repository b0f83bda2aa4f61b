// SPDX-License-Identifier: Apache-2.0
#include "layers/causal_conv.hpp"

#include "layers/kernels/causal_conv.hpp"
#include "layers/kernels/causal_conv_columns.hpp"
#include "layers/kernels/causal_conv_step.hpp"

#include <cmath>

namespace qnext {
namespace {

// Weights with the columns of a key head beside each other.
template <class Storage, class Real = Accum<Storage>>
void weight_rows(const Exec& exec, const GroupedProjection& layout,
                 const Tensor<const Storage, 3>& weight, const Tensor<Real, 3>& rows) {
  const int taps = weight.extent_int(2);
  Kokkos::parallel_for(
      "causal_conv::weight_rows", Kokkos::RangePolicy<Exec>(exec, 0, layout.channels()),
      KOKKOS_LAMBDA(const int channel) {
        const int g = layout.block_of(channel), c = layout.column_of(channel);
        for (int j = 0; j < taps; ++j) {
          rows(g, j, c) = static_cast<Real>(weight(channel, 0, j));
        }
      });
}

template <class Real>
void add_weight_gradient(const Exec& exec, const GroupedProjection& layout, int blocks,
                         const Tensor<const Real, 4>& partial, const Tensor<Real, 3>& grad) {
  const int taps = grad.extent_int(2);
  Kokkos::parallel_for(
      "causal_conv::weight_gradient", Kokkos::RangePolicy<Exec>(exec, 0, layout.channels()),
      KOKKOS_LAMBDA(const int channel) {
        const int g = layout.block_of(channel), c = layout.column_of(channel);
        for (int j = 0; j < taps; ++j) {
          Real total = 0;
          for (int block = 0; block < blocks; ++block) {
            total += partial(block, g, j, c);
          }
          grad(channel, 0, j) += total;
        }
      });
}

// The channels of q, k and v that belong to the heads of this rank.
Shard channels_of(const GroupedProjection& layout, int taps, const ProcessGrid& grid) {
  const std::int64_t ranks = grid.degrees.tensor;
  const std::int64_t keys = ranks * layout.G * layout.K, values = ranks * layout.heads() * layout.V;
  return grid.tensor_parts({keys, keys, values}, {1, taps});
}

}  // namespace

template <class Storage>
CausalConv<Storage>::CausalConv(ParameterTable& table, const std::string& name,
                                const GroupedProjection& layout, int taps, const ProcessGrid& grid)
    : layout_(layout), taps_(taps) {
  causal_conv::with_taps(taps, [](auto) {});
  table.add({.name = name,
             .shard = channels_of(layout, taps, grid),
             .init = Init::uniform(1.0 / std::sqrt(taps))},
            weight_);
}

template <class Storage>
typename CausalConv<Storage>::Work CausalConv<Storage>::reserve_work(Arena& arena, int T) const {
  return {arena.reserve<Real, 3>("conv_weight", layout_.G, taps_, layout_.convolved()),
          arena.reserve<Real, 4>("conv_partial", causal_conv_partial_blocks(T), layout_.G, taps_,
                                 layout_.convolved())};
}

template <class Storage>
void CausalConv<Storage>::forward(const Exec& exec, const Documents& documents,
                                  const Tensor<const Storage, 2>& qkvz,
                                  const Tensor<const Storage, 3>& initial,
                                  const QueryKeyValue<Storage>& out,
                                  const Tensor<Storage, 3>& final, const Work& work) const {
  weight_rows<Storage>(exec, layout_, weight_.value, work.weight);
  causal_conv_forward<Storage>(exec, {documents, layout_, qkvz, initial, work.weight}, out);
  if (final.extent(0) != 0) {
    causal_conv_tails<Storage>(exec, documents, layout_, qkvz, initial, final);
  }
}

template <class Storage>
void CausalConv<Storage>::tails(const Exec& exec, const Documents& documents,
                                const Tensor<const Storage, 2>& qkvz,
                                const Tensor<Storage, 3>& tails) const {
  causal_conv_tails<Storage>(exec, documents, layout_, qkvz, {}, tails);
}

template <class Storage>
void CausalConv<Storage>::add_tail_gradient(const Exec& exec, const Documents& documents,
                                            const Tensor<const Storage, 3>& dtails,
                                            const Tensor<Storage, 2>& dqkvz) const {
  causal_conv_add_tail_gradient<Storage>(exec, documents, layout_, dtails, dqkvz);
}

template <class Storage>
void CausalConv<Storage>::step(const Exec& exec, const Documents& documents,
                               const Tensor<const Storage, 2>& qkvz,
                               const Tensor<Storage, 3>& tails, const QueryKeyValue<Storage>& out,
                               Keep keep) const {
  CausalConvStep<Storage>{documents, layout_, weight_.value, qkvz, tails, out, keep}.launch(exec);
}

template <class Storage>
void CausalConv<Storage>::backward(const Exec& exec, const Documents& documents,
                                   const Tensor<const Storage, 2>& qkvz,
                                   const Tensor<const Storage, 3>& initial,
                                   const QueryKeyValue<Storage>& dout,
                                   const Tensor<const Storage, 3>& dfinal,
                                   const Tensor<Storage, 2>& dqkvz,
                                   const Tensor<Storage, 3>& dinitial, const Work& work) const {
  weight_rows<Storage>(exec, layout_, weight_.value, work.weight);
  causal_conv_backward<Storage>(exec, {documents, layout_, qkvz, initial, work.weight}, dout,
                                dfinal, dqkvz, dinitial, work.partial);
  if (weight_.trained()) {
    add_weight_gradient<Real>(exec, layout_, causal_conv_partial_blocks(qkvz.extent_int(0)),
                              work.partial, weight_.grad);
  }
}

template class CausalConv<bf16>;
template class CausalConv<float>;
template class CausalConv<double>;

}  // namespace qnext
