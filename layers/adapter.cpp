// SPDX-License-Identifier: Apache-2.0
#include "layers/adapter.hpp"

#include "layers/kernels/low_rank.hpp"

#include <cmath>

namespace qnext {
namespace {

// The factor that is the same on all tensor ranks, or divided as an axis of W is.
Parameter factor(const ProcessGrid& grid, const Parameter& of, int axis, int rank, bool divided,
                 const std::string& name, const Init& init) {
  const auto& global = of.shard.global_extent;
  Parameter half = of;
  half.name = projection_of(of.name) + name;
  half.shard = Shard::whole(axis == 0 ? std::vector<std::int64_t>{global[0], rank}
                                      : std::vector<std::int64_t>{rank, global[1]});
  half.init = init;
  half.of_adapter = true;
  if (!divided) {
    half.owner = true;
    return grid.replicated(half);
  }
  const Box& part = of.shard.boxes.front();
  half.shard.boxes.front().offset[axis] = part.offset[axis];
  half.shard.boxes.front().extent[axis] = part.extent[axis];
  return half;
}

}  // namespace

template <class Storage>
Adapter<Storage>::Adapter(ParameterTable& table, const ProcessGrid& grid, const Parameter& of)
    : scale_(table.adapters().scale()) {
  const auto& shard = of.shard;
  require(shard.rank == 2 && shard.boxes.size() == 1,
          of.name + ": an adapter is beside a matrix of which a rank holds one box");
  const int rank = table.adapters().rank;
  const bool by_columns = shard.local_extent()[1] != shard.global_extent[1];
  const double width = 1.0 / std::sqrt(static_cast<double>(shard.global_extent[1]));
  table.add(factor(grid, of, 1, rank, by_columns, ".lora_A.weight", Init::uniform(width)), a_);
  table.add(factor(grid, of, 0, rank, !by_columns, ".lora_B.weight", Init::zeros()), b_);
}

template <class Storage>
Tensor<Storage, 2> Adapter<Storage>::reserve_low(Arena& arena, const AdapterConfig& config,
                                                 int tokens) {
  return config.any() ? arena.reserve<Storage, 2>("adapter_low", tokens, config.rank)
                      : Tensor<Storage, 2>();
}

template <class Storage>
Tensor<Storage, 2> Adapter<Storage>::down(const Exec& exec, const Tensor<const Storage, 2>& x,
                                          const Tensor<Storage, 2>& low) const {
  const auto u = low_rows<Storage>(low, x.extent_int(0));
  matmul<Storage, Storage>(exec, Op::none, x, Op::transpose, a_.value, u);
  scale_by<Storage>(exec, scale_, u);
  return u;
}

template <class Storage>
Tensor<Storage, 2> Adapter<Storage>::down_gradient(const Exec& exec,
                                                   const Tensor<const Storage, 2>& dy,
                                                   const Tensor<Storage, 2>& low) const {
  const auto v = low_rows<Storage>(low, dy.extent_int(0));
  matmul<Storage, Storage>(exec, Op::none, dy, Op::none, b_.value, v);
  scale_by<Storage>(exec, scale_, v);
  return v;
}

template <class Storage>
template <class Out>
void Adapter<Storage>::add(const Exec& exec, const Tensor<const Storage, 2>& x,
                           const Tensor<Out, 2>& y, const Tensor<Storage, 2>& low) const {
  matmul<Storage, Out>(exec, Op::none, down(exec, x, low), Op::transpose, b_.value, y, Write::add);
}

template <class Storage>
void Adapter<Storage>::add_input_gradient(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                          const Tensor<Storage, 2>& dx,
                                          const Tensor<Storage, 2>& low) const {
  matmul<Storage, Storage>(exec, Op::none, down_gradient(exec, dy, low), Op::none, a_.value, dx,
                           Write::add);
}

template <class Storage>
void Adapter<Storage>::add_gradients(const Exec& exec, const Tensor<const Storage, 2>& dy,
                                     const Tensor<const Storage, 2>& x,
                                     const Tensor<Storage, 2>& low) const {
  using Real = Accum<Storage>;
  matmul<Storage, Real>(exec, Op::transpose, dy, Op::none, down(exec, x, low), b_.grad, Write::add);
  matmul<Storage, Real>(exec, Op::transpose, down_gradient(exec, dy, low), Op::none, x, a_.grad,
                        Write::add);
}

template class Adapter<bf16>;
template class Adapter<float>;
template class Adapter<double>;

#define QNEXT_INSTANTIATE(Storage, Out)                                                      \
  template void Adapter<Storage>::add<Out>(const Exec&, const Tensor<const Storage, 2>&,     \
                                           const Tensor<Out, 2>&, const Tensor<Storage, 2>&) \
      const;
QNEXT_INSTANTIATE(bf16, bf16)
QNEXT_INSTANTIATE(bf16, float)
QNEXT_INSTANTIATE(float, float)
QNEXT_INSTANTIATE(double, double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
