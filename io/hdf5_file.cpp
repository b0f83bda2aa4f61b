// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_file.hpp"

#include "core/require.hpp"

#include <hdf5.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <limits>
#include <string_view>
#include <sys/mman.h>
#include <sys/resource.h>
#include <type_traits>
#include <unistd.h>
#include <utility>

namespace qnext {
namespace {

static_assert(std::is_same_v<hid_t, std::int64_t>);

/// What the library says about the call that failed last: the innermost sentence has the reason.
std::string last_message() {
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

template <class Result>
Result checked(Result result, const char* call, const std::string& path,
               const std::string& object) {
  if (result < 0) {
    const std::string function(call, std::strcspn(call, "("));
    throw EnvironmentError(path + ": " + (object.empty() ? "" : object + ": ") + function + ": " +
                           last_message());
  }
  return result;
}

#define QNEXT_HDF5(call, object) checked((call), #call, path_, object)

/// Closes what the library opened.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (id_ >= 0) {
      close_(id_);
    }
  }
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// The library prints its errors unless told otherwise; here they become exceptions. It also tidies
/// up when the program ends, and (1.10) falls on a file that it could not close.
void silence() {
  static const herr_t once = [] {
    H5dont_atexit();
    return H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }();
  (void)once;
}

hid_t make_bf16() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 7, 8, 0, 7);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 127);
  return type;
}

/// In the file and in memory: all machines of ours are little-endian.
Handle file_type(ElementType type) {
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

Handle without_times(hid_t list_class) {
  const hid_t list = H5Pcreate(list_class);
  H5Pset_obj_track_times(list, false);
  return {list, H5Pclose};
}

/// Closing a file closes what is open in it. Nothing is written behind our back when a dataset is
/// closed (no sieve buffer). A file system without locks is none the worse.
Handle file_access() {
  const hid_t list = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fclose_degree(list, H5F_CLOSE_STRONG);
  H5Pset_sieve_buf_size(list, 0);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(list, true, true);
#endif
  return {list, H5Pclose};
}

/// What describes the data stays in memory until the file is flushed, so that no write of the
/// library's own choice can fail in between, which it does not survive.
void keep_metadata_in_memory(hid_t access) {
  H5AC_cache_config_t config;
  config.version = H5AC__CURR_CACHE_CONFIG_VERSION;
  H5Pget_mdc_config(access, &config);
  config.evictions_enabled = false;
  config.incr_mode = H5C_incr__off;
  config.flash_incr_mode = H5C_flash_incr__off;
  config.decr_mode = H5C_decr__off;
  H5Pset_mdc_config(access, &config);
}

/// Makes sure that the disk takes the whole of a file before the library writes the last of it.
void expect_room(hid_t file, const std::string& path) {
  hsize_t bytes = 0;
  void* handle = nullptr;
  if (H5Fget_filesize(file, &bytes) < 0 || H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) < 0) {
    return;
  }
  const int error = ::posix_fallocate(*static_cast<int*>(handle), 0, static_cast<off_t>(bytes));
  if (error == ENOSPC || error == EFBIG || error == EDQUOT || error == EIO) {
    throw EnvironmentError(path + ": cannot grow to " + std::to_string(bytes) +
                           " bytes: file write failed: " + std::strerror(error));
  }
}

/// Closes a file that will not be kept: what the library still has to write goes into memory, as
/// far as the hard limit of file sizes allows. When H5Fclose cannot write, the library (1.10) keeps
/// a half-freed file.
void give_up(hid_t file) {
  void* handle = nullptr;
  const int memory = ::memfd_create("given up", MFD_CLOEXEC);
  if (memory >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0) {
    ::dup3(memory, *static_cast<int*>(handle), O_CLOEXEC);
  }
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit most{before.rlim_max, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &most);
  H5Fclose(file);
  ::setrlimit(RLIMIT_FSIZE, &before);
  if (memory >= 0) {
    ::close(memory);
  }
}

/// Text of a fixed or a variable length, read by `read(memory type, to)`.
template <class Read>
std::string text_of(hid_t type, std::int64_t elements, const Read& read) {
  if (elements == 0) {
    return {};
  }
  if (H5Tis_variable_str(type) > 0) {
    const Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
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

Handle text_type(const std::string& text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, std::max<std::size_t>(1, text.size()));  // the library knows no empty text
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return {type, H5Tclose};
}

}  // namespace

Hdf5File::Hdf5File(const std::string& path) : path_(path), id_(-1) {
  silence();
  if (!std::filesystem::is_regular_file(path)) {
    throw InputError(path + ": no such file");
  }
  if (H5Fis_hdf5(path.c_str()) <= 0) {
    throw InputError(path + ": not an HDF5 file");
  }
  const Handle access = file_access();
  id_ = QNEXT_HDF5(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access), "");
}

Hdf5File Hdf5File::create(const std::string& path, std::int64_t user_block) {
  silence();
  const std::string& path_ = path;  // what QNEXT_HDF5 names
  const Handle creation = without_times(H5P_FILE_CREATE);
  QNEXT_HDF5(H5Pset_userblock(creation, static_cast<hsize_t>(user_block)), "");
  const Handle access = file_access();
  keep_metadata_in_memory(access);
  return {path, QNEXT_HDF5(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, access), "")};
}

Hdf5File::Hdf5File(Hdf5File&& other) noexcept
    : path_(std::move(other.path_)),
      id_(std::exchange(other.id_, -1)),
      writing_(std::exchange(other.writing_, false)) {}

Hdf5File::~Hdf5File() {
  if (id_ >= 0) {
    writing_ ? give_up(id_) : void(H5Fclose(id_));
    H5Eclear2(H5E_DEFAULT);
  }
}

void Hdf5File::close() {
  if (writing_) {
    expect_room(id_, path_);
    QNEXT_HDF5(H5Fflush(id_, H5F_SCOPE_GLOBAL), "");
    writing_ = false;
  }
  QNEXT_HDF5(H5Fclose(std::exchange(id_, -1)), "");
}

bool Hdf5File::exists(const std::string& object) const {
  if (object == "/") {
    return true;
  }
  // The library wants every group on the way to be asked for.
  for (std::size_t end = object.find('/', 1);; end = object.find('/', end + 1)) {
    const std::string part = object.substr(0, end);
    if (H5Lexists(id_, part.c_str(), H5P_DEFAULT) <= 0) {
      H5Eclear2(H5E_DEFAULT);
      return false;
    }
    if (end == std::string::npos) {
      return true;
    }
  }
}

bool Hdf5File::is_group(const std::string& object) const {
  if (!exists(object)) {
    return false;
  }
  H5O_info_t info;
  QNEXT_HDF5(H5Oget_info_by_name(id_, object.c_str(), &info, H5P_DEFAULT), object);
  return info.type == H5O_TYPE_GROUP;
}

std::vector<std::string> Hdf5File::list(const std::string& group) const {
  if (!is_group(group)) {
    throw InputError(path_ + ": " + group + ": no such group");
  }
  std::vector<std::string> names;
  const auto keep = [](hid_t, const char* name, const H5L_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  const Handle handle(QNEXT_HDF5(H5Gopen2(id_, group.c_str(), H5P_DEFAULT), group), H5Gclose);
  QNEXT_HDF5(H5Literate(handle, H5_INDEX_NAME, H5_ITER_INC, nullptr, keep, &names), group);
  return names;
}

std::vector<std::string> Hdf5File::list_datasets(const std::string& group) const {
  std::vector<std::string> paths;
  const std::string prefix = group.back() == '/' ? group : group + "/";
  for (const std::string& name : list(group)) {
    if (is_group(prefix + name)) {
      for (const std::string& inner : list_datasets(prefix + name)) {
        paths.push_back(name + "/" + inner);
      }
    } else {
      paths.push_back(name);
    }
  }
  return paths;
}

namespace {

hid_t open_dataset(hid_t file, const Hdf5File& in, const std::string& path_,
                   const std::string& dataset) {
  if (!in.exists(dataset) || in.is_group(dataset)) {
    throw InputError(path_ + ": " + dataset + ": no such dataset");
  }
  return QNEXT_HDF5(H5Dopen2(file, dataset.c_str(), H5P_DEFAULT), dataset);
}

hid_t open_attribute(hid_t file, const Hdf5File& in, const std::string& path_,
                     const std::string& object, const std::string& name) {
  if (!in.has_attribute(object, name)) {
    throw InputError(path_ + ": " + object + ": no attribute " + name);
  }
  return QNEXT_HDF5(H5Aopen_by_name(file, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT),
                    object);
}

/// Numbers only, and an integer is never made of a real.
void expect_number(hid_t type, bool integer, const std::string& object, const std::string& path) {
  const H5T_class_t found = H5Tget_class(type);
  if (found == H5T_INTEGER || (found == H5T_FLOAT && !integer)) {
    return;
  }
  throw InputError(path + ": " + object + ": holds " +
                   (found == H5T_FLOAT    ? "real numbers"
                    : found == H5T_STRING ? "text"
                                          : "something else") +
                   ", wanted are " + (integer ? "integers" : "numbers"));
}

template <class T>
T narrow(std::int64_t value, const std::string& object, const std::string& path) {
  if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max()) {
    throw InputError(path + ": " + object + ": holds " + std::to_string(value) +
                     ", which does not fit into " + std::to_string(8 * sizeof(T)) + " bits");
  }
  return static_cast<T>(value);
}

}  // namespace

DatasetShape Hdf5File::describe(const std::string& dataset) const {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  return {element_type_of_file(type), extents_of(space)};
}

std::int64_t Hdf5File::place_of(const std::string& dataset) const {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const haddr_t place = H5Dget_offset(handle);
  return place == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(place);
}

template <class T>
Array<T> Hdf5File::read_dataset(const std::string& dataset) const {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  expect_number(type, std::is_integral_v<T>, dataset, path_);
  if constexpr (std::is_same_v<T, int>) {
    const auto wide = read_dataset<std::int64_t>(dataset);
    Array<int> array{std::vector<int>(wide.values.size()), wide.extents};
    std::transform(wide.values.begin(), wide.values.end(), array.values.begin(),
                   [&](std::int64_t value) { return narrow<int>(value, dataset, path_); });
    return array;
  } else {
    Array<T> array;
    array.extents = extents_of(space);
    array.values.resize(elements_of(array.extents));
    QNEXT_HDF5(H5Dread(handle, file_type(element_type<T>()), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                       array.values.data()),
               dataset);
    return array;
  }
}

template <class T>
T Hdf5File::read_scalar(const std::string& dataset) const {
  const auto array = read_dataset<T>(dataset);
  if (array.values.size() != 1) {
    throw InputError(path_ + ": " + dataset + ": has the extents " + to_string(array.extents) +
                     ", wanted is one element");
  }
  return array.values.front();
}

std::string Hdf5File::read_text(const std::string& dataset) const {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  const auto extents = extents_of(space);
  if (H5Tget_class(type) != H5T_STRING || elements_of(extents) != 1) {
    throw InputError(path_ + ": " + dataset + ": is not a text");
  }
  return text_of(type, 1, [&](hid_t memory, void* to) {
    QNEXT_HDF5(H5Dread(handle, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to), dataset);
  });
}

namespace {

/// The box in the space of the file, or an error that names both.
void select(hid_t space, const std::vector<std::int64_t>& offset,
            const std::vector<std::int64_t>& extent, const std::string& path_,
            const std::string& dataset) {
  const auto whole = extents_of(space);
  bool fits = whole.size() == offset.size() && whole.size() == extent.size();
  for (std::size_t i = 0; fits && i < whole.size(); ++i) {
    fits = offset[i] >= 0 && extent[i] >= 0 && offset[i] + extent[i] <= whole[i];
  }
  if (!fits) {
    throw InputError(path_ + ": " + dataset + ": has the extents " + to_string(whole) +
                     ", wanted is a box of " + to_string(extent) + " at " + to_string(offset));
  }
  if (!whole.empty()) {
    const std::vector<hsize_t> start(offset.begin(), offset.end());
    const std::vector<hsize_t> count(extent.begin(), extent.end());
    QNEXT_HDF5(
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
        dataset);
  }
}

}  // namespace

void Hdf5File::read_box(const std::string& dataset, DataType type,
                        const std::vector<std::int64_t>& offset,
                        const std::vector<std::int64_t>& extent, void* to) const {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Handle stored(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  expect_number(stored, false, dataset, path_);
  const Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  select(space, offset, extent, path_, dataset);
  const Handle memory(QNEXT_HDF5(make_space(extent), dataset), H5Sclose);
  QNEXT_HDF5(H5Dread(handle, file_type(element_type_of(type)), memory, space, H5P_DEFAULT, to),
             dataset);
}

void Hdf5File::create_group(const std::string& group) {
  if (group.empty() || group == "/" || exists(group)) {
    return;
  }
  create_group(group.substr(0, group.rfind('/')));
  const Handle creation = without_times(H5P_GROUP_CREATE);
  const Handle handle(
      QNEXT_HDF5(H5Gcreate2(id_, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), group),
      H5Gclose);
}

namespace {

/// The file space is taken at once and never filled with zeros: who creates it writes it.
hid_t create_contiguous(hid_t file, hid_t type, hid_t space, const std::string& path_,
                        const std::string& dataset) {
  const Handle creation = without_times(H5P_DATASET_CREATE);
  QNEXT_HDF5(H5Pset_layout(creation, H5D_CONTIGUOUS), dataset);
  QNEXT_HDF5(H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY), dataset);
  QNEXT_HDF5(H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER), dataset);
  return QNEXT_HDF5(
      H5Dcreate2(file, dataset.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT), dataset);
}

}  // namespace

void Hdf5File::create_dataset(const std::string& dataset, ElementType type,
                              const std::vector<std::int64_t>& extents) {
  create_group(dataset.substr(0, dataset.rfind('/')));
  const Handle space(QNEXT_HDF5(make_space(extents), dataset), H5Sclose);
  const Handle handle(create_contiguous(id_, file_type(type), space, path_, dataset), H5Dclose);
}

void Hdf5File::write_box(const std::string& dataset, DataType type,
                         const std::vector<std::int64_t>& offset,
                         const std::vector<std::int64_t>& extent, const void* from) {
  const Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  select(space, offset, extent, path_, dataset);
  const Handle memory(QNEXT_HDF5(make_space(extent), dataset), H5Sclose);
  QNEXT_HDF5(H5Dwrite(handle, file_type(element_type_of(type)), memory, space, H5P_DEFAULT, from),
             dataset);
}

template <class T>
void Hdf5File::write_dataset(const std::string& dataset, const std::vector<T>& values,
                             const std::vector<std::int64_t>& extents) {
  require(elements_of(extents) == static_cast<std::int64_t>(values.size()),
          dataset + ": " + std::to_string(values.size()) + " values for " + to_string(extents));
  create_group(dataset.substr(0, dataset.rfind('/')));
  const Handle type = file_type(element_type<T>());
  const Handle space(QNEXT_HDF5(make_space(extents), dataset), H5Sclose);
  const Handle handle(create_contiguous(id_, type, space, path_, dataset), H5Dclose);
  QNEXT_HDF5(H5Dwrite(handle, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), dataset);
}

void Hdf5File::write_text(const std::string& dataset, const std::string& text) {
  create_group(dataset.substr(0, dataset.rfind('/')));
  const Handle type = text_type(text);
  const Handle space(QNEXT_HDF5(make_space({}), dataset), H5Sclose);
  const Handle handle(create_contiguous(id_, type, space, path_, dataset), H5Dclose);
  QNEXT_HDF5(H5Dwrite(handle, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.c_str()), dataset);
}

bool Hdf5File::has_attribute(const std::string& object, const std::string& name) const {
  if (!exists(object)) {
    throw InputError(path_ + ": " + object + ": no such object");
  }
  return QNEXT_HDF5(H5Aexists_by_name(id_, object.c_str(), name.c_str(), H5P_DEFAULT), object) > 0;
}

std::vector<std::string> Hdf5File::list_attributes(const std::string& object) const {
  if (!exists(object)) {
    throw InputError(path_ + ": " + object + ": no such object");
  }
  std::vector<std::string> names;
  const auto keep = [](hid_t, const char* name, const H5A_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  QNEXT_HDF5(H5Aiterate_by_name(id_, object.c_str(), H5_INDEX_NAME, H5_ITER_INC, nullptr, keep,
                                &names, H5P_DEFAULT),
             object);
  return names;
}

template <class T>
T Hdf5File::read_attribute(const std::string& object, const std::string& name) const {
  const std::string where = object + "." + name;
  const Handle handle(open_attribute(id_, *this, path_, object, name), H5Aclose);
  const Handle type(QNEXT_HDF5(H5Aget_type(handle), where), H5Tclose);
  const Handle space(QNEXT_HDF5(H5Aget_space(handle), where), H5Sclose);
  const std::int64_t elements = H5Sget_simple_extent_npoints(space);
  if constexpr (std::is_same_v<T, std::string>) {
    if (H5Tget_class(type) != H5T_STRING || elements > 1) {
      throw InputError(path_ + ": " + where + ": is not a text");
    }
    return text_of(type, elements,
                   [&](hid_t memory, void* to) { QNEXT_HDF5(H5Aread(handle, memory, to), where); });
  } else if constexpr (std::is_arithmetic_v<T>) {
    const auto values = read_attribute<std::vector<T>>(object, name);
    if (values.size() != 1) {
      throw InputError(path_ + ": " + where + ": has " + std::to_string(values.size()) +
                       " elements, wanted is one");
    }
    return values.front();
  } else {
    using Element = typename T::value_type;
    expect_number(type, std::is_integral_v<Element>, where, path_);
    T values(elements);
    QNEXT_HDF5(H5Aread(handle, file_type(element_type<Element>()), values.data()), where);
    return values;
  }
}

template <class T>
void Hdf5File::write_attribute(const std::string& object, const std::string& name, const T& value) {
  const std::string where = object + "." + name;
  const auto write = [&](hid_t type, hid_t space, const void* from) {
    const Handle handle(QNEXT_HDF5(H5Acreate_by_name(id_, object.c_str(), name.c_str(), type, space,
                                                     H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                   where),
                        H5Aclose);
    QNEXT_HDF5(H5Awrite(handle, type, from), where);
  };
  if constexpr (std::is_same_v<T, std::string>) {
    write(text_type(value), Handle(make_space({}), H5Sclose), value.c_str());
  } else if constexpr (std::is_arithmetic_v<T>) {
    write(file_type(element_type<T>()), Handle(make_space({}), H5Sclose), &value);
  } else {
    const Handle space(make_space({static_cast<std::int64_t>(value.size())}), H5Sclose);
    write(file_type(element_type<typename T::value_type>()), space, value.data());
  }
}

#define QNEXT_INSTANTIATE(T)                                                          \
  template Array<T> Hdf5File::read_dataset<T>(const std::string&) const;              \
  template T Hdf5File::read_scalar<T>(const std::string&) const;                      \
  template void Hdf5File::write_dataset<T>(const std::string&, const std::vector<T>&, \
                                           const std::vector<std::int64_t>&);
QNEXT_INSTANTIATE(bf16)
QNEXT_INSTANTIATE(float)
QNEXT_INSTANTIATE(double)
QNEXT_INSTANTIATE(int)
QNEXT_INSTANTIATE(std::int64_t)
#undef QNEXT_INSTANTIATE

#define QNEXT_INSTANTIATE(T)                                                            \
  template T Hdf5File::read_attribute<T>(const std::string&, const std::string&) const; \
  template void Hdf5File::write_attribute<T>(const std::string&, const std::string&, const T&);
QNEXT_INSTANTIATE(std::int64_t)
QNEXT_INSTANTIATE(double)
QNEXT_INSTANTIATE(std::string)
QNEXT_INSTANTIATE(std::vector<std::int64_t>)
QNEXT_INSTANTIATE(std::vector<double>)
#undef QNEXT_INSTANTIATE

}  // namespace qnext
