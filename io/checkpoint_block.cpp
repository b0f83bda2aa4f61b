// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_block.hpp"

#include "core/require.hpp"
#include "io/hash.hpp"
#include "io/posix_file.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string_view>

namespace qnext {
namespace {

constexpr std::string_view magic = "qnext checkpoint";
constexpr std::int64_t smallest_block = 512;
constexpr std::int64_t largest_block = std::int64_t{1} << 30;

struct Header {
  char magic[16];
  std::int64_t format;
  std::int64_t block_bytes;
  std::int64_t file_bytes;
  std::int64_t step;
  std::int64_t tensors;
  char hash[32];
};
static_assert(sizeof(Header) == 88 && magic.size() == sizeof(Header::magic));
static_assert(sizeof(CheckpointBlock::Range) == 16);

/// Of the block as it stands in memory, with zeros for the hash, and of the file between tensors.
std::string metadata_hash(const PosixFile& file, const std::vector<std::byte>& block,
                          const std::vector<CheckpointBlock::Range>& tensors) {
  Hash hash;
  hash.add(block.data(), block.size());
  std::vector<std::byte> piece(1 << 20);
  const auto add_file = [&](std::int64_t begin, std::int64_t end) {
    while (begin < end) {
      const std::int64_t count = std::min<std::int64_t>(end - begin, piece.size());
      file.read(begin, piece.data(), count);
      hash.add(piece.data(), count);
      begin += count;
    }
  };
  std::int64_t begin = static_cast<std::int64_t>(block.size());
  for (const auto& tensor : tensors) {
    add_file(begin, tensor.begin);
    begin = tensor.begin + tensor.bytes;
  }
  add_file(begin, file.bytes());
  return hash.digits();
}

[[noreturn]] void damaged(const PosixFile& file, const std::string& what) {
  throw BadNumberError(file.path() + ": is damaged: " + what);
}

Header read_header(const PosixFile& file) {
  Header header;
  const std::int64_t found = file.bytes();
  std::string start(std::min<std::int64_t>(found, magic.size()), '\0');
  file.read(0, start.data(), static_cast<std::int64_t>(start.size()));
  if (start != magic.substr(0, start.size()) || start.empty()) {
    throw InputError(file.path() + ": is not a checkpoint of qnext: it does not start with \"" +
                     std::string(magic) + "\"");
  }
  if (found < smallest_block) {
    damaged(file, "it has " + std::to_string(found) + " bytes, less than the shortest");
  }
  file.read(0, &header, sizeof(header));
  if (header.format != CheckpointBlock::current_format) {
    throw InputError(file.path() + ": has the format " + std::to_string(header.format) +
                     ", wanted is " + std::to_string(CheckpointBlock::current_format));
  }
  if (header.file_bytes != found) {
    damaged(file, "it has " + std::to_string(found) + " bytes, wanted are " +
                      std::to_string(header.file_bytes));
  }
  const bool power_of_two = (header.block_bytes & (header.block_bytes - 1)) == 0;
  if (header.block_bytes < smallest_block || header.block_bytes > largest_block || !power_of_two ||
      header.block_bytes > found || header.tensors < 0 || header.tensors > largest_block / 16 ||
      header.block_bytes < CheckpointBlock::bytes_for(header.tensors)) {
    damaged(file, "its first block says it has " + std::to_string(header.block_bytes) + " bytes");
  }
  return header;
}

}  // namespace

std::int64_t CheckpointBlock::bytes_for(std::int64_t tensors) {
  const std::int64_t needed = static_cast<std::int64_t>(sizeof(Header) + tensors * sizeof(Range));
  std::int64_t bytes = smallest_block;
  while (bytes < needed) {
    bytes *= 2;
  }
  return bytes;
}

void seal_checkpoint(const std::string& path, CheckpointBlock block) {
  const auto file = PosixFile::open_for_writing(path);
  std::sort(block.tensors.begin(), block.tensors.end(),
            [](const auto& a, const auto& b) { return a.begin < b.begin; });
  Header header{};
  std::copy(magic.begin(), magic.end(), header.magic);
  header.format = CheckpointBlock::current_format;
  header.tensors = static_cast<std::int64_t>(block.tensors.size());
  header.block_bytes = CheckpointBlock::bytes_for(header.tensors);
  header.file_bytes = file.bytes();
  header.step = block.step;
  std::vector<std::byte> bytes(header.block_bytes);
  std::memcpy(bytes.data(), &header, sizeof(header));
  if (!block.tensors.empty()) {
    std::memcpy(bytes.data() + sizeof(header), block.tensors.data(),
                block.tensors.size() * sizeof(CheckpointBlock::Range));
  }
  const std::string digits = metadata_hash(file, bytes, block.tensors);
  std::memcpy(bytes.data() + offsetof(Header, hash), digits.data(), sizeof(header.hash));
  file.write(0, bytes.data(), header.block_bytes);
  file.flush();
}

CheckpointBlock check_checkpoint_block(const std::string& path) {
  if (!std::filesystem::is_regular_file(path)) {
    throw InputError(path + ": no such file");
  }
  const auto file = PosixFile::open_for_reading(path);
  const Header header = read_header(file);
  std::vector<std::byte> bytes(header.block_bytes);
  file.read(0, bytes.data(), header.block_bytes);
  std::memset(bytes.data() + offsetof(Header, hash), 0, sizeof(header.hash));

  CheckpointBlock block{header.step, header.file_bytes, {}};
  block.tensors.resize(header.tensors);
  if (header.tensors > 0) {
    std::memcpy(block.tensors.data(), bytes.data() + sizeof(Header),
                block.tensors.size() * sizeof(CheckpointBlock::Range));
  }
  std::int64_t end = header.block_bytes;
  for (const auto& tensor : block.tensors) {
    if (tensor.begin < end || tensor.bytes < 0 || tensor.bytes > header.file_bytes - tensor.begin) {
      damaged(file, "its first block places a tensor of " + std::to_string(tensor.bytes) +
                        " bytes at byte " + std::to_string(tensor.begin));
    }
    end = tensor.begin + tensor.bytes;
  }
  const std::string found = metadata_hash(file, bytes, block.tensors);
  const std::string wanted(header.hash, sizeof(header.hash));
  if (found != wanted) {
    damaged(file, "the hash of its metadata is " + found + ", wanted is " + wanted);
  }
  return block;
}

}  // namespace qnext
