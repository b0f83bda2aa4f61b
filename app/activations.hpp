// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "layers/model.hpp"
#include "parallel/communicator.hpp"

#include <vector>

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
/// it. Each chunk of the model has slots for as many consecutive microbatches as are in flight
/// there at once; what is computed again, and work, is the same memory for all of them.
template <class Storage>
class ActivationMemory {
 public:
  using Real = Accum<Storage>;

  /// What one chunk keeps of one microbatch in flight.
  struct Slot {
    typename Model<Storage>::Saved saved;
    Microbatch batch;
    Transfer sent;  // its output on the way to the next stage

   private:
    friend class ActivationMemory;
    Arena arena;
    MicrobatchShape shape;
  };

  /// Of a stage of a pipeline: the gradient on the way to the stage in front of it.
  struct Outgoing {
    Tensor<Real, 2> gradient;   // (T, D)
    Tensor<Real, 1> shares;     // (E)  of the balance loss that couples layers
    Tensor<double, 1> balance;  // (1)
    Transfer sent;
  };

  /// `slots`: of each chunk of the model.
  ActivationMemory(const Model<Storage>& model, const MicrobatchShape& largest,
                   const std::vector<int>& slots = {1})
      : model_(model), arena_(plan(model, largest, slots).peak()), slots_(slots.size()) {
    for (std::size_t chunk = 0; chunk < slots.size(); ++chunk) {
      Arena measure;
      model.reserve_kept(measure, largest, static_cast<int>(chunk));
      for (int slot = 0; slot < slots[chunk]; ++slot) {
        slots_[chunk].emplace_back().arena = arena_.part(measure.peak());
      }
    }
    Arena measure;
    reserve_recomputed(model, measure, largest);
    recomputed_ = arena_.part(measure.peak());
    reserve_outgoing(model, arena_, largest, outgoing_);
  }

  /// An arena that measured all of it.
  static Arena plan(const Model<Storage>& model, const MicrobatchShape& largest,
                    const std::vector<int>& slots = {1}) {
    Arena measure;
    for (std::size_t chunk = 0; chunk < slots.size(); ++chunk) {
      for (int slot = 0; slot < slots[chunk]; ++slot) {
        model.reserve_kept(measure, largest, static_cast<int>(chunk));
      }
    }
    reserve_recomputed(model, measure, largest);
    Outgoing outgoing;
    reserve_outgoing(model, measure, largest, outgoing);
    model.reserve_work(measure, largest);
    return measure;
  }

  /// That of a microbatch, with tensors of this shape: the same ones as long as the shape is the
  /// same. Waits until its last output is sent.
  Slot& slot(int chunk, int microbatch, const MicrobatchShape& shape) {
    Slot& slot = in_flight(chunk, microbatch);
    slot.sent.wait();
    if (!same(slot.shape, shape)) {
      const Arena::Scope kept(slot.arena), again(recomputed_);  // the next call starts again
      slot.saved = model_.reserve_kept(slot.arena, shape, chunk);
      model_.reserve_recomputed(recomputed_, shape, slot.saved);
      slot.shape = shape;
    }
    return slot;
  }

  /// The same while the microbatch is in flight.
  Slot& in_flight(int chunk, int microbatch) {
    return slots_[chunk][microbatch % slots_[chunk].size()];
  }

  const typename Model<Storage>::Work& work(const MicrobatchShape& shape) {
    if (!same(work_shape_, shape)) {
      const Arena::Scope scope(arena_);
      work_ = model_.reserve_work(arena_, shape);
      work_shape_ = shape;
    }
    return work_;
  }

  Outgoing& outgoing() { return outgoing_; }

  /// Until nothing is on the way.
  void wait() {
    for (auto& slots : slots_) {
      for (Slot& slot : slots) {
        slot.sent.wait();
      }
    }
    outgoing_.sent.wait();
  }

 private:
  static bool same(const MicrobatchShape& a, const MicrobatchShape& b) {
    return a.tokens == b.tokens && a.documents == b.documents && a.sequences == b.sequences &&
           a.decoding == b.decoding;
  }

  static void reserve_recomputed(const Model<Storage>& model, Arena& arena,
                                 const MicrobatchShape& shape) {
    Arena::Overlay chunks(arena);
    for (std::size_t chunk = 0; chunk < model.chunks().size(); ++chunk) {
      Arena apart;
      auto saved = model.reserve_kept(apart, shape, static_cast<int>(chunk));
      chunks.add([&] { model.reserve_recomputed(arena, shape, saved); });
    }
  }

  static void reserve_outgoing(const Model<Storage>& model, Arena& arena,
                               const MicrobatchShape& shape, Outgoing& outgoing) {
    if (model.chunks().front().chunks > 1) {
      const auto& config = model.config();
      outgoing.gradient = arena.reserve<Real, 2>("sent_gradient", model.rows(shape), config.width);
      outgoing.shares = arena.reserve<Real, 1>("sent_shares", config.layer.experts.experts);
      outgoing.balance = arena.reserve<double, 1>("sent_balance", 1);
    }
  }

  const Model<Storage>& model_;
  Arena arena_;
  std::vector<std::vector<Slot>> slots_;  // (chunks, slots)
  Arena recomputed_;
  Outgoing outgoing_;
  typename Model<Storage>::Work work_;
  MicrobatchShape work_shape_;
};

}  // namespace qnext
