// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_library.hpp"

#include "io/hdf5_start.hpp"

#include <string_view>

namespace qnext {
namespace {

hid_t make_bf16() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 7, 8, 0, 7);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 127);
  return type;
}

}  // namespace

std::string last_hdf5_message() {
  std::string message;
  const auto keep_first = [](unsigned, const H5E_error2_t* error, void* to) -> herr_t {
    auto& text = *static_cast<std::string*>(to);
    if (text.empty() && error->desc != nullptr) {
      text = error->desc;
    }
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &message);
  H5Eclear2(H5E_DEFAULT);
  // "file write failed: time = ..., error message = 'No space left on device', buf = 0x..., ..."
  constexpr std::string_view reason = "error message = '";
  const auto begin = message.find(reason), end = message.find("', ", begin);
  if (begin != std::string::npos) {
    const auto first = begin + reason.size();
    const std::string words = message.substr(first, std::min(end, message.size() - 1) - first);
    return message.substr(0, message.find_first_of(":,")) + ": " + words;
  }
  return message.empty() ? "no reason given" : message;
}

void silence_hdf5() {
  static const herr_t once = [] {
    H5dont_atexit();
    return H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }();
  (void)once;
}

void start_hdf5() {
  silence_hdf5();
}

Hdf5Handle file_type(ElementType type) {
  switch (type) {
    case ElementType::bf16:
      return {make_bf16(), H5Tclose};
    case ElementType::float32:
      return {H5Tcopy(H5T_IEEE_F32LE), H5Tclose};
    case ElementType::float64:
      return {H5Tcopy(H5T_IEEE_F64LE), H5Tclose};
    case ElementType::int32:
      return {H5Tcopy(H5T_STD_I32LE), H5Tclose};
    case ElementType::int64:
      return {H5Tcopy(H5T_STD_I64LE), H5Tclose};
    case ElementType::text:
    case ElementType::other:
      break;
  }
  require(false, "no number type");
  return {-1, H5Tclose};
}

ElementType element_type_of_file(hid_t type) {
  for (const ElementType candidate : {ElementType::float64, ElementType::float32, ElementType::bf16,
                                      ElementType::int32, ElementType::int64}) {
    if (H5Tequal(type, file_type(candidate)) > 0) {
      return candidate;
    }
  }
  return H5Tget_class(type) == H5T_STRING ? ElementType::text : ElementType::other;
}

std::vector<std::int64_t> extents_of(hid_t space) {
  std::vector<hsize_t> extents(std::max(0, H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  return {extents.begin(), extents.end()};
}

hid_t make_space(const std::vector<std::int64_t>& extents) {
  if (extents.empty()) {
    return H5Screate(H5S_SCALAR);
  }
  const std::vector<hsize_t> sizes(extents.begin(), extents.end());
  return H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr);
}

Hdf5Handle without_times(hid_t list_class) {
  const hid_t list = H5Pcreate(list_class);
  H5Pset_obj_track_times(list, false);
  return {list, H5Pclose};
}

Hdf5Handle text_type(const std::string& text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, std::max<std::size_t>(1, text.size()));  // the library knows no empty text
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return {type, H5Tclose};
}

}  // namespace qnext
