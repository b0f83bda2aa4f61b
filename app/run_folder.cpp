// SPDX-License-Identifier: Apache-2.0
#include "app/run_folder.hpp"

#include "core/require.hpp"
#include "io/deck.hpp"

#include <cerrno>
#include <cstring>
#include <fstream>

namespace qnext {
namespace {

void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  file.close();
  if (!file) {
    throw EnvironmentError(path.string() + ": cannot be written: " + std::strerror(errno));
  }
}

}  // namespace

RunFolder::RunFolder(const std::string& path) : path_(path) {
  std::error_code error;
  std::filesystem::create_directories(checkpoints(), error);
  if (error) {
    throw EnvironmentError(path + ": the run folder cannot be made: " + error.message());
  }
}

void RunFolder::write_deck(const Deck& deck) const {
  write_text(file("deck.yaml"), deck.text());
  write_text(file("resolved.yaml"), deck.resolved());
}

bool RunFolder::asks(const char* name) const {
  std::error_code ignored;
  return std::filesystem::exists(file(name), ignored);
}

void RunFolder::answer(const char* name) const {
  std::error_code ignored;
  std::filesystem::remove(file(name), ignored);
}

}  // namespace qnext
