// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/mapped_file.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>

namespace qnext {
namespace {

struct IdType {
  int code;
  int size;
  std::string_view name;
};
constexpr IdType id_types[] = {{1, 1, "uint8"}, {2, 1, "int8"},  {3, 2, "int16"},
                               {4, 4, "int32"}, {5, 8, "int64"}, {8, 2, "uint16"}};

constexpr std::string_view magic("MMIDIDX\0\0", 9);
constexpr std::int64_t header = 34;  // magic 9, version 8, type 1, sequences 8, documents 8

std::string prefix_of(const std::string& path) {
  const bool suffix = path.ends_with(".bin") || path.ends_with(".idx");
  return suffix ? path.substr(0, path.size() - 4) : path;
}

// The index is little-endian and not aligned:
//   header | int32 lengths (n) | int64 first bytes (n) | int64 documents (m) | int8 modes (n) or
//   none
// A document is a run of sequences; entry d of the last table is the first sequence of document d.
class IndexedSource : public TokenSource {
 public:
  explicit IndexedSource(const std::string& prefix)
      : name_(prefix + ".bin"), index_(prefix + ".idx"), ids_(prefix + ".bin") {
    read_header();
    check_sequences();
    check_documents();
    if (const std::string mask = prefix + ".mask"; std::filesystem::exists(mask)) {
      mask_.emplace(mask);
      if (mask_->size() != tokens()) {
        throw InputError(fmt::format("{}: has {} bytes, expected one for each of {} tokens", mask,
                                     mask_->size(), tokens()));
      }
    }
  }

  const std::string& name() const override { return name_; }
  std::int64_t tokens() const override { return ids_.size() / type_.size; }
  std::int64_t documents() const override { return documents_ - 1; }
  std::int64_t document_begin(std::int64_t d) const override {
    const std::int64_t first = document(d);
    return first == sequences_ ? tokens() : pointer(first) / type_.size;
  }

  bool has_given() const override { return mask_.has_value(); }
  void read_learnt(std::int64_t begin, std::int64_t count, std::uint8_t* learnt) const override {
    if (mask_) {
      std::copy_n(mask_->data() + begin, count, learnt);
    } else {
      TokenSource::read_learnt(begin, count, learnt);
    }
  }

  void read(std::int64_t begin, std::int64_t count, std::int32_t* ids) const override {
    switch (type_.code) {
      case 1:
        return copy<std::uint8_t>(begin, count, ids);
      case 2:
        return copy<std::int8_t>(begin, count, ids);
      case 3:
        return copy<std::int16_t>(begin, count, ids);
      case 4:
        return copy<std::int32_t>(begin, count, ids);
      case 5:
        return copy<std::int64_t>(begin, count, ids);
      default:
        return copy<std::uint16_t>(begin, count, ids);
    }
  }

 private:
  std::int32_t length(std::int64_t i) const { return index_.load<std::int32_t>(header + 4 * i); }
  std::int64_t pointer(std::int64_t i) const {
    return index_.load<std::int64_t>(header + 4 * sequences_ + 8 * i);
  }
  std::int64_t document(std::int64_t d) const {
    return index_.load<std::int64_t>(header + 12 * sequences_ + 8 * d);
  }

  template <class... Arguments>
  [[noreturn]] void refuse(fmt::format_string<Arguments...> text, Arguments&&... arguments) const {
    throw InputError(fmt::format("{}: {}", index_.path(),
                                 fmt::format(text, std::forward<Arguments>(arguments)...)));
  }

  void read_header() {
    if (index_.size() < header) {
      refuse("{} bytes, expected at least the {} of a header", index_.size(), header);
    }
    if (std::memcmp(index_.data(), magic.data(), magic.size()) != 0) {
      refuse("does not start with MMIDIDX, the mark of Megatron-LM's indexed files");
    }
    if (const auto version = index_.load<std::uint64_t>(9); version != 1) {
      refuse("version {}, expected 1", version);
    }
    const int code = index_.load<std::uint8_t>(17);
    for (const IdType& type : id_types) {
      if (type.code == code) {
        type_ = type;
      }
    }
    if (type_.code == 0) {
      refuse("data type {}, expected 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64 or 8 uint16", code);
    }
    const auto sequences = index_.load<std::uint64_t>(18);
    const auto documents = index_.load<std::uint64_t>(26);
    const auto room = static_cast<std::uint64_t>(index_.size() - header);
    // Divisions, because a hostile count times its size would wrap around.
    if (sequences > room / 12 || documents > (room - 12 * sequences) / 8) {
      refuse("{} sequences and {} documents do not fit into {} bytes", sequences, documents,
             index_.size());
    }
    const std::uint64_t rest = room - 12 * sequences - 8 * documents;
    if (rest != 0 && rest != sequences) {
      refuse("{} bytes are left behind {} sequences and {} documents, expected none", rest,
             sequences, documents);
    }
    sequences_ = static_cast<std::int64_t>(sequences);
    documents_ = static_cast<std::int64_t>(documents);
  }

  void check_sequences() const {
    std::int64_t end = 0;
    for (std::int64_t i = 0; i < sequences_; ++i) {
      if (length(i) < 0) {
        refuse("sequence {} has the length {}", i, length(i));
      }
      if (pointer(i) != end) {
        refuse("sequence {} starts at byte {}, expected {}: no overlap, no gap", i, pointer(i),
               end);
      }
      end += static_cast<std::int64_t>(length(i)) * type_.size;
      if (end > ids_.size()) {
        refuse("sequence {} ends at byte {}, but {} has {}", i, end, ids_.path(), ids_.size());
      }
    }
    if (end != ids_.size()) {
      refuse("describes {} bytes, but {} has {}", end, ids_.path(), ids_.size());
    }
    if (end == 0) {
      refuse("describes no token");
    }
  }

  void check_documents() const {
    if (documents_ < 2 || document(0) != 0 || document(documents_ - 1) != sequences_) {
      refuse("the documents must run from sequence 0 to {}", sequences_);
    }
    for (std::int64_t d = 1; d < documents_; ++d) {
      if (document(d) < document(d - 1) || document(d) > sequences_) {
        refuse("document {} starts with sequence {}, the one before with {}", d, document(d),
               document(d - 1));
      }
    }
  }

  template <class Id>
  void copy(std::int64_t begin, std::int64_t count, std::int32_t* ids) const {
    for (std::int64_t i = 0; i < count; ++i) {
      const auto id = static_cast<std::int64_t>(
          ids_.load<Id>((begin + i) * static_cast<std::int64_t>(sizeof(Id))));
      if (id < 0 || id > std::numeric_limits<std::int32_t>::max()) {
        throw InputError(fmt::format("{}: token {} is {}, expected 0 or more and at most {}", name_,
                                     begin + i, id, std::numeric_limits<std::int32_t>::max()));
      }
      ids[i] = static_cast<std::int32_t>(id);
    }
  }

  std::string name_;
  MappedFile index_, ids_;
  std::optional<MappedFile> mask_;
  IdType type_{};
  std::int64_t sequences_ = 0;  // n
  std::int64_t documents_ = 0;  // m, one more than there are documents
};

}  // namespace

std::unique_ptr<TokenSource> open_indexed(const std::string& path) {
  return std::make_unique<IndexedSource>(prefix_of(path));
}

}  // namespace qnext
