// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace qnext {

class Deck;

/// The folder of a run: where its files are, and what a user asks of it by touching files.
class RunFolder {
 public:
  /// Makes the folder when it is missing.
  explicit RunFolder(const std::string& path);

  /// The deck as given and with every default and override.
  void write_deck(const Deck& deck) const;

  std::filesystem::path file(const char* name) const { return path_ / name; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  const std::filesystem::path& path() const { return path_; }

  /// Whether a user has touched the file, and its removal when what it asks for is done.
  bool asks(const char* name) const;
  void answer(const char* name) const;

 private:
  std::filesystem::path path_;
};

}  // namespace qnext
