// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_folder.hpp"

#include "io/checkpoint_block.hpp"
#include "io/posix_file.hpp"
#include "parallel/all_or_none.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <functional>
#include <optional>
#include <sstream>
#include <string_view>

namespace qnext {
namespace {

namespace fs = std::filesystem;

std::string name_of_step(std::int64_t step) {
  return "step_" + std::to_string(step) + ".h5";
}

/// N of step_N.h5, written as name_of_step writes it.
std::optional<std::int64_t> step_of(const std::string& name) {
  constexpr std::string_view prefix = "step_";
  std::int64_t step = -1;
  if (name.starts_with(prefix)) {
    std::from_chars(name.data() + prefix.size(), name.data() + name.size(), step);
  }
  return step >= 0 && name == name_of_step(step) ? std::optional(step) : std::nullopt;
}

/// Nothing when there is no folder.
fs::directory_iterator entries_of(const std::string& folder) {
  return fs::is_directory(folder) ? fs::directory_iterator(folder) : fs::directory_iterator();
}

/// Of the files step_N.h5, the highest first.
std::vector<std::int64_t> steps_in(const std::string& folder) {
  std::vector<std::int64_t> steps;
  for (const auto& entry : entries_of(folder)) {
    if (const auto step = step_of(entry.path().filename().string())) {
      steps.push_back(*step);
    }
  }
  std::sort(steps.begin(), steps.end(), std::greater<>());
  return steps;
}

}  // namespace

CheckpointFolder::CheckpointFolder(std::string folder, int keep)
    : folder_(std::move(folder)), keep_(std::max(1, keep)) {}

std::string CheckpointFolder::path_of(std::int64_t step) const {
  return folder_ + "/" + name_of_step(step);
}

std::string CheckpointFolder::best() const {
  return folder_ + "/best.h5";
}

std::vector<std::string> CheckpointFolder::remove_leftovers() const {
  std::vector<std::string> leftovers;
  for (const auto& entry : entries_of(folder_)) {
    if (entry.path().extension() == ".part") {
      leftovers.push_back(entry.path().string());
    }
  }
  std::sort(leftovers.begin(), leftovers.end());
  for (const std::string& path : leftovers) {
    std::error_code error;
    if (!fs::remove(path, error)) {
      throw EnvironmentError(path + ": cannot be removed: " + error.message());
    }
  }
  return leftovers;
}

// The newest first. The best is the last resort: older than all others, or another name of one.
std::vector<std::string> CheckpointFolder::candidates() const {
  std::vector<std::string> paths;
  for (const std::int64_t step : steps_in(folder_)) {
    paths.push_back(path_of(step));
  }
  if (fs::exists(best())) {
    paths.push_back(best());
  }
  return paths;
}

CheckpointFolder::Found CheckpointFolder::find_newest(const Communicator& world) const {
  // What the first rank sees in the folder counts.
  std::string names = world.first() ? fmt::format("{}", fmt::join(candidates(), "\n")) : "";
  world.broadcast(names, 0);
  std::istringstream lines(names);
  Found found;
  for (std::string path; std::getline(lines, path);) {
    try {
      verify_checkpoint(path, world);
      found.path = path;
      found.step = check_checkpoint_block(path).step;
      break;
    } catch (const Error& error) {
      found.refused.push_back({path, error.what()});
    }
  }
  return found;
}

std::string CheckpointFolder::write(const CheckpointContent& content, const ParameterTable& table,
                                    const std::vector<TensorFamily>& families,
                                    const std::vector<Shards>& shards,
                                    const Communicator& world) const {
  const std::string path = path_of(content.step);
  all_or_none(world, [&] {
    std::error_code error;
    if (world.first()) {
      fs::create_directories(folder_, error);
    }
    if (error) {
      throw EnvironmentError(folder_ + ": cannot be made: " + error.message());
    }
  });
  write_checkpoint(path, content, table, families, shards, world);
  all_or_none(world, [&] {
    if (world.first()) {
      remove_old(content.step);
    }
  });
  return path;
}

void CheckpointFolder::keep_as_best(std::int64_t step) const {
  const std::string part = best() + ".part";
  std::error_code error;
  fs::remove(part, error);
  fs::create_hard_link(path_of(step), part, error);
  if (error) {  // a file system without links
    fs::copy_file(path_of(step), part, error);
    if (error) {
      throw EnvironmentError(best() + ": cannot be made: " + error.message());
    }
    PosixFile::open_for_writing(part).flush();
  }
  replace_file(part, best());
  // Renaming one of two names of the same file does nothing: best.h5 was this one already.
  fs::remove(part, error);
}

// Files of a higher step are not ours to judge: a run that went on from an older checkpoint leaves
// them alone and never counts them.
void CheckpointFolder::remove_old(std::int64_t newest) const {
  int kept = 0;
  for (const std::int64_t step : steps_in(folder_)) {
    if (step <= newest && ++kept > keep_) {
      std::error_code error;
      fs::remove(path_of(step), error);
      if (error) {
        throw EnvironmentError(path_of(step) + ": cannot be removed: " + error.message());
      }
    }
  }
}

}  // namespace qnext
