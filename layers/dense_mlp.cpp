// SPDX-License-Identifier: Apache-2.0
#include "layers/dense_mlp.hpp"

#include "layers/kernels/swiglu.hpp"

namespace qnext {

template <class Storage>
DenseMlp<Storage>::DenseMlp(const DenseMlpConfig& config, const ProcessGrid&, ParameterTable& table,
                            const std::string& prefix)
    : gate_(table, prefix + ".gate_proj.weight", config.model_width, config.width,
            config.init_deviation),
      up_(table, prefix + ".up_proj.weight", config.model_width, config.width,
          config.init_deviation),
      down_(table, prefix + ".down_proj.weight", config.width, config.model_width,
            config.init_deviation) {}

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
  return {.hidden = arena.reserve<Storage, 2>("hidden", shape.tokens, gate_.out()),
          .dgate = arena.reserve<Storage, 2>("dgate", shape.tokens, gate_.out()),
          .dup = arena.reserve<Storage, 2>("dup", shape.tokens, gate_.out())};
}

template <class Storage>
void DenseMlp<Storage>::forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                                const Tensor<Storage, 2>& y, Saved& saved, const Work& work,
                                const Tensor<const Real, 1>& factor) const {
  saved.x = x;
  gate_.template forward<Storage>(exec, x, saved.gate);
  up_.template forward<Storage>(exec, x, saved.up);
  const SwigluRows<Real> rows{x.extent_int(0), {}, factor};
  swiglu_forward<Storage>(exec, rows, apart<const Storage>(saved.gate, saved.up), work.hidden);
  down_.template forward<Storage>(exec, work.hidden, y);
}

template <class Storage>
void DenseMlp<Storage>::backward(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                 const Saved& saved, const Tensor<Storage, 2>& dx, const Work& work,
                                 const Tensor<const Real, 1>& factor,
                                 const Tensor<Real, 1>& dfactor) const {
  down_.backward_input(exec, dy, work.hidden);
  const SwigluRows<Real> rows{dy.extent_int(0), {}, factor};
  swiglu_backward<Storage>(exec, rows, apart<const Storage>(saved.gate, saved.up), work.hidden,
                           apart<Storage>(work.dgate, work.dup), dfactor);
  down_.backward_weight(exec, dy, work.hidden);
  gate_.backward_weight(exec, work.dgate, saved.x);
  up_.backward_weight(exec, work.dup, saved.x);
  gate_.backward_input(exec, work.dgate, dx);
  up_.backward_input(exec, work.dup, dx, Write::add);
}

template class DenseMlp<bf16>;
template class DenseMlp<float>;
template class DenseMlp<double>;

}  // namespace qnext
