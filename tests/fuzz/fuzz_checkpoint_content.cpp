// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"
#include "io/checkpoint_block.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/hash.hpp"
#include "io/hdf5_file.hpp"
#include "tests/fuzz/target.hpp"

#include <hdf5.h>

#include <array>
#include <filesystem>

// Files that are whole and well-formed, with every hash right, but do not hold what a checkpoint
// holds: an input is a list of what is wrong, four bytes each.
namespace qnext::fuzz {
namespace {

constexpr std::array<const char*, 12> paths = {"/deck/given",
                                               "/deck/resolved",
                                               "/records/progress/updates",
                                               "/records/a/b",
                                               "/records/hugging_face/tensors",
                                               "/records/progress/usual_norms",
                                               "/parameters/norm",
                                               "/parameters/matrix",
                                               "/parameters/more",
                                               "/records/progress",
                                               "/parameters",
                                               "/optimizer/first_moment/norm"};

/// What stands under a path. The first three are what a checkpoint has.
enum class Form {
  text,
  numbers,
  integers,
  no_elements,
  scalar,
  chunked,
  null_space,
  pairs,
  text_of_any_length,
  soft_link,
  loop,
  nothing
};
constexpr int forms = static_cast<int>(Form::nothing) + 1;

struct Object {
  Form form = Form::nothing;
  std::vector<std::int64_t> extents;
  ElementType type = ElementType::float32;
};

ParameterTable& table() {
  static ParameterTable table;
  static Weight<float, 1> norm;
  static Weight<bf16, 2> matrix;
  if (table.rows().empty()) {
    table.add({.name = "norm", .shard = Shard::whole({3})}, norm);
    table.add({.name = "matrix", .shard = Shard::whole({2, 3})}, matrix);
  }
  return table;
}

std::array<Object, paths.size()> right() {
  std::array<Object, paths.size()> objects;
  objects[0] = objects[1] = objects[4] = {Form::text, {}};
  objects[2] = {Form::integers, {}, ElementType::int64};
  objects[5] = {Form::numbers, {2}, ElementType::float64};
  objects[6] = {Form::numbers, {3}, ElementType::float32};
  objects[7] = {Form::numbers, {2, 3}, ElementType::bf16};
  return objects;
}

void change(Object& object, int what, int a, int b) {
  switch (what % 4) {
    case 0:
      object.form = static_cast<Form>(a % forms);
      return;
    case 1:
      object.type = static_cast<ElementType>(a % 5);
      return;
    case 2:
      object.extents.assign(static_cast<std::size_t>(a % 5), b % 7);
      return;
    default:
      object.extents = {a, b % 3};
  }
}

/// What Hdf5File does not write.
class RawFile {
 public:
  explicit RawFile(const std::string& path)
      : file_(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT)) {}
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;
  ~RawFile() { H5Fclose(file_); }

  void add(const std::string& path, const Object& object) const {
    const hid_t links = H5Pcreate(H5P_LINK_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    const hsize_t four = 4;
    if (object.form == Form::soft_link) {
      H5Lcreate_soft("/no/such/place", file_, path.c_str(), links, H5P_DEFAULT);
    } else if (object.form == Form::loop) {
      const std::string group = path.substr(0, path.rfind('/'));
      H5Gclose(H5Gcreate2(file_, (group + "/empty").c_str(), links, H5P_DEFAULT, H5P_DEFAULT));
      H5Lcreate_hard(file_, group.empty() ? "/" : group.c_str(), file_, path.c_str(), links,
                     H5P_DEFAULT);
    } else if (object.form == Form::null_space) {
      dataset(path, H5T_NATIVE_DOUBLE, H5Screate(H5S_NULL), links, H5P_DEFAULT);
    } else if (object.form == Form::chunked) {
      const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
      H5Pset_chunk(creation, 1, &four);
      dataset(path, H5T_NATIVE_FLOAT, H5Screate_simple(1, &four, nullptr), links, creation);
      H5Pclose(creation);
    } else if (object.form == Form::pairs) {
      const hid_t type = H5Tcreate(H5T_COMPOUND, 16);
      H5Tinsert(type, "a", 0, H5T_NATIVE_DOUBLE);
      H5Tinsert(type, "b", 8, H5T_NATIVE_INT64);
      dataset(path, type, H5Screate_simple(1, &four, nullptr), links, H5P_DEFAULT);
      H5Tclose(type);
    } else if (object.form == Form::text_of_any_length) {
      const hid_t type = H5Tcopy(H5T_C_S1);
      H5Tset_size(type, H5T_VARIABLE);
      dataset(path, type, H5Screate(H5S_SCALAR), links, H5P_DEFAULT);
      H5Tclose(type);
    }
    H5Pclose(links);
  }

 private:
  void dataset(const std::string& path, hid_t type, hid_t space, hid_t links,
               hid_t creation) const {
    const hid_t set = H5Dcreate2(file_, path.c_str(), type, space, links, creation, H5P_DEFAULT);
    if (set >= 0) {
      H5Dclose(set);
    }
    H5Sclose(space);
  }

  hid_t file_;
};

void add(Hdf5File& file, const std::string& path, const Object& object) {
  switch (object.form) {
    case Form::text:
      return file.write_text(path, "run: {name: a}\n");
    case Form::integers:
      return file.write_dataset<std::int64_t>(
          path, std::vector<std::int64_t>(elements_of(object.extents), -1), object.extents);
    case Form::scalar:
      return file.write_dataset<double>(path, {0.5}, {});
    case Form::numbers:
    case Form::no_elements:
      file.create_group(path.substr(0, path.rfind('/')));
      return file.create_dataset(path, object.type, object.extents);
    default:
      return;
  }
}

std::string hash_of_zeros(std::int64_t bytes) {
  const std::vector<std::byte> zeros(static_cast<std::size_t>(bytes));
  Hash hash;
  hash.add(zeros.data(), zeros.size());
  return hash.digits();
}

/// A sealed file. False where the library itself refuses to make it.
bool write(const std::string& path, const std::array<Object, paths.size()>& objects,
           int attributes) {
  try {
    {
      auto file = Hdf5File::create(path, 512);
      if ((attributes & 1) == 0) {
        file.write_attribute<std::int64_t>("/", "step", 5);
      } else if ((attributes & 2) == 0) {
        file.write_attribute<std::string>("/", "step", "five");
      }
      for (std::size_t i = 0; i < paths.size(); ++i) {
        if (!file.exists(paths[i])) {
          add(file, paths[i], objects[i]);
        }
      }
      file.close();
    }
    {
      const RawFile file(path);
      for (std::size_t i = 0; i < paths.size(); ++i) {
        file.add(paths[i], objects[i]);
      }
    }
    CheckpointBlock block{5, 0, {}};
    auto file = Hdf5File::open_for_writing(path);
    for (const std::size_t i : {std::size_t{6}, std::size_t{7}, std::size_t{8}}) {
      if (!file.exists(paths[i]) || file.is_group(paths[i]) || (attributes & (1 << (i - 4))) != 0) {
        continue;
      }
      const std::int64_t bytes =
          file.describe(paths[i]).elements() * (objects[i].type == ElementType::bf16 ? 2 : 4);
      file.write_attribute(paths[i], "xxh3", hash_of_zeros(bytes));
    }
    file.close();
    seal_checkpoint(path, block);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::string> four_of_each() {
  std::vector<std::string> seeds = {std::string(1, '\0')};
  for (int i = 0; i < static_cast<int>(paths.size()); ++i) {
    for (int form = 0; form < forms; ++form) {
      seeds.push_back({'\0', static_cast<char>(i), '\0', static_cast<char>(form), '\1'});
    }
  }
  return seeds;
}

}  // namespace

std::vector<std::string> seeds() {
  return four_of_each();
}

std::vector<std::string> words() {
  return {std::string("\6\2\1\3", 4), std::string("\7\3\2\3", 4), std::string("\5\1\3\0", 4)};
}

}  // namespace qnext::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qnext;
  static const std::string path = "/dev/shm/qnext_fuzz_" + std::to_string(getpid()) + ".h5";
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  auto objects = fuzz::right();
  for (std::size_t i = 1; i + 3 < size && i < 64; i += 4) {
    fuzz::change(objects[data[i] % objects.size()], data[i + 1], data[i + 2], data[i + 3]);
  }
  const bool written = fuzz::write(path, objects, size == 0 ? 0 : data[0]);
  const auto read = [&](const auto& reader) { fuzz::refuse_or_accept([&] { reader(); }); };
  if (written) {
    read([&] { read_checkpoint_content(path); });
    read([&] { list_checkpoint_tensors(path); });
    read([&] { verify_checkpoint(path); });
    read([&] {
      read_checkpoint_stream(path, fuzz::table(),
                             [](const Parameter&, std::int64_t, std::span<const std::byte>) {});
    });
  }
  std::filesystem::remove(path);
  return 0;
}
