// SPDX-License-Identifier: Apache-2.0
#include "core/documents.hpp"

#include "core/require.hpp"

#include <algorithm>
#include <numeric>
#include <string>

namespace qnext {

Documents make_documents(const std::vector<int>& lengths, int sequences,
                         const std::vector<int>& first_position) {
  require(first_position.empty() || first_position.size() == lengths.size(),
          "one first position for each document");
  const int N = static_cast<int>(lengths.size());
  const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
  const Tensor<int, 1> begin("documents::begin", N + 1);
  const Tensor<int, 1> position("documents::position", T);
  const Tensor<int, 1> document("documents::document", T);
  const auto host_begin = Kokkos::create_mirror_view(begin);
  const auto host_position = Kokkos::create_mirror_view(position);
  const auto host_document = Kokkos::create_mirror_view(document);
  int t = 0;
  host_begin(0) = 0;
  for (int n = 0; n < N; ++n) {
    require(lengths[n] > 0, "document " + std::to_string(n) + " is empty");
    const int first = first_position.empty() ? 0 : first_position[n];
    for (int i = 0; i < lengths[n]; ++i, ++t) {
      host_position(t) = first + i;
      host_document(t) = n;
    }
    host_begin(n + 1) = t;
  }
  Kokkos::deep_copy(begin, host_begin);
  Kokkos::deep_copy(position, host_position);
  Kokkos::deep_copy(document, host_document);
  Documents documents;
  documents.begin = begin;
  documents.position = position;
  documents.document = document;
  documents.count = N;
  documents.longest = N == 0 ? 0 : *std::max_element(lengths.begin(), lengths.end());
  documents.sequences = sequences;
  return documents;
}

}  // namespace qnext
