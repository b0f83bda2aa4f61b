// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "layers/model.hpp"

#include <vector>

namespace qnext {

/// The next tokens of one document, and where its states are.
struct NextTokens {
  std::vector<int> tokens;
  int position = 0;  // of the first of them
  int cached = 0;    // row of its keys and values
  int arrives = 0;   // row of the state that it goes on from
  int leaves = 0;    // row of the state behind it, or of the first one that is kept
};

/// The whole numbers that a pass of a decoder needs on the device, in memory that all passes share
/// and one copy from the host.
class DecoderBatch {
 public:
  /// Room for so many tokens in so many documents.
  DecoderBatch(int tokens, int documents);

  /// The batch of these documents; valid until the next one.
  Microbatch make(const Exec& exec, const std::vector<NextTokens>& documents);

  /// Any numbers, as many as there is room for tokens; valid until the next ones.
  Tensor<const int, 1> indices(const Exec& exec, const std::vector<int>& values);

 private:
  /// Numbers that are collected on the host, sent at once and handed out as tensors.
  class Numbers {
   public:
    explicit Numbers(int most) : device_("decoder_numbers", most), host_(most) {}
    int add(int value);
    void send(const Exec& exec);
    Tensor<const int, 1> part(int begin, int count) const;
    void clear() { used_ = 0; }

   private:
    Tensor<int, 1> device_;
    std::vector<int> host_;
    int used_ = 0;
  };

  Numbers batch_;
  Numbers indices_;
};

}  // namespace qnext
