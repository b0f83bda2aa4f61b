// SPDX-License-Identifier: Apache-2.0
#include "app/microbatch.hpp"

namespace qnext {
namespace {

Tensor<const int, 1> copy_to_device(const std::vector<std::int32_t>& values) {
  const Tensor<int, 1> tensor("microbatch", values.size());
  Kokkos::deep_copy(tensor, HostTensor<const int, 1>(values.data(), values.size()));
  return tensor;
}

}  // namespace

Microbatch to_device(const TokenBatch& batch) {
  return {.tokens = copy_to_device(batch.tokens),
          .labels = copy_to_device(batch.labels),
          .documents = make_documents(batch.lengths, batch.sequences)};
}

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

double mean_length(const std::vector<TokenBatch>& batches) {
  double squares = 0.0, sum = 0.0;
  for (const TokenBatch& batch : batches) {
    for (const int length : batch.lengths) {
      squares += 1.0 * length * length;
      sum += length;
    }
  }
  return sum > 0.0 ? squares / sum : 0.0;
}

MicrobatchShape shape_of(const TokenBatch& batch, const MicrobatchShape& largest) {
  MicrobatchShape shape = largest;
  shape.tokens = static_cast<int>(batch.tokens.size());
  shape.sequences = batch.sequences;
  return shape;
}

}  // namespace qnext
