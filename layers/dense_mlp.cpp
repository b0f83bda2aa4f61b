// SPDX-License-Identifier: Apache-2.0
#include "layers/dense_mlp.hpp"

#include "core/require.hpp"
#include "layers/kernels/swiglu.hpp"

namespace qnext {

template <class Storage>
DenseMlp<Storage>::DenseMlp(const DenseMlpConfig& config, const ProcessGrid& grid,
                            ParameterTable& table, const std::string& prefix)
    : grid_(grid),
      gate_(table, grid,
            {.name = prefix + ".gate_proj.weight",
             .shard = grid.tensor_part({config.width, config.model_width}, 0),
             .init = Init::normal(config.init_deviation)}),
      up_(table, grid,
          {.name = prefix + ".up_proj.weight",
           .shard = grid.tensor_part({config.width, config.model_width}, 0),
           .init = Init::normal(config.init_deviation)}),
      down_(table, grid,
            {.name = prefix + ".down_proj.weight",
             .shard = grid.tensor_part({config.model_width, config.width}, 1),
             .init = Init::normal(config.init_deviation)}),
      adapters_(table.adapters()) {
  require(config.width >= grid.degrees.tensor,
          prefix + ": width = " + std::to_string(config.width) +
              ", wanted at least the tensor degree " + std::to_string(grid.degrees.tensor));
}

template <class Storage>
typename DenseMlp<Storage>::Saved DenseMlp<Storage>::reserve_saved(
    Arena& arena, const MicrobatchShape& shape) const {
  return {.x = {},
          .gate = arena.reserve<Storage, 2>("gate", shape.tokens, gate_.out()),
          .up = arena.reserve<Storage, 2>("up", shape.tokens, gate_.out())};
}

template <class Storage>
typename DenseMlp<Storage>::Work DenseMlp<Storage>::reserve_work(
    Arena& arena, const MicrobatchShape& shape) const {
  const int T = shape.tokens, F = gate_.out();
  Work work;
  work.rows = SharedRows<Storage>::reserve(arena, grid_, shape, gate_.in());
  if (!work.rows.alone()) {
    work.factor = arena.reserve<Real, 2>("factor", T, 1);
    work.received = arena.reserve<Real, 1>("received", work.rows.split().received_rows());
  }
  work.hidden = arena.reserve<Storage, 2>("hidden", T, F);
  work.dgate = arena.reserve<Storage, 2>("dgate", T, F);
  work.dup = arena.reserve<Storage, 2>("dup", T, F);
  work.low = Adapter<Storage>::reserve_low(arena, adapters_, T);
  return work;
}

template <class Storage>
void DenseMlp<Storage>::forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                                const Tensor<Storage, 2>& y, Saved& saved, const Work& work,
                                const Tensor<const Real, 1>& factor) const {
  saved.x = x;
  const auto all = work.rows.input(exec, x);
  gate_.template forward<Storage>(exec, all, saved.gate, work.low);
  up_.template forward<Storage>(exec, all, saved.up, work.low);
  const SwigluRows<Real> rows{all.extent_int(0), {}, all_factors(exec, factor, work)};
  swiglu_forward<Storage>(exec, rows, apart<const Storage>(saved.gate, saved.up), work.hidden);
  down_.template forward<Storage>(exec, work.hidden, work.rows.partial(y), work.low);
  work.rows.sum(exec, y);
}

// The factors of all rows; without factors, none. A rank without rows has factors, of which there
// are none, and takes part.
template <class Storage>
Tensor<const Accum<Storage>, 1> DenseMlp<Storage>::all_factors(const Exec& exec,
                                                               const Tensor<const Real, 1>& mine,
                                                               const Work& work) const {
  if (work.rows.alone() || mine.data() == nullptr) {
    return mine;
  }
  work.rows.split().template gather<Real>(
      exec, Tensor<const Real, 2>(mine.data(), mine.extent(0), 1), work.factor);
  return Tensor<const Real, 1>(work.factor.data(), work.factor.extent(0));
}

template <class Storage>
void DenseMlp<Storage>::backward(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                 const Saved& saved, const Tensor<Storage, 2>& dx, const Work& work,
                                 const Tensor<const Real, 1>& factor,
                                 const Tensor<Real, 1>& dfactor) const {
  const auto dout = work.rows.gradient(exec, dy);
  down_.backward_input(exec, dout, work.hidden, work.low);
  const SwigluRows<Real> rows{dout.extent_int(0), {}, all_factors(exec, factor, work)};
  const bool shares_factor = !work.rows.alone() && dfactor.data() != nullptr;
  // The factors have been used by the time that a row writes its gradient there.
  const auto dfactors =
      shares_factor ? Tensor<Real, 1>(work.factor.data(), work.factor.extent(0)) : dfactor;
  swiglu_backward<Storage>(exec, rows, apart<const Storage>(saved.gate, saved.up), work.hidden,
                           apart<Storage>(work.dgate, work.dup), dfactors);
  if (shares_factor) {
    work.rows.split().template sum<Real, Real>(
        exec, work.factor, work.received, Tensor<Real, 2>(dfactor.data(), dfactor.extent(0), 1));
  }
  down_.backward_weight(exec, dout, work.hidden, work.low);
  const auto x = work.rows.input(exec, saved.x);
  gate_.backward_weight(exec, work.dgate, x, work.low);
  up_.backward_weight(exec, work.dup, x, work.low);
  const auto din = work.rows.partial(dx);
  gate_.backward_input(exec, work.dgate, din, work.low);
  up_.backward_input(exec, work.dup, din, work.low, Write::add);
  work.rows.sum(exec, dx);
}

template class DenseMlp<bf16>;
template class DenseMlp<float>;
template class DenseMlp<double>;

}  // namespace qnext
