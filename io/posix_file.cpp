// SPDX-License-Identifier: Apache-2.0
#include "io/posix_file.hpp"

#include "core/require.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <utility>

namespace qnext {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw EnvironmentError(path + ": " + what + ": " + std::strerror(errno));
}

}  // namespace

std::string folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  return folder.empty() ? "." : folder.string();
}

PosixFile::PosixFile(const std::string& path, int flags)
    : path_(path), descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) {
    fail(path, "cannot be opened");
  }
}

PosixFile PosixFile::open_for_reading(const std::string& path) {
  return {path, O_RDONLY};
}
PosixFile PosixFile::open_for_writing(const std::string& path) {
  return {path, O_RDWR};
}
PosixFile PosixFile::create(const std::string& path) {
  return {path, O_RDWR | O_CREAT | O_TRUNC};
}

PosixFile PosixFile::open_alone(const std::string& path) {
  while (true) {
    PosixFile file(path, O_RDWR | O_CREAT);
    if (::flock(file.descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      throw InputError(path + ": another program writes it; wait for its end, or name other files");
    }  // what knows no locks is taken as it is
    struct stat opened {
    }, named{};
    if (::fstat(file.descriptor_, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
        opened.st_dev == named.st_dev && opened.st_ino == named.st_ino) {
      return file;
    }  // its owner has given it another name in between
  }
}

PosixFile::PosixFile(PosixFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

PosixFile::~PosixFile() {
  if (descriptor_ >= 0) {
    ::close(descriptor_);
  }
}

std::int64_t PosixFile::bytes() const {
  const off_t end = ::lseek(descriptor_, 0, SEEK_END);
  if (end < 0) {
    fail(path_, "has no length");
  }
  return end;
}

void PosixFile::read(std::int64_t begin, void* to, std::int64_t count) const {
  auto* place = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t done = ::pread(descriptor_, place, static_cast<std::size_t>(count), begin);
    if (done < 0 && errno != EINTR) {
      fail(path_, "cannot be read at byte " + std::to_string(begin));
    }
    if (done == 0) {
      throw EnvironmentError(path_ + ": ends at byte " + std::to_string(begin) + ", " +
                             std::to_string(count) + " bytes more are wanted");
    }
    const ssize_t step = done < 0 ? 0 : done;
    place += step;
    begin += step;
    count -= step;
  }
}

void PosixFile::write(std::int64_t begin, const void* from, std::int64_t count) const {
  const auto* place = static_cast<const char*>(from);
  while (count > 0) {
    const ssize_t done = ::pwrite(descriptor_, place, static_cast<std::size_t>(count), begin);
    if (done < 0 && errno != EINTR) {
      fail(path_, "cannot be written at byte " + std::to_string(begin));
    }
    const ssize_t step = done < 0 ? 0 : done;
    place += step;
    begin += step;
    count -= step;
  }
}

void PosixFile::flush() const {
  if (::fsync(descriptor_) != 0) {
    fail(path_, "cannot be flushed to the disk");
  }
}

void write_file(const std::string& path, const std::string& text) {
  const auto file = PosixFile::create(path);
  file.write(0, text.data(), static_cast<std::int64_t>(text.size()));
  file.flush();
}

void flush_folder(const std::string& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  // Some network file systems flush no folders; they order the renaming themselves.
  const bool done = descriptor >= 0 && (::fsync(descriptor) == 0 || errno == EINVAL);
  const int reason = errno;
  if (descriptor >= 0) {
    ::close(descriptor);
  }
  if (!done) {
    errno = reason;
    fail(folder, "cannot be flushed to the disk");
  }
}

std::int64_t room_in(const std::string& folder) {
  struct statvfs status;
  if (::statvfs(folder.c_str(), &status) != 0) {
    fail(folder, "has no known room");
  }
  return static_cast<std::int64_t>(status.f_bavail) * static_cast<std::int64_t>(status.f_frsize);
}

void replace_file(const std::string& from, const std::string& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) {
    fail(from, "cannot be renamed to " + to);
  }
  flush_folder(folder_of(to));
}

}  // namespace qnext
