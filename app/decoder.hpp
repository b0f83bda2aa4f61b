// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/activations.hpp"
#include "app/trained_model.hpp"
#include "core/arena.hpp"
#include "layers/model.hpp"

#include <vector>

namespace qnext {

/// One document that grows: its recurrent states and its keys and values.
template <class Storage>
class Decoder {
 public:
  /// Room for `capacity` tokens, of which at most `piece` come in one call.
  Decoder(const Model<Storage>& model, int capacity, int piece);

  /// Puts the tokens behind those before, several by a forward pass, one by a decoding step, and
  /// returns the logits of the last: what follows.
  std::vector<double> feed(const std::vector<int>& tokens);

  int length() const { return length_; }

 private:
  void feed_piece(const int* tokens, int count);

  const Model<Storage>& model_;
  int capacity_;
  int piece_;
  Arena state_arena_;
  ActivationMemory<Storage> memory_;
  typename Model<Storage>::State state_;
  Tensor<Accum<Storage>, 2> logits_;  // (1, V)
  int length_ = 0;
  Exec exec_;
};

}  // namespace qnext
