// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "io/posix_file.hpp"

#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

namespace qnext {

/// A folder that gets its name when it is whole, and goes when it does not.
class FolderPart {
 public:
  explicit FolderPart(std::string folder) : folder_(std::move(folder)), part_(folder_ + ".part") {
    for (const std::string& path : {folder_, part_}) {
      if (std::filesystem::exists(path)) {
        throw InputError(path + ": is there already; it is not replaced");
      }
    }
    std::error_code error;
    if (!std::filesystem::create_directory(part_, error)) {
      throw EnvironmentError(part_ + ": cannot be made: " + error.message());
    }
  }
  FolderPart(const FolderPart&) = delete;
  FolderPart& operator=(const FolderPart&) = delete;
  ~FolderPart() {
    if (!whole_) {
      std::error_code ignored;
      std::filesystem::remove_all(part_, ignored);
    }
  }

  const std::string& path() const { return part_; }
  void finish() {
    replace_file(part_, folder_);
    whole_ = true;
  }

 private:
  std::string folder_, part_;
  bool whole_ = false;
};

}  // namespace qnext
