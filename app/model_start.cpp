// SPDX-License-Identifier: Apache-2.0
#include "app/model_start.hpp"

#include "app/import_hugging_face.hpp"
#include "app/restart.hpp"
#include "io/checkpoint.hpp"

namespace qnext {

void start_weights(const InitSettings& init, std::uint64_t seed, const ParameterTable& table,
                   const Communicator& world) {
  switch (init.kind) {
    case InitSettings::Kind::random:
      initialise(table, seed);
      break;
    case InitSettings::Kind::checkpoint:
      read_checkpoint_tensors(checkpoint_of(init.path, world), table, {}, world);
      break;
    case InitSettings::Kind::hugging_face:
      import_hugging_face(init.path, table, world);
      break;
  }
  if (init.member > 0) {
    move_by_one_rounding(table, init.member);
  }
}

}  // namespace qnext
