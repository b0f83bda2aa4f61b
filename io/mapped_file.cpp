// SPDX-License-Identifier: Apache-2.0
#include "io/mapped_file.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace qnext {

MappedFile::MappedFile(std::string path) : path_(std::move(path)) {
  const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    throw InputError(fmt::format("{}: cannot be read: {}", path_, std::strerror(errno)));
  }
  struct stat status {};
  void* memory = nullptr;
  int error = ::fstat(file, &status) == 0 ? 0 : errno;
  if (error == 0 && !S_ISREG(status.st_mode)) {
    error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
  }
  if (error == 0 && status.st_size > 0) {
    memory =
        ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, file, 0);
    error = memory == MAP_FAILED ? errno : 0;
  }
  ::close(file);
  if (error != 0) {
    throw InputError(fmt::format("{}: cannot be read: {}", path_, std::strerror(error)));
  }
  data_ = static_cast<const char*>(memory);
  size_ = status.st_size;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<char*>(data_), static_cast<std::size_t>(size_));
  }
}

}  // namespace qnext
