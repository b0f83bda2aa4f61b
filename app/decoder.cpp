// SPDX-License-Identifier: Apache-2.0
#include "app/decoder.hpp"

#include "core/documents.hpp"
#include "core/require.hpp"

#include <algorithm>
#include <string>

namespace qnext {
namespace {

template <class Storage>
std::int64_t state_bytes(const Model<Storage>& model, int capacity) {
  Arena measure;
  model.reserve_state(measure, 1, capacity);
  return measure.peak();
}

Tensor<const int, 1> on_device(const int* tokens, int count) {
  const Tensor<int, 1> device("tokens", count);
  Kokkos::deep_copy(device, HostTensor<const int, 1>(tokens, count));
  return device;
}

}  // namespace

template <class Storage>
Decoder<Storage>::Decoder(const Model<Storage>& model, int capacity, int piece)
    : model_(model),
      capacity_(capacity),
      piece_(piece),
      state_arena_(state_bytes(model, capacity)),
      memory_(model, {piece, 1, 1}),
      state_(model.reserve_state(state_arena_, 1, capacity)),
      logits_("logits", 1, model.config().vocabulary) {
  model.clear(exec_, state_);
}

template <class Storage>
void Decoder<Storage>::feed_piece(const int* tokens, int count) {
  const Microbatch batch{on_device(tokens, count), {}, make_documents({count}, 1, {length_})};
  const MicrobatchShape shape{count, 1, 1};
  auto& saved = memory_.slot(0, 0, shape).saved;
  const auto& work = memory_.work(shape);
  if (count > 1) {
    model_.forward(exec_, batch, Dropout{}, saved, work, &state_, &state_);
  } else {
    model_.step(exec_, batch, state_, saved, work);
  }
  length_ += count;
  const int D = model_.config().width;
  const Tensor<const Storage, 2> last(saved.normed.data() + std::int64_t{count - 1} * D, 1, D);
  model_.logits(exec_, last, logits_);
}

template <class Storage>
std::vector<double> Decoder<Storage>::feed(const std::vector<int>& tokens) {
  require(!tokens.empty(), "no tokens to decode behind");
  require(length_ + static_cast<int>(tokens.size()) <= capacity_,
          "the document outgrows its " + std::to_string(capacity_) + " tokens");
  for (std::size_t first = 0; first < tokens.size(); first += piece_) {
    feed_piece(tokens.data() + first,
               static_cast<int>(std::min<std::size_t>(piece_, tokens.size() - first)));
  }
  const auto host = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), logits_);
  return std::vector<double>(host.data(), host.data() + host.size());
}

template class Decoder<bf16>;
template class Decoder<float>;
template class Decoder<double>;

}  // namespace qnext
