// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace qnext {

/// A file descriptor. What the system refuses is an EnvironmentError with its own sentence.
class PosixFile {
 public:
  static PosixFile open_for_reading(const std::string& path);
  static PosixFile open_for_writing(const std::string& path);  // an existing file, as it is
  static PosixFile create(const std::string& path);            // empty, whatever was there

  /// Opens or makes a file that no other program may open in this way until it is closed.
  static PosixFile open_alone(const std::string& path);

  PosixFile(PosixFile&& other) noexcept;
  PosixFile& operator=(PosixFile&&) = delete;
  ~PosixFile();

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }

  std::int64_t bytes() const;
  void read(std::int64_t begin, void* to, std::int64_t count) const;
  void write(std::int64_t begin, const void* from, std::int64_t count) const;

  /// Waits until the disk has what was written.
  void flush() const;

 private:
  PosixFile(const std::string& path, int flags);

  std::string path_;
  int descriptor_;
};

/// Of the file: "." when it names none.
std::string folder_of(const std::string& path);

/// Bytes that the disk of a folder still has for us.
std::int64_t room_in(const std::string& folder);

/// A file with that text alone, which the disk has when this returns.
void write_file(const std::string& path, const std::string& text);

/// Waits until the disk has the names in a folder.
void flush_folder(const std::string& folder);

/// Gives `from` the name `to`, which is replaced in one instant, and waits until the disk has it.
void replace_file(const std::string& from, const std::string& to);

}  // namespace qnext
