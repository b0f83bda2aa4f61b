// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/causal_conv.hpp"
#include "layers/kernels/causal_conv_columns.hpp"

namespace qnext {
namespace {

// The last taps - 1 inputs of a document. An element takes one channel of one document and reads
// what was before first, so that `tails` may be `initial`.
template <class Storage>
struct Tails {
  static constexpr int most_rows = causal_conv::most_taps - 1;

  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 2> qkvz;
  Tensor<const Storage, 3> initial;
  Tensor<Storage, 3> tails;

  void launch(const Exec& exec) const {
    Kokkos::parallel_for(
        "causal_conv::tails",
        Kokkos::RangePolicy<Exec>(exec, 0, std::int64_t{1} * documents.count * layout.channels()),
        *this);
  }

  KOKKOS_FUNCTION void operator()(const std::int64_t i) const {
    const int n = static_cast<int>(i / layout.channels());
    const int channel = static_cast<int>(i % layout.channels());
    const int to = documents.final_row(n), from = documents.initial_row(n);
    if (to < 0) {
      return;
    }
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int column = layout.block_of(channel) * layout.block() + layout.column_of(channel);
    const int rows = tails.extent_int(1);
    Storage before[most_rows];
    for (int row = 0; row < rows; ++row) {
      before[row] =
          initial.extent(0) != 0 && from >= 0 ? initial(from, row, channel) : Storage(0.0f);
    }
    for (int row = 0; row < rows; ++row) {
      const int t = end - rows + row;
      tails(to, row, channel) = t >= begin ? qkvz(t, column) : before[t - begin + rows];
    }
  }
};

// What comes back for the last inputs of a document joins their gradient. An element takes one
// channel of one document.
template <class Storage>
struct AddTailGradient {
  using Real = Accum<Storage>;

  Documents documents;
  GroupedProjection layout;
  Tensor<const Storage, 3> dtails;
  Tensor<Storage, 2> dqkvz;

  KOKKOS_FUNCTION void operator()(const std::int64_t i) const {
    const int n = static_cast<int>(i / layout.channels());
    const int channel = static_cast<int>(i % layout.channels());
    const int from = documents.final_row(n);
    if (from < 0) {
      return;
    }
    const int column = layout.block_of(channel) * layout.block() + layout.column_of(channel);
    const int begin = documents.begin(n), end = documents.begin(n + 1);
    const int rows = dtails.extent_int(1);
    for (int row = end - begin < rows ? rows - end + begin : 0; row < rows; ++row) {
      Storage& du = dqkvz(end - rows + row, column);
      du = Storage(static_cast<Real>(du) + static_cast<Real>(dtails(from, row, channel)));
    }
  }
};

}  // namespace

template <class Storage>
void causal_conv_tails(const Exec& exec, const Documents& documents,
                       const GroupedProjection& layout, const Tensor<const Storage, 2>& qkvz,
                       const Tensor<const Storage, 3>& initial, const Tensor<Storage, 3>& tails) {
  Tails<Storage>{documents, layout, qkvz, initial, tails}.launch(exec);
}

template <class Storage>
void causal_conv_add_tail_gradient(const Exec& exec, const Documents& documents,
                                   const GroupedProjection& layout,
                                   const Tensor<const Storage, 3>& dtails,
                                   const Tensor<Storage, 2>& dqkvz) {
  const std::int64_t channels = std::int64_t{1} * documents.count * layout.channels();
  Kokkos::parallel_for("causal_conv::add_tail_gradient",
                       Kokkos::RangePolicy<Exec>(exec, 0, channels),
                       AddTailGradient<Storage>{documents, layout, dtails, dqkvz});
}

#define QNEXT_INSTANTIATE(Storage)                                                              \
  template void causal_conv_tails<Storage>(                                                     \
      const Exec&, const Documents&, const GroupedProjection&, const Tensor<const Storage, 2>&, \
      const Tensor<const Storage, 3>&, const Tensor<Storage, 3>&);                              \
  template void causal_conv_add_tail_gradient<Storage>(                                         \
      const Exec&, const Documents&, const GroupedProjection&, const Tensor<const Storage, 3>&, \
      const Tensor<Storage, 2>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
