// SPDX-License-Identifier: Apache-2.0
#include "layers/linear.hpp"

namespace qnext {

template <class Storage>
Linear<Storage>::Linear(ParameterTable& table, const ProcessGrid& grid, const Parameter& parameter)
    : in_(static_cast<int>(parameter.shard.local_extent()[1])),
      out_(static_cast<int>(parameter.shard.local_extent()[0])) {
  table.add(parameter, weight_);
  if (table.adapters().targets_weight(parameter.name)) {
    adapter_ = std::make_unique<Adapter<Storage>>(table, grid, parameter);
  }
}

template <class Storage>
template <class Out>
void Linear<Storage>::forward(const Exec& exec, const Tensor<const Storage, 2>& x,
                              const Tensor<Out, 2>& y, const Tensor<Storage, 2>& low) const {
  matmul<Storage, Out>(exec, Op::none, x, Op::transpose, weight_.value, y);
  if (adapter_) {
    adapter_->template add<Out>(exec, x, y, low);
  }
}

template <class Storage>
void Linear<Storage>::backward_input(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                     const Tensor<Storage, 2>& dx, const Tensor<Storage, 2>& low,
                                     Write write) const {
  matmul<Storage, Storage>(exec, Op::none, dy, Op::none, weight_.value, dx, write);
  if (adapter_) {
    adapter_->add_input_gradient(exec, dy, dx, low);
  }
}

template <class Storage>
void Linear<Storage>::backward_weight(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                      const Tensor<const Storage, 2>& x,
                                      const Tensor<Storage, 2>& low) const {
  if (weight_.trained()) {
    matmul<Storage, Accum<Storage>>(exec, Op::transpose, dy, Op::none, x, weight_.grad, Write::add);
  }
  if (adapter_) {
    adapter_->add_gradients(exec, dy, x, low);
  }
}

template class Linear<bf16>;
template class Linear<float>;
template class Linear<double>;

#define QNEXT_INSTANTIATE(Storage, Out)                                                         \
  template void Linear<Storage>::forward<Out>(const Exec&, const Tensor<const Storage, 2>&,     \
                                              const Tensor<Out, 2>&, const Tensor<Storage, 2>&) \
      const;
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(double, double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
