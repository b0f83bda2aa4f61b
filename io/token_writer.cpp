// SPDX-License-Identifier: Apache-2.0
#include "io/token_writer.hpp"

#include "core/require.hpp"
#include "io/json.hpp"
#include "io/mapped_file.hpp"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <vector>

namespace qnext {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr int most_of_16_bits = 65500;
constexpr std::size_t buffered = 1 << 22;  // bytes of a file that are written at once

template <class T>
void append(std::vector<char>& bytes, T value) {
  const std::size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

}  // namespace

class TokenWriter::Growing {
 public:
  Growing(const std::string& path, std::int64_t bytes) : file_(open(path, bytes)), bytes_(bytes) {}

  template <class T>
  void add(T value) {
    append(buffer_, value);
    if (buffer_.size() >= buffered) {
      write();
    }
  }

  void flush() {
    write();
    file_.flush();
  }

 private:
  static PosixFile open(const std::string& path, std::int64_t bytes) {
    std::ofstream(path, std::ios::binary | std::ios::app).flush();  // so that it is there
    std::error_code error;
    fs::resize_file(path, static_cast<std::uintmax_t>(bytes), error);
    if (error) {
      throw EnvironmentError(path + ": cannot be written: " + error.message());
    }
    return PosixFile::open_for_writing(path);
  }

  void write() {
    file_.write(bytes_, buffer_.data(), static_cast<std::int64_t>(buffer_.size()));
    bytes_ += static_cast<std::int64_t>(buffer_.size());
    buffer_.clear();
  }

  PosixFile file_;
  std::int64_t bytes_;
  std::vector<char> buffer_;
};

TokenWriter::TokenWriter(const std::string& prefix, int vocabulary, const std::string& settings)
    : prefix_(prefix), settings_(settings), id_bytes_(vocabulary < most_of_16_bits ? 2 : 4) {
  const std::string folder = folder_of(prefix);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) {
    throw EnvironmentError(folder + ": the folder cannot be made: " + error.message());
  }
  alone_.emplace(PosixFile::open_alone(prefix + ".bin.part"));
  if (fs::exists(prefix + ".progress")) {
    take_up();
  }
  ids_ = std::make_unique<Growing>(prefix + ".bin.part", progress_.tokens * id_bytes_);
  lengths_ = std::make_unique<Growing>(prefix + ".idx.part", progress_.documents * 4);
  mask_ = std::make_unique<Growing>(prefix + ".mask.part", progress_.tokens);
}

TokenWriter::~TokenWriter() = default;

// Whatever is not as it was left is begun anew.
void TokenWriter::take_up() {
  TokenProgress found;
  try {
    const Json json = Json::read(prefix_ + ".progress");
    const auto number = [&](const char* key) {
      const Json* const value = json.find(key);
      return value == nullptr ? -1 : value->integer(key);
    };
    const Json* const settings = json.find("settings");
    found = {number("file"), number("records"), number("documents"), number("tokens"),
             number("learnt")};
    if (settings == nullptr || settings->text("settings") != settings_ || found.file < 0 ||
        found.records < 0 || found.documents < 0 || found.tokens < 0 || found.learnt < 0) {
      return;
    }
  } catch (const InputError&) {
    return;
  }
  const auto holds = [&](const char* suffix, std::int64_t bytes) {
    std::error_code error;
    const auto size = fs::file_size(prefix_ + suffix, error);
    return !error && static_cast<std::int64_t>(size) >= bytes;
  };
  if (holds(".bin.part", found.tokens * id_bytes_) && holds(".idx.part", found.documents * 4) &&
      holds(".mask.part", found.tokens)) {
    progress_ = found;
  }
}

void TokenWriter::add(const Document& document) {
  if (document.ids.empty()) {
    return;
  }
  for (const int id : document.ids) {
    if (id_bytes_ == 2) {
      ids_->add(static_cast<std::uint16_t>(id));
    } else {
      ids_->add(static_cast<std::int32_t>(id));
    }
  }
  for (const std::uint8_t learnt : document.mask) {
    mask_->add(learnt);
    progress_.learnt += learnt;
  }
  lengths_->add(static_cast<std::int32_t>(document.ids.size()));
  progress_.tokens += static_cast<std::int64_t>(document.ids.size());
  ++progress_.documents;
}

void TokenWriter::save(std::int64_t file, std::int64_t records) {
  ids_->flush();
  lengths_->flush();
  mask_->flush();
  progress_.file = file;
  progress_.records = records;
  const std::string part = prefix_ + ".progress.part";
  std::ofstream out(part, std::ios::binary);
  out << fmt::format(
      R"({{"settings": "{}", "file": {}, "records": {}, "documents": {}, "tokens": {}, "learnt": {}}})"
      "\n",
      settings_, progress_.file, progress_.records, progress_.documents, progress_.tokens,
      progress_.learnt);
  out.close();
  if (!out) {
    throw EnvironmentError(part + ": cannot be written");
  }
  replace_file(part, prefix_ + ".progress");
}

// header | int32 lengths (n) | int64 first bytes (n) | int64 documents (n + 1): one sequence each.
void TokenWriter::write_index() {
  const std::string lengths_path = prefix_ + ".idx.part", path = prefix_ + ".idx.whole.part";
  const MappedFile lengths(lengths_path);
  const std::int64_t n = progress_.documents;
  Growing index(path, 0);
  for (const char letter : magic) {
    index.add(letter);
  }
  index.add(std::uint64_t{1});
  index.add(static_cast<std::uint8_t>(id_bytes_ == 2 ? 8 : 4));
  index.add(static_cast<std::uint64_t>(n));
  index.add(static_cast<std::uint64_t>(n + 1));
  for (std::int64_t i = 0; i < n; ++i) {
    index.add(lengths.load<std::int32_t>(4 * i));
  }
  std::int64_t begin = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    index.add(begin);
    begin += std::int64_t{lengths.load<std::int32_t>(4 * i)} * id_bytes_;
  }
  for (std::int64_t i = 0; i <= n; ++i) {
    index.add(i);
  }
  index.flush();
}

void TokenWriter::finish() {
  if (progress_.tokens == 0) {
    throw InputError(prefix_ + ": the input holds no token");
  }
  ids_->flush();
  lengths_->flush();
  mask_->flush();
  write_index();
  const bool masked = progress_.learnt < progress_.tokens;
  fs::remove(prefix_ + ".idx");  // without it, nobody takes the other files for whole ones
  replace_file(prefix_ + ".bin.part", prefix_ + ".bin");
  fs::remove(prefix_ + ".mask");
  if (masked) {
    replace_file(prefix_ + ".mask.part", prefix_ + ".mask");
  }
  replace_file(prefix_ + ".idx.whole.part", prefix_ + ".idx");
  for (const char* const suffix : {".progress", ".idx.part", ".mask.part"}) {
    fs::remove(prefix_ + suffix);
  }
}

}  // namespace qnext
