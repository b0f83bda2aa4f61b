// SPDX-License-Identifier: Apache-2.0
#include "app/model_start.hpp"

#include "app/import_hugging_face.hpp"
#include "app/peft_adapter.hpp"
#include "app/restart.hpp"
#include "io/checkpoint.hpp"

namespace qnext {

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
      read_checkpoint_tensors(path, table, {}, world, init.unused);
      origin = HuggingFaceOrigin::of_checkpoint(read_checkpoint_content(path));
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
