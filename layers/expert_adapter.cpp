// SPDX-License-Identifier: Apache-2.0
#include "layers/expert_adapter.hpp"

#include "core/matmul.hpp"
#include "layers/kernels/low_rank.hpp"

#include <cmath>
#include <string>

namespace qnext {
namespace {

// Of the experts that this rank holds of W; `axis` is the one that is r long.
Parameter factor(const Parameter& of, int axis, int rank, const std::string& name,
                 const Init& init) {
  Parameter half = of;
  half.name = of.name + name;
  half.shard.global_extent[axis] = rank;
  half.shard.boxes.front().extent[axis] = rank;
  half.init = init;
  half.of_adapter = true;
  return half;
}

}  // namespace

template <class Storage>
ExpertAdapter<Storage>::ExpertAdapter(ParameterTable& table, const Parameter& of)
    : scale_(table.adapters().scale()) {
  const int rank = table.adapters().rank;
  const double width = 1.0 / std::sqrt(static_cast<double>(of.shard.global_extent[2]));
  table.add(factor(of, 1, rank, ".lora_A.weight", Init::uniform(width)), a_);
  table.add(factor(of, 2, rank, ".lora_B.weight", Init::zeros()), b_);
}

template <class Storage>
Tensor<Storage, 2> ExpertAdapter<Storage>::down(const Exec& exec,
                                                const Tensor<const int, 1>& offset,
                                                const Tensor<const Storage, 2>& x,
                                                const Tensor<Storage, 2>& low) const {
  const auto u = low_rows<Storage>(low, x.extent_int(0));
  matmul_grouped<Storage, Storage>(exec, offset, x, Op::transpose, a_.value, u);
  scale_by<Storage>(exec, scale_, u);
  return u;
}

template <class Storage>
Tensor<Storage, 2> ExpertAdapter<Storage>::down_gradient(const Exec& exec,
                                                         const Tensor<const int, 1>& offset,
                                                         const Tensor<const Storage, 2>& dy,
                                                         const Tensor<Storage, 2>& low) const {
  const auto v = low_rows<Storage>(low, dy.extent_int(0));
  matmul_grouped<Storage, Storage>(exec, offset, dy, Op::none, b_.value, v);
  scale_by<Storage>(exec, scale_, v);
  return v;
}

template <class Storage>
void ExpertAdapter<Storage>::add(const Exec& exec, const Tensor<const int, 1>& offset,
                                 const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& y,
                                 const Tensor<Storage, 2>& low) const {
  matmul_grouped<Storage, Storage>(exec, offset, down(exec, offset, x, low), Op::transpose,
                                   b_.value, y, Write::add);
}

template <class Storage>
void ExpertAdapter<Storage>::add_input_gradient(const Exec& exec,
                                                const Tensor<const int, 1>& offset,
                                                const Tensor<const Storage, 2>& dy,
                                                const Tensor<Storage, 2>& dx,
                                                const Tensor<Storage, 2>& low) const {
  matmul_grouped<Storage, Storage>(exec, offset, down_gradient(exec, offset, dy, low), Op::none,
                                   a_.value, dx, Write::add);
}

template <class Storage>
void ExpertAdapter<Storage>::add_gradients(const Exec& exec, const Tensor<const int, 1>& offset,
                                           const Tensor<const Storage, 2>& dy,
                                           const Tensor<const Storage, 2>& x,
                                           const Tensor<Storage, 2>& low) const {
  using Real = Accum<Storage>;
  matmul_grouped_gradient<Storage, Real>(exec, offset, dy, down(exec, offset, x, low), b_.grad);
  matmul_grouped_gradient<Storage, Real>(exec, offset, down_gradient(exec, offset, dy, low), x,
                                         a_.grad);
}

template class ExpertAdapter<bf16>;
template class ExpertAdapter<float>;
template class ExpertAdapter<double>;

}  // namespace qnext
