// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/checkpoint.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// The checkpoints of a run: step_N.h5, and best.h5, which is the best by evaluation.
///
/// There is no file that says which one is the newest and could be wrong: the newest is the one
/// with the highest step that is whole.
class CheckpointFolder {
 public:
  struct Refused {
    std::string path;
    std::string reason;
  };
  struct Found {
    std::string path;  // empty: there is none
    std::int64_t step = 0;
    std::vector<Refused> refused;  // newer ones, each with the reason
  };

  /// `keep` newest checkpoints stay, at least one. The folder may be missing until one is written.
  CheckpointFolder(std::string folder, int keep);

  const std::string& folder() const { return folder_; }
  std::string path_of(std::int64_t step) const;
  std::string best() const;

  /// Removes what a killed run left half-written, and says what it was. Call it when no other run
  /// writes here.
  std::vector<std::string> remove_leftovers() const;

  /// The newest whole checkpoint. Every byte of a candidate is read, by all ranks of `world`
  /// together, and compared with its hash.
  Found find_newest(const Communicator& world = {}) const;

  /// Writes step_N.h5, all ranks of `world` together (write_checkpoint); when it is safe, removes
  /// older ones beyond the `keep` newest. Returns its path.
  std::string write(const CheckpointContent& content, const ParameterTable& table,
                    const std::vector<TensorFamily>& families,
                    const std::vector<Shards>& shards = {}, const Communicator& world = {}) const;

  /// Gives the checkpoint of that step the name best.h5 as well: it stays when step_N.h5 goes.
  void keep_as_best(std::int64_t step) const;

 private:
  std::vector<std::string> candidates() const;
  void remove_old(std::int64_t newest) const;

  std::string folder_;
  int keep_;
};

}  // namespace qnext
