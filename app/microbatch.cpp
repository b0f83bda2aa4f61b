// SPDX-License-Identifier: Apache-2.0
#include "app/microbatch.hpp"

#include "core/require.hpp"

#include <algorithm>

namespace qnext {
namespace {

Tensor<const int, 1> copy_to_device(const std::vector<std::int32_t>& values) {
  const Tensor<int, 1> tensor("microbatch", values.size());
  Kokkos::deep_copy(tensor, HostTensor<const int, 1>(values.data(), values.size()));
  return tensor;
}

std::vector<std::int32_t> pick(const std::vector<std::int32_t>& values,
                               const std::vector<int>& places) {
  std::vector<std::int32_t> picked(places.size());
  std::transform(places.begin(), places.end(), picked.begin(),
                 [&](const int place) { return values[place]; });
  return picked;
}

// Token and label behind the piece of each sequence. The last piece has none, which nobody reads.
Tensor<const int, 2> tokens_behind(const TokenBatch& batch, const std::vector<int>& places) {
  const int S = batch.sequences, piece = static_cast<int>(places.size()) / S;
  std::vector<std::int32_t> values;
  for (int s = 0; s < S; ++s) {
    const std::size_t next = places[(s + 1) * piece - 1] + 1;
    values.push_back(next < batch.tokens.size() ? batch.tokens[next] : 0);
    values.push_back(next < batch.tokens.size() ? batch.labels[next] : -1);
  }
  const Tensor<int, 2> behind("microbatch", S, 2);
  Kokkos::deep_copy(behind, HostTensor<const int, 2>(values.data(), S, 2));
  return behind;
}

// Positions whose token after the next one belongs to the same document: the labels of multi-token
// prediction.
std::int64_t mtp_label_count(const TokenBatch& batch) {
  std::int64_t count = 0;
  std::size_t begin = 0;
  for (const int length : batch.lengths) {
    for (std::size_t t = begin + 1; t < begin + length; ++t) {
      count += batch.labels[t] >= 0;
    }
    begin += length;
  }
  return count;
}

}  // namespace

Microbatch to_device(const TokenBatch& batch, const ProcessGrid& grid) {
  if (grid.degrees.context == 1) {
    return {.tokens = copy_to_device(batch.tokens),
            .labels = copy_to_device(batch.labels),
            .documents = make_documents(batch.lengths, batch.sequences)};
  }
  const ContextShare share =
      ContextShare::make(batch.lengths, batch.sequences, grid.degrees.context, grid.place.context);
  return {.tokens = copy_to_device(pick(batch.tokens, share.tokens)),
          .labels = copy_to_device(pick(batch.labels, share.tokens)),
          .documents = share.documents,
          .behind = tokens_behind(batch, share.tokens),
          .ring = share.ring};
}

TokenBatch fill_up(TokenBatch batch, int ranks, int piece) {
  const int tokens = static_cast<int>(batch.tokens.size());
  const int wanted =
      batch.sequences * ranks * std::max(piece, (tokens / batch.sequences + ranks - 1) / ranks);
  if (ranks == 1 || tokens == wanted) {
    return batch;
  }
  require(batch.sequences == 1,
          "several sequences are filled up to a multiple of context ranks, wanted one");
  batch.tokens.resize(wanted, 0);
  batch.labels.resize(wanted, -1);
  batch.lengths.push_back(wanted - tokens);
  return batch;
}

double BatchCounts::mean_length() const {
  return lengths > 0 ? static_cast<double>(squares) / static_cast<double>(lengths) : 0.0;
}

BatchCounts count(const std::vector<TokenBatch>& batches, const Communicator& over) {
  std::vector<std::int64_t> sums(5, 0);
  for (const TokenBatch& batch : batches) {
    sums[0] += static_cast<std::int64_t>(batch.tokens.size());
    sums[1] += batch.label_count;
    sums[2] += mtp_label_count(batch);
    for (const std::int64_t length : batch.lengths) {
      sums[3] += length;
      sums[4] += length * length;
    }
  }
  over.sum(sums);
  return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

MicrobatchShape shape_of(const TokenBatch& batch, const MicrobatchShape& largest, int context) {
  MicrobatchShape shape = largest;
  shape.tokens = static_cast<int>(batch.tokens.size()) / context;
  shape.sequences = batch.sequences;
  return shape;
}

}  // namespace qnext
