// SPDX-License-Identifier: Apache-2.0
#include "app/microbatch.hpp"

namespace qnext {
namespace {

Tensor<const int, 1> copy_to_device(const std::vector<std::int32_t>& values) {
  const Tensor<int, 1> tensor("microbatch", values.size());
  Kokkos::deep_copy(tensor, HostTensor<const int, 1>(values.data(), values.size()));
  return tensor;
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

Microbatch to_device(const TokenBatch& batch) {
  return {.tokens = copy_to_device(batch.tokens),
          .labels = copy_to_device(batch.labels),
          .documents = make_documents(batch.lengths, batch.sequences)};
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

MicrobatchShape shape_of(const TokenBatch& batch, const MicrobatchShape& largest) {
  MicrobatchShape shape = largest;
  shape.tokens = static_cast<int>(batch.tokens.size());
  shape.sequences = batch.sequences;
  return shape;
}

}  // namespace qnext
