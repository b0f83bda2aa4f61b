// SPDX-License-Identifier: Apache-2.0
#include "io/token_source.hpp"
#include "tests/fuzz/target.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace qnext::fuzz {
namespace {

template <class T>
void append(std::string& text, std::initializer_list<T> numbers) {
  for (const T number : numbers) {
    text.append(reinterpret_cast<const char*>(&number), sizeof(number));
  }
}

/// Two sequences of 3 and 2 ids, each a document. The first byte of an input is the length of the
/// file of ids, which follows; the index is the rest.
std::string files_of(std::uint8_t code, int size) {
  std::string text(1, static_cast<char>(5 * size));
  text.append(static_cast<std::size_t>(5 * size), '\1');
  text.append("MMIDIDX\0\0", 9);
  append<std::uint64_t>(text, {1});
  append<std::uint8_t>(text, {code});
  append<std::uint64_t>(text, {2, 3});
  append<std::int32_t>(text, {3, 2});
  append<std::int64_t>(text, {0, 3 * size});
  append<std::int64_t>(text, {0, 1, 2});
  return text;
}

/// Two files whose names differ in what stands behind the point, as the reader wants it.
class Pair {
 public:
  Pair() {
    std::string name = "/dev/shm/qnext_fuzz_XXXXXX";
    folder_ = mkdtemp(name.data()) == nullptr ? std::string(".") : name;
  }
  ~Pair() { std::filesystem::remove_all(folder_); }

  std::string prefix() const { return folder_ + "/tokens"; }
  void write(const std::string& ids, const std::string& index) const {
    std::ofstream(prefix() + ".bin", std::ios::binary) << ids;
    std::ofstream(prefix() + ".idx", std::ios::binary) << index;
  }

 private:
  std::string folder_;
};

}  // namespace

std::vector<std::string> seeds() {
  return {files_of(1, 1), files_of(3, 2), files_of(4, 4), files_of(5, 8), files_of(8, 2)};
}

std::vector<std::string> words() {
  return {std::string(8, '\0'), std::string(8, '\xff'), std::string("\1\0\0\0", 4), "MMIDIDX"};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const fuzz::Pair files;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const std::size_t ids = size == 0 ? 0 : std::min<std::size_t>(data[0], size - 1);
  files.write(size == 0 ? "" : text.substr(1, ids), size == 0 ? "" : text.substr(1 + ids));
  return fuzz::refuse_or_accept([&] {
    const auto source = open_indexed(files.prefix());
    std::vector<std::int32_t> all(static_cast<std::size_t>(source->tokens()));
    source->read(0, source->tokens(), all.data());
    std::int64_t before = 0;
    for (std::int64_t d = 0; d <= source->documents(); ++d) {
      const std::int64_t begin = source->document_begin(d);
      if (begin < before || begin > source->tokens()) {
        throw std::logic_error("a document begins outside of the tokens");
      }
      before = begin;
    }
    source->document_of(source->tokens() - 1);
    source->most_documents(2);
  });
}
