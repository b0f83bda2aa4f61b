// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/require.hpp"
#include "core/types.hpp"
#include "io/array.hpp"

#include <hdf5.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

// What the classes of HDF5 files say to the library with. Included by their .cpp files alone.
namespace qnext {

static_assert(std::is_same_v<hid_t, std::int64_t>);

/// What the library says about the call that failed last: the innermost sentence has the reason.
std::string last_hdf5_message();

template <class Result>
Result checked_hdf5(Result result, const char* call, const std::string& path,
                    const std::string& object) {
  if (result < 0) {
    const std::string function(call, std::strcspn(call, "("));
    throw EnvironmentError(path + ": " + (object.empty() ? "" : object + ": ") + function + ": " +
                           last_hdf5_message());
  }
  return result;
}
/// A call of the library about an object of the file `path_`: its result, or an EnvironmentError
/// with the library's sentence.
#define QNEXT_HDF5(call, object) checked_hdf5((call), #call, path_, object)

/// Closes what the library opened.
class Hdf5Handle {
 public:
  Hdf5Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  ~Hdf5Handle() {
    if (id_ >= 0) {
      close_(id_);
    }
  }
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};
/// Errors of the library become exceptions and are not printed. It also tidies up when the program
/// ends, and (1.10) falls on a file that it could not close.
void silence_hdf5();

/// The type of such numbers in the file and in memory: all machines of ours are little-endian.
Hdf5Handle file_type(ElementType type);

ElementType element_type_of_file(hid_t type);

template <class T>
constexpr ElementType element_type() {
  if constexpr (std::is_same_v<T, int>) {
    return ElementType::int32;
  } else if constexpr (std::is_same_v<T, std::int64_t>) {
    return ElementType::int64;
  } else if constexpr (std::is_same_v<T, bf16>) {
    return ElementType::bf16;
  } else if constexpr (std::is_same_v<T, float>) {
    return ElementType::float32;
  } else {
    static_assert(std::is_same_v<T, double>);
    return ElementType::float64;
  }
}
std::vector<std::int64_t> extents_of(hid_t space);

/// No extents: a scalar.
hid_t make_space(const std::vector<std::int64_t>& extents);

/// A property list of that class, without time stamps.
Hdf5Handle without_times(hid_t list_class);

/// Text of a fixed or a variable length, read by `read(memory type, to)`.
template <class Read>
std::string text_of(hid_t type, std::int64_t elements, const Read& read) {
  if (elements == 0) {
    return {};
  }
  if (H5Tis_variable_str(type) > 0) {
    const Hdf5Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory, H5T_VARIABLE);
    H5Tset_cset(memory, H5Tget_cset(type));
    char* characters = nullptr;
    read(memory, &characters);
    const std::string text = characters == nullptr ? "" : characters;
    H5free_memory(characters);
    return text;
  }
  std::string text(H5Tget_size(type), '\0');
  read(type, text.data());
  text.resize(std::min(text.size(), text.find('\0')));  // padding
  return text;
}
/// The type that a text is stored as.
Hdf5Handle text_type(const std::string& text);

}  // namespace qnext
