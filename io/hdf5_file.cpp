// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_file.hpp"

#include "core/require.hpp"
#include "io/hdf5_library.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace qnext {

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
  const Hdf5Handle handle(QNEXT_HDF5(H5Gopen2(id_, group.c_str(), H5P_DEFAULT), group), H5Gclose);
  QNEXT_HDF5(H5Literate(handle, H5_INDEX_NAME, H5_ITER_INC, nullptr, keep, &names), group);
  return names;
}

namespace {

/// Where an object lies in the file: the same for all links to it.
haddr_t address_of(hid_t file, const std::string& path_, const std::string& object) {
  H5O_info_t info;
  QNEXT_HDF5(H5Oget_info_by_name(file, object.c_str(), &info, H5P_DEFAULT), object);
  return info.addr;
}

/// `around`: the groups that this one is in.
void append_datasets(const Hdf5File& in, hid_t file, const std::string& group,
                     const std::string& relative, std::vector<haddr_t>& around,
                     std::vector<std::string>& paths) {
  const auto names = in.list(group);
  const haddr_t address = address_of(file, in.path(), group);
  if (std::find(around.begin(), around.end(), address) != around.end()) {
    throw InputError(in.path() + ": " + group + ": the group is inside of itself");
  }
  around.push_back(address);
  for (const std::string& name : names) {
    const std::string object = (group.back() == '/' ? group : group + "/") + name;
    if (in.is_group(object)) {
      append_datasets(in, file, object, relative + name + "/", around, paths);
    } else {
      paths.push_back(relative + name);
    }
  }
  around.pop_back();
}

}  // namespace

std::vector<std::string> Hdf5File::list_datasets(const std::string& group) const {
  std::vector<std::string> paths;
  std::vector<haddr_t> around;
  append_datasets(*this, id_, group, "", around, paths);
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
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Hdf5Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Hdf5Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  return {element_type_of_file(type), extents_of(space)};
}

std::int64_t Hdf5File::place_of(const std::string& dataset) const {
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const haddr_t place = H5Dget_offset(handle);
  return place == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(place);
}

template <class T>
Array<T> Hdf5File::read_dataset(const std::string& dataset) const {
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Hdf5Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Hdf5Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
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
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Hdf5Handle type(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  const Hdf5Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
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
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Hdf5Handle stored(QNEXT_HDF5(H5Dget_type(handle), dataset), H5Tclose);
  expect_number(stored, false, dataset, path_);
  const Hdf5Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  select(space, offset, extent, path_, dataset);
  const Hdf5Handle memory(QNEXT_HDF5(make_space(extent), dataset), H5Sclose);
  QNEXT_HDF5(H5Dread(handle, file_type(element_type_of(type)), memory, space, H5P_DEFAULT, to),
             dataset);
}

void Hdf5File::create_group(const std::string& group) {
  if (group.empty() || group == "/" || exists(group)) {
    return;
  }
  create_group(group.substr(0, group.rfind('/')));
  const Hdf5Handle creation = without_times(H5P_GROUP_CREATE);
  const Hdf5Handle handle(
      QNEXT_HDF5(H5Gcreate2(id_, group.c_str(), H5P_DEFAULT, creation, H5P_DEFAULT), group),
      H5Gclose);
}

namespace {

/// The file space is taken at once and never filled with zeros: who creates it writes it.
hid_t create_contiguous(hid_t file, hid_t type, hid_t space, const std::string& path_,
                        const std::string& dataset) {
  const Hdf5Handle creation = without_times(H5P_DATASET_CREATE);
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
  const Hdf5Handle space(QNEXT_HDF5(make_space(extents), dataset), H5Sclose);
  const Hdf5Handle handle(create_contiguous(id_, file_type(type), space, path_, dataset), H5Dclose);
}

void Hdf5File::write_box(const std::string& dataset, DataType type,
                         const std::vector<std::int64_t>& offset,
                         const std::vector<std::int64_t>& extent, const void* from) {
  const Hdf5Handle handle(open_dataset(id_, *this, path_, dataset), H5Dclose);
  const Hdf5Handle space(QNEXT_HDF5(H5Dget_space(handle), dataset), H5Sclose);
  select(space, offset, extent, path_, dataset);
  const Hdf5Handle memory(QNEXT_HDF5(make_space(extent), dataset), H5Sclose);
  QNEXT_HDF5(H5Dwrite(handle, file_type(element_type_of(type)), memory, space, H5P_DEFAULT, from),
             dataset);
}

template <class T>
void Hdf5File::write_dataset(const std::string& dataset, const std::vector<T>& values,
                             const std::vector<std::int64_t>& extents) {
  require(elements_of(extents) == static_cast<std::int64_t>(values.size()),
          dataset + ": " + std::to_string(values.size()) + " values for " + to_string(extents));
  create_group(dataset.substr(0, dataset.rfind('/')));
  const Hdf5Handle type = file_type(element_type<T>());
  const Hdf5Handle space(QNEXT_HDF5(make_space(extents), dataset), H5Sclose);
  const Hdf5Handle handle(create_contiguous(id_, type, space, path_, dataset), H5Dclose);
  QNEXT_HDF5(H5Dwrite(handle, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), dataset);
}

void Hdf5File::write_text(const std::string& dataset, const std::string& text) {
  create_group(dataset.substr(0, dataset.rfind('/')));
  const Hdf5Handle type = text_type(text);
  const Hdf5Handle space(QNEXT_HDF5(make_space({}), dataset), H5Sclose);
  const Hdf5Handle handle(create_contiguous(id_, type, space, path_, dataset), H5Dclose);
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
  const Hdf5Handle handle(open_attribute(id_, *this, path_, object, name), H5Aclose);
  const Hdf5Handle type(QNEXT_HDF5(H5Aget_type(handle), where), H5Tclose);
  const Hdf5Handle space(QNEXT_HDF5(H5Aget_space(handle), where), H5Sclose);
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
    // One that was opened by the name of its object cannot be written (1.10).
    const Hdf5Handle owner(QNEXT_HDF5(H5Oopen(id_, object.c_str(), H5P_DEFAULT), where), H5Oclose);
    const Hdf5Handle handle(
        has_attribute(object, name)
            ? QNEXT_HDF5(H5Aopen(owner, name.c_str(), H5P_DEFAULT), where)
            : QNEXT_HDF5(H5Acreate2(owner, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                         where),
        H5Aclose);
    QNEXT_HDF5(H5Awrite(handle, type, from), where);
  };
  if constexpr (std::is_same_v<T, std::string>) {
    write(text_type(value), Hdf5Handle(make_space({}), H5Sclose), value.c_str());
  } else if constexpr (std::is_arithmetic_v<T>) {
    write(file_type(element_type<T>()), Hdf5Handle(make_space({}), H5Sclose), &value);
  } else {
    const Hdf5Handle space(make_space({static_cast<std::int64_t>(value.size())}), H5Sclose);
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
