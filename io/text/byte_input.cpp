// SPDX-License-Identifier: Apache-2.0
#include "io/text/byte_input.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <string_view>
#include <unistd.h>
#include <vector>
#include <zlib.h>
#include <zstd.h>

namespace qnext {
namespace {

constexpr unsigned block = 1 << 17;  // bytes of a file that are read at once

[[noreturn]] void damaged(const std::string& path, std::string_view what) {
  throw InputError(fmt::format("{}: is damaged: {}", path, what));
}

class PlainInput : public ByteInput {
 public:
  explicit PlainInput(const std::string& path)
      : path_(path), file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0) {
      throw InputError(path + ": cannot be opened: " + std::strerror(errno));
    }
  }
  ~PlainInput() override { ::close(file_); }

  std::size_t read(char* to, std::size_t size) override {
    std::size_t done = 0;
    while (done < size) {
      const ssize_t count = ::read(file_, to + done, size - done);
      if (count < 0 && errno != EINTR) {
        throw InputError(path_ + ": cannot be read: " + std::strerror(errno));
      }
      if (count == 0) {
        break;
      }
      done += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
    }
    used_ += static_cast<std::int64_t>(done);
    return done;
  }

  std::int64_t used() const override { return used_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int file_;
  std::int64_t used_ = 0;
};

// Members may follow each other in one file; their texts are one.
class GzipInput : public ByteInput {
 public:
  explicit GzipInput(const std::string& path) : file_(path), packed_(block) {
    if (inflateInit2(&stream_, 16 + MAX_WBITS) != Z_OK) {
      throw std::bad_alloc();
    }
  }
  ~GzipInput() override { inflateEnd(&stream_); }

  std::size_t read(char* to, std::size_t size) override {
    size = std::min<std::size_t>(size, 1 << 30);
    stream_.next_out = reinterpret_cast<Bytef*>(to);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out > 0) {
      if (stream_.avail_in == 0) {
        stream_.next_in = packed_.data();
        stream_.avail_in =
            static_cast<uInt>(file_.read(reinterpret_cast<char*>(packed_.data()), packed_.size()));
        if (stream_.avail_in == 0) {
          if (inside_) {
            damaged(file_.path(), "it ends within a gzip member");
          }
          break;
        }
      }
      if (!inside_) {
        inflateReset(&stream_);
        inside_ = true;
      }
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status == Z_STREAM_END) {
        inside_ = false;
      } else if (status != Z_OK && status != Z_BUF_ERROR) {
        damaged(file_.path(), stream_.msg != nullptr ? stream_.msg : zError(status));
      }
    }
    return size - stream_.avail_out;
  }

  std::int64_t used() const override { return file_.used() - stream_.avail_in; }

 private:
  PlainInput file_;
  std::vector<Bytef> packed_;
  z_stream stream_{};
  bool inside_ = false;  // a member
};

class ZstdInput : public ByteInput {
 public:
  explicit ZstdInput(const std::string& path)
      : file_(path), packed_(block), stream_(ZSTD_createDStream()) {
    if (stream_ == nullptr) {
      throw std::bad_alloc();
    }
  }

  std::size_t read(char* to, std::size_t size) override {
    ZSTD_outBuffer out{to, size, 0};
    while (out.pos < out.size) {
      if (in_.pos == in_.size) {
        in_ = {packed_.data(), file_.read(packed_.data(), packed_.size()), 0};
        if (in_.size == 0 && !full_) {
          if (inside_) {
            damaged(file_.path(), "it ends within a zstd frame");
          }
          break;
        }
      }
      const std::size_t status = ZSTD_decompressStream(stream_.get(), &out, &in_);
      if (ZSTD_isError(status) != 0) {
        damaged(file_.path(), ZSTD_getErrorName(status));
      }
      inside_ = status != 0;
      full_ = inside_ && out.pos == out.size;  // more may be ready without further bytes
    }
    return out.pos;
  }

  std::int64_t used() const override {
    return file_.used() - static_cast<std::int64_t>(in_.size - in_.pos);
  }

 private:
  struct Free {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };
  PlainInput file_;
  std::vector<char> packed_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  ZSTD_inBuffer in_{};
  bool inside_ = false;  // a frame
  bool full_ = false;    // the last call filled its output
};

}  // namespace

std::unique_ptr<ByteInput> ByteInput::open(const std::string& path) {
  std::array<char, 4> magic{};
  PlainInput(path).read(magic.data(), magic.size());
  if (std::string_view(magic.data(), 2) == "\x1f\x8b") {
    return std::make_unique<GzipInput>(path);
  }
  if (std::string_view(magic.data(), 4) == "\x28\xb5\x2f\xfd") {
    return std::make_unique<ZstdInput>(path);
  }
  return std::make_unique<PlainInput>(path);
}

}  // namespace qnext
