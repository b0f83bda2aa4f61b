// SPDX-License-Identifier: Apache-2.0
#include "io/tensorboard.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <unistd.h>

namespace qnext {
namespace {

// The reflected polynomial 0x1edc6f41, a byte at a time.
constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    }
    table[byte] = crc;
  }
  return table;
}

template <class T>
std::string little_endian(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

// The wire form of protocol buffers: a field is a key (number * 8 + type) and its value.
enum class Wire { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) {
    bytes += static_cast<char>((value & 0x7f) | 0x80);
  }
  return bytes + static_cast<char>(value);
}

std::string key(int number, Wire type) {
  return varint(static_cast<std::uint64_t>(number) * 8 + static_cast<std::uint64_t>(type));
}

std::string bytes_field(int number, std::string_view bytes) {
  return key(number, Wire::bytes) + varint(bytes.size()) + std::string(bytes);
}

[[noreturn]] void cannot_write(const std::string& path) {
  // A buffer that failed to empty before has kept no reason.
  throw EnvironmentError(
      fmt::format("{}: cannot be written: {}", path,
                  errno != 0 ? std::strerror(errno) : "an earlier write failed"));
}

double seconds_since_epoch() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

}  // namespace

std::uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr auto table = crc_table();
  std::uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc = (crc >> 8) ^ table[(crc ^ static_cast<unsigned char>(c)) & 0xff];
  }
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

TensorboardWriter::TensorboardWriter(const std::string& folder, std::int64_t first_step) {
  std::error_code ignored;  // opening the file says what is wrong
  std::filesystem::create_directories(folder, ignored);
  path_ = fmt::format("{}/events.out.tfevents.{:.0f}.{}.qnext", folder, seconds_since_epoch() * 1e3,
                      ::getpid());
  errno = 0;
  file_.open(path_, std::ios::binary);
  if (!file_) {
    cannot_write(path_);
  }
  write_event(0, bytes_field(3, "brain.Event:2"));
  write_event(first_step, bytes_field(7, key(1, Wire::varint) + varint(1)));  // session: start
  flush();
}

void TensorboardWriter::write(std::int64_t step, std::string_view tag, double value) {
  const std::string scalar =
      bytes_field(1, tag) + key(2, Wire::fixed32) + little_endian(static_cast<float>(value));
  write_event(step, bytes_field(5, bytes_field(1, scalar)));
}

void TensorboardWriter::write_event(std::int64_t step, const std::string& content) {
  const std::string event = key(1, Wire::fixed64) + little_endian(seconds_since_epoch()) +
                            key(2, Wire::varint) + varint(static_cast<std::uint64_t>(step)) +
                            content;
  const std::string length = little_endian<std::uint64_t>(event.size());
  file_ << length << little_endian(masked_crc32c(length)) << event
        << little_endian(masked_crc32c(event));
}

void TensorboardWriter::flush() {
  errno = 0;
  if (!file_.flush()) {
    cannot_write(path_);
  }
}

}  // namespace qnext
