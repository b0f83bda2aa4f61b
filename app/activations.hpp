// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "layers/model.hpp"

#include <cstdint>
#include <optional>

namespace qnext {

/// What one microbatch in flight needs.
template <class Storage>
struct Activations {
  typename Model<Storage>::Saved saved;
  typename Model<Storage>::Work work;

  /// On a measuring arena: the plan.
  static Activations reserve(const Model<Storage>& model, Arena& arena,
                             const MicrobatchShape& shape) {
    Activations activations;
    activations.saved = model.reserve_saved(arena, shape);
    activations.work = model.reserve_work(arena, shape);
    return activations;
  }
};

/// The one allocation for activations, as large as the largest microbatch wants, and the tensors in
/// it for the microbatch at hand.
template <class Storage>
class ActivationMemory {
 public:
  ActivationMemory(const Model<Storage>& model, const MicrobatchShape& largest)
      : model_(model), arena_(bytes(model, largest)) {}

  static std::int64_t bytes(const Model<Storage>& model, const MicrobatchShape& shape) {
    Arena measure;
    Activations<Storage>::reserve(model, measure, shape);
    return measure.peak();
  }

  /// The same tensors as long as the shape is the same.
  Activations<Storage>& of(const MicrobatchShape& shape) {
    if (!activations_ || shape.tokens != shape_.tokens || shape.documents != shape_.documents ||
        shape.sequences != shape_.sequences) {
      const Arena::Scope scope(arena_);  // the next call starts from the beginning
      activations_ = Activations<Storage>::reserve(model_, arena_, shape);
      shape_ = shape;
    }
    return *activations_;
  }

 private:
  const Model<Storage>& model_;
  Arena arena_;
  MicrobatchShape shape_;
  std::optional<Activations<Storage>> activations_;
};

}  // namespace qnext
