// SPDX-License-Identifier: Apache-2.0
#include "app/model_start.hpp"

#include "app/import_hugging_face.hpp"
#include "app/peft_adapter.hpp"
#include "app/restart.hpp"
#include "core/require.hpp"
#include "io/checkpoint.hpp"
#include "io/deck.hpp"

#include <fmt/format.h>

namespace qnext {
namespace {

// Adapters that the checkpoint does not have begin afresh beside its weights.
void start_from_checkpoint(const std::string& path, const CheckpointContent& content,
                           const std::string& unused, std::uint64_t seed,
                           const ParameterTable& table, const Communicator& world) {
  const bool has_adapters = Deck::parse(content.resolved_deck, path + ":/deck/resolved")
                                .section("fine_tune")
                                .section("lora")
                                .get("r", 0) > 0;
  const bool wants_adapters = table.adapters().any();
  if (has_adapters && !wants_adapters) {
    throw InputError(fmt::format(
        "model.init = {}: has adapters beside its weights, and all weights are trained here; "
        "qnext convert {} FOLDER merges them, and model.init=FOLDER begins with that",
        path, path));
  }
  if (has_adapters || !wants_adapters) {
    read_checkpoint_tensors(path, table, {}, world, unused);
    return;
  }
  read_checkpoint_tensors(path, table, {}, world, unused,
                          [](const Parameter& row) { return !row.of_adapter; });
  initialise_adapters(table, seed);
}

}  // namespace

std::optional<HuggingFaceOrigin> start_weights(const InitSettings& init, std::uint64_t seed,
                                               const ParameterTable& table,
                                               const Communicator& world) {
  std::optional<HuggingFaceOrigin> origin;
  switch (init.kind) {
    case InitSettings::Kind::random:
      initialise(table, seed);
      break;
    case InitSettings::Kind::checkpoint: {
      const std::string path = checkpoint_of(init.path, world);
      const CheckpointContent content = read_checkpoint_content(path);
      start_from_checkpoint(path, content, init.unused, seed, table, world);
      origin = HuggingFaceOrigin::of_checkpoint(content);
      break;
    }
    case InitSettings::Kind::hugging_face:
      import_hugging_face(init.path, table, world);
      initialise_adapters(table, seed);
      origin = HuggingFaceOrigin::of_folder(init.path);
      break;
  }
  if (!init.adapter.empty()) {
    import_peft(init.adapter, table);
  }
  if (init.member > 0) {
    move_by_one_rounding(table, init.member);
    if (origin) {
      ++origin->updates;  // the numbers are no longer those of the folder
    }
  }
  return origin;
}

}  // namespace qnext
