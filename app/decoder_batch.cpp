// SPDX-License-Identifier: Apache-2.0
#include "app/decoder_batch.hpp"

#include "core/fence.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace qnext {

DecoderBatch::DecoderBatch(int tokens, int documents)
    : batch_(3 * tokens + 4 * documents + 1), indices_(tokens) {}

int DecoderBatch::Numbers::add(int value) {
  require(used_ < static_cast<int>(host_.size()),
          "a pass of the decoder has room for " + std::to_string(host_.size()) + " numbers");
  host_[used_] = value;
  return used_++;
}

void DecoderBatch::Numbers::send(const Exec& exec) {
  Kokkos::deep_copy(exec, Kokkos::subview(device_, std::pair(0, used_)),
                    HostTensor<const int, 1>(host_.data(), used_));
  fence(exec, "decoder: the host writes the next numbers where these are");
}

Tensor<const int, 1> DecoderBatch::Numbers::part(int begin, int count) const {
  return Tensor<const int, 1>(device_.data() + begin, count);
}

Microbatch DecoderBatch::make(const Exec& exec, const std::vector<NextTokens>& documents) {
  const int N = static_cast<int>(documents.size());
  Documents borders;
  borders.count = N;
  batch_.clear();
  int T = 0;
  for (const NextTokens& next : documents) {
    T += static_cast<int>(next.tokens.size());
    borders.longest = std::max(borders.longest, static_cast<int>(next.tokens.size()));
    for (const int token : next.tokens) {
      batch_.add(token);
    }
  }
  for (const NextTokens& next : documents) {
    for (std::size_t i = 0; i < next.tokens.size(); ++i) {
      batch_.add(next.position + static_cast<int>(i));
    }
  }
  for (int n = 0; n < N; ++n) {
    for (std::size_t i = 0; i < documents[n].tokens.size(); ++i) {
      batch_.add(n);
    }
  }
  int begin = 0;
  batch_.add(begin);
  for (const NextTokens& next : documents) {
    begin += static_cast<int>(next.tokens.size());
    batch_.add(begin);
  }
  for (const NextTokens& next : documents) {
    batch_.add(next.arrives);
  }
  for (const NextTokens& next : documents) {
    batch_.add(next.leaves);
  }
  for (const NextTokens& next : documents) {
    batch_.add(next.cached);
  }
  batch_.send(exec);
  borders.position = batch_.part(T, T);
  borders.document = batch_.part(2 * T, T);
  borders.begin = batch_.part(3 * T, N + 1);
  borders.arrives = batch_.part(3 * T + N + 1, N);
  borders.leaves = batch_.part(3 * T + 2 * N + 1, N);
  borders.cached = batch_.part(3 * T + 3 * N + 1, N);
  return {batch_.part(0, T), {}, borders};
}

Tensor<const int, 1> DecoderBatch::indices(const Exec& exec, const std::vector<int>& values) {
  indices_.clear();
  for (const int value : values) {
    indices_.add(value);
  }
  indices_.send(exec);
  return indices_.part(0, static_cast<int>(values.size()));
}

}  // namespace qnext
