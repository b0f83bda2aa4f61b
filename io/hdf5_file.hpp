// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/types.hpp"
#include "io/array.hpp"
#include "parallel/communicator.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace qnext {

/// An HDF5 file. What is written counts when close() has returned: without it the destructor gives
/// the file up, because the library cannot leave one that the disk refuses. Objects are named by
/// their path, "/runs/a/logits".
///
/// What the library refuses is an EnvironmentError with the library's own sentence; an object that
/// is missing or of another kind is an InputError. Files carry no time stamps: the same content
/// gives the same bytes.
class Hdf5File {
 public:
  /// Opens for reading.
  explicit Hdf5File(const std::string& path);

  /// Creates, or replaces what is there. The first `user_block` bytes, 0 or a power of two from 512
  /// on, are left to the caller.
  static Hdf5File create(const std::string& path, std::int64_t user_block = 0);

  /// An existing file, as it is.
  static Hdf5File open_for_writing(const std::string& path);

  /// The same by several ranks at once, for boxes alone: what describes them stays as it is. All of
  /// the ranks call this and close(). Where the library has no MPI it is refused.
  static Hdf5File open_together(const std::string& path, const Communicator& ranks);
  static bool opens_together();

  Hdf5File(Hdf5File&& other) noexcept;
  Hdf5File& operator=(Hdf5File&&) = delete;
  ~Hdf5File();

  /// Writes out what the library still holds.
  void close();

  const std::string& path() const { return path_; }

  bool exists(const std::string& object) const;
  bool is_group(const std::string& object) const;

  /// Names of the direct members of a group, in alphabetical order.
  std::vector<std::string> list(const std::string& group = "/") const;

  /// Paths of all datasets below a group, relative to it, in alphabetical order within each group.
  std::vector<std::string> list_datasets(const std::string& group = "/") const;

  DatasetShape describe(const std::string& dataset) const;

  /// Where the elements start, in bytes from the beginning of the file; -1 if they have no place.
  std::int64_t place_of(const std::string& dataset) const;

  /// All elements. T is bf16, float, double, int or std::int64_t; numbers are converted, an integer
  /// that does not fit is refused. For a golden file:
  /// read_dataset<double>("/runs/a/logits").values.
  template <class T>
  Array<T> read_dataset(const std::string& dataset) const;

  /// One element: of a scalar, or of a dataset with a single one.
  template <class T>
  T read_scalar(const std::string& dataset) const;

  std::string read_text(const std::string& dataset) const;

  /// The box of a dataset, converted to `type`. Offset and extent have as many numbers as the
  /// dataset.
  void read_box(const std::string& dataset, DataType type, const std::vector<std::int64_t>& offset,
                const std::vector<std::int64_t>& extent, void* to) const;

  /// Groups on the way are made when they are missing.
  void create_group(const std::string& group);
  void create_dataset(const std::string& dataset, ElementType type,
                      const std::vector<std::int64_t>& extents);
  void write_box(const std::string& dataset, DataType type, const std::vector<std::int64_t>& offset,
                 const std::vector<std::int64_t>& extent, const void* from);

  /// Creates and fills. No extents: a scalar.
  template <class T>
  void write_dataset(const std::string& dataset, const std::vector<T>& values,
                     const std::vector<std::int64_t>& extents);
  void write_text(const std::string& dataset, const std::string& text);

  bool has_attribute(const std::string& object, const std::string& name) const;
  std::vector<std::string> list_attributes(const std::string& object) const;

  /// T is std::int64_t, double, std::string, or a vector of one of the first two.
  template <class T>
  T read_attribute(const std::string& object, const std::string& name) const;
  /// One of that name is written again; it has to be of that type and length.
  template <class T>
  void write_attribute(const std::string& object, const std::string& name, const T& value);

 private:
  enum class Mode { read, write, together };

  Hdf5File(std::string path, std::int64_t id, Mode mode)
      : path_(std::move(path)), id_(id), mode_(mode) {}

  std::string path_;
  std::int64_t id_;
  Mode mode_ = Mode::read;
};

}  // namespace qnext
