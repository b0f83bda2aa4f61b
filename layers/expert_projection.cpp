// SPDX-License-Identifier: Apache-2.0
#include "layers/expert_projection.hpp"

namespace qnext {

template <class Storage>
ExpertProjection<Storage>::ExpertProjection(ParameterTable& table, const Parameter& parameter) {
  table.add(parameter, weight_);
  if (table.adapters().targets_weight(parameter.name)) {
    adapter_ = std::make_unique<ExpertAdapter<Storage>>(table, parameter);
  }
}

template <class Storage>
void ExpertProjection<Storage>::forward(const Exec& exec, const Tensor<const int, 1>& offset,
                                        const Tensor<const Storage, 2>& x,
                                        const Tensor<Storage, 2>& y,
                                        const Tensor<Storage, 2>& low) const {
  matmul_grouped<Storage, Storage>(exec, offset, x, Op::transpose, weight_.value, y);
  if (adapter_) {
    adapter_->add(exec, offset, x, y, low);
  }
}

template <class Storage>
void ExpertProjection<Storage>::backward_input(const Exec& exec, const Tensor<const int, 1>& offset,
                                               const Tensor<const Storage, 2>& dy,
                                               const Tensor<Storage, 2>& dx,
                                               const Tensor<Storage, 2>& low) const {
  matmul_grouped<Storage, Storage>(exec, offset, dy, Op::none, weight_.value, dx);
  if (adapter_) {
    adapter_->add_input_gradient(exec, offset, dy, dx, low);
  }
}

template <class Storage>
void ExpertProjection<Storage>::backward_weight(const Exec& exec,
                                                const Tensor<const int, 1>& offset,
                                                const Tensor<const Storage, 2>& dy,
                                                const Tensor<const Storage, 2>& x,
                                                const Tensor<Storage, 2>& low) const {
  if (weight_.trained()) {
    matmul_grouped_gradient<Storage, Accum<Storage>>(exec, offset, dy, x, weight_.grad);
  }
  if (adapter_) {
    adapter_->add_gradients(exec, offset, dy, x, low);
  }
}

template class ExpertProjection<bf16>;
template class ExpertProjection<float>;
template class ExpertProjection<double>;

}  // namespace qnext
