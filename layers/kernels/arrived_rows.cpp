// SPDX-License-Identifier: Apache-2.0
#include "layers/kernels/arrived_rows.hpp"

#include "core/bf16.hpp"
#include "core/team.hpp"

#include <cstdint>

namespace qnext {
namespace {

// A thread takes a row and finds its piece by bisection: the last that begins at or before it. Of
// pieces with the same begin that is the one that is not empty.
struct PlacePieces {
  Tensor<const int, 1> arrived;  // (G)
  Tensor<const int, 1> ordered;  // (G)
  Tensor<int, 1> place;

  KOKKOS_FUNCTION void operator()(const int r) const {
    int piece = 0;
    for (int end = arrived.extent_int(0); end - piece > 1;) {
      const int middle = (piece + end) / 2;
      if (arrived(middle) <= r) {
        piece = middle;
      } else {
        end = middle;
      }
    }
    place(r) = ordered(piece) + r - arrived(piece);
  }
};

// What a lane copies at once, where rows are whole numbers of it.
struct alignas(16) Chunk {
  std::uint64_t words[2];
};

// A team takes a row of `width` words.
template <class Word>
struct MoveRows {
  const Word* from;
  Word* to;
  Tensor<const int, 1> place;
  int width;
  Place meaning;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const int r = team.league_rank();
    const int p = place(r);
    const Word* const source = from + std::int64_t{meaning == Place::to ? r : p} * width;
    Word* const target = to + std::int64_t{meaning == Place::to ? p : r} * width;
    for_each_in(team, width, [&](const int i) { target[i] = source[i]; });
  }
};

template <class Word>
void move_words(const Exec& exec, int n, Place meaning, const Tensor<const int, 1>& place,
                const void* from, void* to, int width) {
  Kokkos::parallel_for("arrived_rows::move", row_policy(exec, n),
                       MoveRows<Word>{static_cast<const Word*>(from), static_cast<Word*>(to), place,
                                      width, meaning});
}

bool aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % sizeof(Chunk) == 0;
}

}  // namespace

void place_pieces(const Exec& exec, int n, const Tensor<const int, 1>& arrived,
                  const Tensor<const int, 1>& ordered, const Tensor<int, 1>& place) {
  Kokkos::parallel_for("arrived_rows::place", Kokkos::RangePolicy<Exec>(exec, 0, n),
                       PlacePieces{arrived, ordered, place});
}

template <class T>
void move_rows(const Exec& exec, int n, Place meaning, const Tensor<const int, 1>& place,
               const Tensor<const T, 2>& from, const Tensor<T, 2>& to) {
  const int width = from.extent_int(1);
  const int bytes = width * static_cast<int>(sizeof(T));
  if (width == 1) {
    Kokkos::parallel_for(
        "arrived_rows::move_numbers", Kokkos::RangePolicy<Exec>(exec, 0, n),
        KOKKOS_LAMBDA(const int r) {
          const int p = place(r);
          to(meaning == Place::to ? p : r, 0) = from(meaning == Place::to ? r : p, 0);
        });
  } else if (bytes % sizeof(Chunk) == 0 && aligned(from.data()) && aligned(to.data())) {
    move_words<Chunk>(exec, n, meaning, place, from.data(), to.data(),
                      bytes / static_cast<int>(sizeof(Chunk)));
  } else {
    move_words<T>(exec, n, meaning, place, from.data(), to.data(), width);
  }
}

template <class Real>
void spread_choices(const Exec& exec, const Tensor<const Real, 2>& x,
                    const Tensor<const int, 2>& place, const Tensor<Real, 2>& rows) {
  Kokkos::parallel_for(
      "arrived_rows::spread_choices",
      Kokkos::RangePolicy<Exec>(exec, 0, static_cast<int>(x.size())), KOKKOS_LAMBDA(const int c) {
        const int r = place.data()[c];
        if (r >= 0) {
          rows(r, 0) = x.data()[c];
        }
      });
}

template <class Real>
void gather_choices(const Exec& exec, const Tensor<const Real, 2>& rows,
                    const Tensor<const int, 2>& place, const Tensor<Real, 2>& x) {
  Kokkos::parallel_for(
      "arrived_rows::gather_choices",
      Kokkos::RangePolicy<Exec>(exec, 0, static_cast<int>(x.size())), KOKKOS_LAMBDA(const int c) {
        const int r = place.data()[c];
        x.data()[c] = r >= 0 ? rows(r, 0) : Real(0);
      });
}

#define QNEXT_INSTANTIATE(T)                                                       \
  template void move_rows<T>(const Exec&, int, Place, const Tensor<const int, 1>&, \
                             const Tensor<const T, 2>&, const Tensor<T, 2>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(Real)                                                            \
  template void spread_choices<Real>(const Exec&, const Tensor<const Real, 2>&,            \
                                     const Tensor<const int, 2>&, const Tensor<Real, 2>&); \
  template void gather_choices<Real>(const Exec&, const Tensor<const Real, 2>&,            \
                                     const Tensor<const int, 2>&, const Tensor<Real, 2>&);
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
