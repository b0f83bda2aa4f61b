// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.hpp"

#include "core/fence.hpp"
#include "core/version.hpp"
#include "io/boxes.hpp"
#include "io/checkpoint_block.hpp"
#include "io/hash.hpp"
#include "io/hdf5_file.hpp"
#include "io/posix_file.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

namespace qnext {
namespace {

using Extents = std::vector<std::int64_t>;

constexpr const char* hash_attribute = "xxh3";

/// Large enough for full speed of the disk, small enough to be hashed out of the cache.
constexpr std::int64_t piece_bytes = std::int64_t{4} << 20;

/// A box of a dataset and where its elements lie among those of this rank.
struct Piece {
  Extents offset;
  Extents extent;
  std::int64_t begin;
  std::int64_t elements;
};

/// The boxes of a shard, cut along the first extent.
std::vector<Piece> pieces_of(const Shard& shard, DataType type) {
  std::vector<Piece> pieces;
  std::int64_t begin = 0;
  for (const Box& box : shard.boxes) {
    const std::int64_t row = box.elements() / std::max<std::int64_t>(1, box.extent[0]);
    const std::int64_t rows = std::max<std::int64_t>(1, piece_bytes / (row * size_of(type) + 1));
    for (std::int64_t first = 0; first < box.extent[0]; first += rows) {
      const std::int64_t count = std::min(rows, box.extent[0] - first);
      Piece piece{{box.offset.begin(), box.offset.begin() + shard.rank},
                  {box.extent.begin(), box.extent.begin() + shard.rank},
                  begin,
                  count * row};
      piece.offset[0] += first;
      piece.extent[0] = count;
      pieces.push_back(piece);
      begin += count * row;
    }
  }
  return pieces;
}

Extents global_extents(const Shard& shard) {
  return {shard.global_extent.begin(), shard.global_extent.begin() + shard.rank};
}

/// Whether the memory of this rank is the global tensor, element for element.
bool is_whole(const Shard& shard) {
  std::int64_t next = 0;
  for (const Box& box : shard.boxes) {
    for (int axis = 1; axis < 4; ++axis) {
      if (box.offset[axis] != 0 || box.extent[axis] != shard.global_extent[axis]) {
        return false;
      }
    }
    if (box.offset[0] != next) {
      return false;
    }
    next += box.extent[0];
  }
  return next == shard.global_extent[0];
}

/// A tensor of a family: its place in the file, in the flat buffer of its group, and the memory of
/// this rank for that buffer or for a part of it.
struct FileTensor {
  std::string dataset;
  DataType type;
  const Shard* shard;
  std::int64_t begin;  // of the tensor in its group, elements
  std::byte* memory;   // of the device: element `origin` of the group
  std::int64_t origin;
  const Shards* shards;  // null: this rank has all of the tensor

  std::byte* at(std::int64_t element) const {
    return memory + (begin + element - origin) * size_of(type);
  }
};

/// Elements of a tensor, from its first.
struct Range {
  std::int64_t begin, end;
  bool empty() const { return begin >= end; }
};

/// What rank r holds of the elements of a piece.
Range held(const FileTensor& tensor, const Piece& piece, int r) {
  return {std::max(piece.begin, tensor.shards->borders[r] - tensor.begin),
          std::min(piece.begin + piece.elements, tensor.shards->borders[r + 1] - tensor.begin)};
}

/// Copies between device and host where they do not share memory.
class Stage {
 public:
  static constexpr bool shared_memory =
      Kokkos::SpaceAccessibility<Kokkos::HostSpace, Exec::memory_space>::accessible;

  /// Where the host finds or leaves the bytes.
  std::byte* host(std::byte* device, std::int64_t bytes) {
    if (shared_memory) {
      return device;
    }
    if (static_cast<std::int64_t>(buffer_.extent(0)) < bytes) {
      buffer_ = HostTensor<std::byte, 1>(
          Kokkos::view_alloc("checkpoint stage", Kokkos::WithoutInitializing), bytes);
    }
    return buffer_.data();
  }
  std::byte* to_host(std::byte* device, std::int64_t bytes) {
    std::byte* const place = host(device, bytes);
    if (!shared_memory) {
      Kokkos::deep_copy(HostTensor<std::byte, 1>(place, bytes),
                        Tensor<const std::byte, 1>(device, bytes));
    }
    return place;
  }
  void to_device(std::byte* device, std::int64_t bytes) {
    if (!shared_memory) {
      Kokkos::deep_copy(Tensor<std::byte, 1>(device, bytes),
                        HostTensor<const std::byte, 1>(buffer_.data(), bytes));
    }
  }

 private:
  HostTensor<std::byte, 1> buffer_;
};

std::vector<FileTensor> tensors_of(const ParameterTable& table, const TensorFamily& family) {
  require(family.buffers.size() == table.groups().size(),
          family.name + ": has buffers for " + std::to_string(family.buffers.size()) +
              " groups, wanted are " + std::to_string(table.groups().size()));
  std::vector<FileTensor> tensors;
  for (const Parameter& row : table.rows()) {
    const auto& buffer = family.buffers[row.group];
    if (row.alias_of.empty() && (buffer.memory.extent(0) > 0 || buffer.shards != nullptr)) {
      tensors.push_back({"/" + family.name + "/" + row.name, buffer.type, &row.shard, row.begin,
                         buffer.memory.data(), buffer.shards ? buffer.shards->begin() : 0,
                         buffer.shards});
    }
  }
  return tensors;
}

std::vector<FileTensor> tensors_of(const ParameterTable& table,
                                   const std::vector<TensorFamily>& families) {
  auto tensors = tensors_of(table, parameter_family(table));
  for (const TensorFamily& family : families) {
    const auto more = tensors_of(table, family);
    tensors.insert(tensors.end(), more.begin(), more.end());
  }
  return tensors;
}

// --- Writing -------------------------------------------------------------------------------------

HostTensor<std::byte, 1> host_bytes(std::byte* begin, const Range& range, DataType type) {
  return HostTensor<std::byte, 1>(
      begin, static_cast<std::size_t>((range.end - range.begin) * size_of(type)));
}

/// The bytes of a piece, from all ranks that hold some of it. The first rank asks.
const std::byte* collect(const FileTensor& tensor, const Piece& piece, Stage& stage,
                         std::vector<std::byte>& bytes) {
  bytes.resize(piece.elements * size_of(tensor.type));
  const Communicator& over = tensor.shards->over;
  std::vector<Parcel> receives;
  for (int r = 0; r < over.ranks(); ++r) {
    const Range range = held(tensor, piece, r);
    if (range.empty()) {
      continue;
    }
    std::byte* const to = bytes.data() + (range.begin - piece.begin) * size_of(tensor.type);
    const auto view = host_bytes(to, range, tensor.type);
    if (r == over.rank()) {
      std::memcpy(to, stage.to_host(tensor.at(range.begin), view.extent(0)), view.extent(0));
    } else {
      receives.push_back({r, buffer_of(view)});
    }
  }
  over.exchange({}, receives);
  return bytes.data();
}

/// The elements of this rank's boxes, in their order, from all ranks that have the same boxes.
std::vector<std::byte> collect_boxes(const FileTensor& tensor, Stage& stage) {
  std::vector<std::byte> all, collected;
  for (const Piece& piece : pieces_of(*tensor.shard, tensor.type)) {
    const std::int64_t bytes = piece.elements * size_of(tensor.type);
    const std::byte* const from = tensor.shards ? collect(tensor, piece, stage, collected)
                                                : stage.to_host(tensor.at(piece.begin), bytes);
    all.insert(all.end(), from, from + bytes);
  }
  return all;
}

/// The global tensor from the boxes of all ranks that divide it, in memory of the host. The first
/// asks.
std::vector<std::byte> collect_divided(const FileTensor& tensor, const Communicator& ranks,
                                       Stage& stage) {
  const Shard& shard = *tensor.shard;
  const int size = size_of(tensor.type);
  std::vector<std::byte> whole(shard.global_elements() * size);
  place_boxes(shard, size, collect_boxes(tensor, stage).data(), whole.data());
  for (int r = 1; r < ranks.ranks(); ++r) {
    receive_boxes(ranks, r, shard, size, whole.data());
  }
  return whole;
}

/// The other ranks' side of it. A whole tensor comes from the ranks that share its numbers with the
/// first of the job, be these all ranks or those of its tensor place; of a divided one `leads` has
/// the numbers of its boxes together and sends them on.
void hand_over(const std::vector<FileTensor>& tensors, const Communicator& world,
               const Communicator& ranks) {
  const bool leads = world.rank() < ranks.ranks();
  Stage stage;
  for (const FileTensor& tensor : tensors) {
    const bool whole = is_whole(*tensor.shard);
    if (leads && !whole) {
      auto bytes = collect_boxes(tensor, stage);
      send_boxes(ranks, 0, *tensor.shard, bytes);
      continue;
    }
    if (tensor.shards == nullptr ||
        (whole && ranks.rank() > 0 && tensor.shards->over.ranks() < world.ranks())) {
      continue;
    }
    for (const Piece& piece : pieces_of(*tensor.shard, tensor.type)) {
      const Range range = held(tensor, piece, tensor.shards->over.rank());
      if (!range.empty()) {
        const std::int64_t bytes = (range.end - range.begin) * size_of(tensor.type);
        std::byte* const from = stage.to_host(tensor.at(range.begin), bytes);
        tensor.shards->over.send(host_bytes(from, range, tensor.type), 0);
      }
    }
  }
}

CheckpointBlock::Range write_tensor(Hdf5File& file, const FileTensor& tensor,
                                    const Communicator& ranks, Stage& stage) {
  const bool divided = !is_whole(*tensor.shard);
  require(!divided || ranks.ranks() > 1,
          tensor.dataset + ": one rank writes whole tensors, several those that they divide");
  const Extents extents = global_extents(*tensor.shard);
  file.create_dataset(tensor.dataset, element_type_of(tensor.type), extents);
  Hash hash;
  std::vector<std::byte> collected;
  if (divided) {
    collected = collect_divided(tensor, ranks, stage);
  }
  for (const Piece& piece : pieces_of(Shard::whole(extents), tensor.type)) {
    const std::int64_t bytes = piece.elements * size_of(tensor.type);
    const std::byte* const from = divided ? collected.data() + piece.begin * size_of(tensor.type)
                                  : tensor.shards ? collect(tensor, piece, stage, collected)
                                                  : stage.to_host(tensor.at(piece.begin), bytes);
    file.write_box(tensor.dataset, tensor.type, piece.offset, piece.extent, from);
    hash.add(from, bytes);
  }
  file.write_attribute<std::string>(tensor.dataset, hash_attribute, hash.digits());
  return {file.place_of(tensor.dataset), tensor.shard->global_elements() * size_of(tensor.type)};
}

void write_value(Hdf5File& file, const std::string& path, const RecordValue& value) {
  if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    file.write_dataset<std::int64_t>(path, {*integer}, {});
  } else if (const auto* real = std::get_if<double>(&value)) {
    file.write_dataset<double>(path, {*real}, {});
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    file.write_text(path, *text);
  } else if (const auto* integers = std::get_if<std::vector<std::int64_t>>(&value)) {
    file.write_dataset(path, *integers, {static_cast<std::int64_t>(integers->size())});
  } else {
    const auto& reals = std::get<std::vector<double>>(value);
    file.write_dataset(path, reals, {static_cast<std::int64_t>(reals.size())});
  }
}

void write_content(Hdf5File& file, const CheckpointContent& content) {
  file.write_attribute<std::string>("/", "program", "qnext");
  file.write_attribute<std::int64_t>("/", "format", CheckpointBlock::current_format);
  file.write_attribute<std::int64_t>("/", "step", content.step);
  file.write_text("/deck/given", content.given_deck);
  file.write_text("/deck/resolved", content.resolved_deck);
  file.create_group("/records");
  for (const auto& [name, record] : content.records) {
    file.create_group("/records/" + name);
    for (const auto& [value_name, value] : record.values()) {
      write_value(file, "/records/" + name + "/" + value_name, value);
    }
  }
}

/// A disk that is too full says so before anything is written.
void expect_room(const std::string& part, const std::vector<FileTensor>& tensors) {
  std::int64_t wanted = 0;
  for (const FileTensor& tensor : tensors) {
    wanted += tensor.shard->global_elements() * size_of(tensor.type);
  }
  const std::int64_t found = room_in(folder_of(part));
  if (found < wanted) {
    throw EnvironmentError(part + ": the disk has room for " + std::to_string(found) +
                           " bytes, wanted are " + std::to_string(wanted));
  }
}

void write_part(const std::string& part, const CheckpointContent& content,
                const std::vector<FileTensor>& tensors, const Communicator& ranks) {
  expect_room(part, tensors);
  CheckpointBlock block{content.step, 0, {}};
  const auto count = static_cast<std::int64_t>(tensors.size());
  auto file = Hdf5File::create(part, CheckpointBlock::bytes_for(count));
  write_content(file, content);
  Stage stage;
  for (const FileTensor& tensor : tensors) {
    block.tensors.push_back(write_tensor(file, tensor, ranks, stage));
  }
  file.close();
  seal_checkpoint(part, block);
}

/// Gives the room back at once, even while a library still holds the file open.
void remove_part(const std::string& part) {
  std::error_code ignored;
  std::filesystem::resize_file(part, 0, ignored);
  std::filesystem::remove(part, ignored);
}

// --- Reading -------------------------------------------------------------------------------------

/// The one place where a checkpoint is opened: HDF5 only sees files whose metadata are whole.
Hdf5File open_checkpoint(const std::string& path) {
  check_checkpoint_block(path);
  return Hdf5File(path);
}

RecordValue read_value(const Hdf5File& file, const std::string& path) {
  const DatasetShape shape = file.describe(path);
  if (shape.type == ElementType::text) {
    return file.read_text(path);
  }
  if (shape.type == ElementType::int64) {
    auto values = file.read_dataset<std::int64_t>(path).values;
    return shape.extents.empty() ? RecordValue(values.front()) : RecordValue(std::move(values));
  }
  auto values = file.read_dataset<double>(path).values;
  return shape.extents.empty() ? RecordValue(values.front()) : RecordValue(std::move(values));
}

void compare_hash(const Hdf5File& file, const std::string& dataset, const std::string& found) {
  const auto wanted = file.read_attribute<std::string>(dataset, hash_attribute);
  if (found != wanted) {
    throw BadNumberError(file.path() + ": " + dataset + ": is damaged: its hash is " + found +
                         ", wanted is " + wanted);
  }
}

/// Reads the whole of a tensor for its hash alone.
void verify_tensor(const Hdf5File& file, const std::string& dataset) {
  const DatasetShape shape = file.describe(dataset);
  const DataType type = shape.type == ElementType::bf16      ? DataType::bf16
                        : shape.type == ElementType::float32 ? DataType::float32
                                                             : DataType::float64;
  std::vector<std::byte> buffer;
  Hash hash;
  for (const Piece& piece : pieces_of(Shard::whole(shape.extents), type)) {
    buffer.resize(piece.elements * size_of(type));
    file.read_box(dataset, type, piece.offset, piece.extent, buffer.data());
    hash.add(buffer.data(), buffer.size());
  }
  compare_hash(file, dataset, hash.digits());
}

/// All of a tensor, and its hash.
void read_whole(const Hdf5File& file, const FileTensor& tensor, Stage& stage) {
  Hash hash;
  for (const Piece& piece : pieces_of(*tensor.shard, tensor.type)) {
    const std::int64_t bytes = piece.elements * size_of(tensor.type);
    std::byte* const host = stage.host(tensor.at(piece.begin), bytes);
    file.read_box(tensor.dataset, tensor.type, piece.offset, piece.extent, host);
    hash.add(host, bytes);
    stage.to_device(tensor.at(piece.begin), bytes);
  }
  if (is_whole(*tensor.shard)) {
    compare_hash(file, tensor.dataset, hash.digits());
  }
}

/// What this rank holds of a tensor that ranks share.
void read_part(const Hdf5File& file, const FileTensor& tensor, Stage& stage) {
  std::vector<std::byte> buffer;
  for (const Piece& piece : pieces_of(*tensor.shard, tensor.type)) {
    const Range range = held(tensor, piece, tensor.shards->over.rank());
    if (range.empty()) {
      continue;
    }
    const std::int64_t size = size_of(tensor.type);
    buffer.resize(piece.elements * size);
    file.read_box(tensor.dataset, tensor.type, piece.offset, piece.extent, buffer.data());
    const std::int64_t bytes = (range.end - range.begin) * size;
    std::memcpy(stage.host(tensor.at(range.begin), bytes),
                buffer.data() + (range.begin - piece.begin) * size, bytes);
    stage.to_device(tensor.at(range.begin), bytes);
  }
}

void read_tensor(const Hdf5File& file, const FileTensor& tensor, Stage& stage) {
  if (tensor.shards != nullptr) {
    const std::int64_t elements = tensor.shard->local_elements();
    const Range range = held(tensor, {{}, {}, 0, elements}, tensor.shards->over.rank());
    if (range.empty()) {
      return;
    }
    if (range.end - range.begin < elements) {
      verify_tensor(file, tensor.dataset);
      read_part(file, tensor, stage);
      return;
    }
  }
  if (!is_whole(*tensor.shard)) {
    verify_tensor(file, tensor.dataset);
  }
  read_whole(file, tensor, stage);
}

std::string some_of(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 8;
  std::string text = std::to_string(names.size()) + " (";
  for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  return text + (names.size() > shown ? ", ...)" : ")");
}

/// Missing and unknown tensors of one family, all of them in one message.
void compare_names(const Hdf5File& file, const std::string& family,
                   const std::vector<FileTensor>& tensors) {
  const std::string group = "/" + family;
  std::set<std::string> found;
  if (file.is_group(group)) {
    const auto names = file.list(group);
    found.insert(names.begin(), names.end());
  }
  std::vector<std::string> missing;
  for (const FileTensor& tensor : tensors) {
    const std::string name = tensor.dataset.substr(group.size() + 1);
    if (found.erase(name) == 0) {
      missing.push_back(name);
    }
  }
  if (missing.empty() && found.empty()) {
    return;
  }
  const std::vector<std::string> unknown(found.begin(), found.end());
  throw InputError(file.path() + ": " + group + ": does not hold the tensors of this model:" +
                   (missing.empty() ? "" : " missing " + some_of(missing)) +
                   (unknown.empty() ? "" : " unknown " + some_of(unknown)));
}

void compare_shape(const Hdf5File& file, const FileTensor& tensor) {
  const DatasetShape found = file.describe(tensor.dataset);
  const ElementType type = element_type_of(tensor.type);
  const Extents extents = global_extents(*tensor.shard);
  if (found.type == type && found.extents == extents) {
    return;
  }
  throw InputError(file.path() + ": " + tensor.dataset + ": is " +
                   std::string(name_of(found.type)) + " " + to_string(found.extents) +
                   ", wanted is " + std::string(name_of(type)) + " " + to_string(extents));
}

}  // namespace

TensorFamily parameter_family(const ParameterTable& table) {
  TensorFamily family{"parameters", {}};
  for (const auto& group : table.groups()) {
    family.buffers.push_back({group.type, group.values});
  }
  return family;
}

Record& CheckpointContent::record(const std::string& name) {
  return records.try_emplace(name, name).first->second;
}

const Record& CheckpointContent::record(const std::string& name) const {
  const auto it = records.find(name);
  if (it == records.end()) {
    throw InputError("the checkpoint has no record " + name);
  }
  return it->second;
}

Record program_record(int threads, const std::string& processor_features) {
  const Version v = version();
  Record record("program");
  record.set("version", std::string(v.version));
  record.set("commit", std::string(v.commit));
  record.set("backend", std::string(v.backend));
  record.set("compiler", std::string(v.compiler));
  record.set("flags", std::string(v.flags));
  record.set("threads", std::int64_t{threads});
  record.set("processor_features", processor_features);
  return record;
}

void write_checkpoint(const std::string& path, const CheckpointContent& content,
                      const ParameterTable& table, const std::vector<TensorFamily>& families,
                      const Communicator& world, const Communicator& parts) {
  fence(Exec{}, "checkpoint: the tensors are written to a file");
  if (!world.first()) {
    hand_over(tensors_of(table, families), world, parts);
    return;
  }
  const std::string part = path + ".part";
  try {
    write_part(part, content, tensors_of(table, families), parts);
    replace_file(part, path);
  } catch (...) {
    remove_part(part);
    throw;
  }
}

CheckpointContent read_checkpoint_content(const std::string& path) {
  const Hdf5File file = open_checkpoint(path);
  CheckpointContent content;
  content.step = file.read_attribute<std::int64_t>("/", "step");
  content.given_deck = file.read_text("/deck/given");
  content.resolved_deck = file.read_text("/deck/resolved");
  for (const std::string& name : file.list("/records")) {
    Record& record = content.record(name);
    for (const std::string& value : file.list("/records/" + name)) {
      record.set(value, read_value(file, "/records/" + name + "/" + value));
    }
  }
  return content;
}

void read_checkpoint_tensors(const std::string& path, const ParameterTable& table,
                             const std::vector<TensorFamily>& families) {
  const Hdf5File file = open_checkpoint(path);
  fence(Exec{}, "checkpoint: the tensors are read from a file");
  compare_names(file, "parameters", tensors_of(table, parameter_family(table)));
  for (const TensorFamily& family : families) {
    compare_names(file, family.name, tensors_of(table, family));
  }
  const auto tensors = tensors_of(table, families);
  for (const FileTensor& tensor : tensors) {
    compare_shape(file, tensor);
  }
  Stage stage;
  for (const FileTensor& tensor : tensors) {
    read_tensor(file, tensor, stage);
  }
}

void verify_checkpoint(const std::string& path) {
  const Hdf5File file = open_checkpoint(path);
  for (const std::string& dataset : file.list_datasets("/")) {
    if (file.has_attribute("/" + dataset, hash_attribute)) {
      verify_tensor(file, "/" + dataset);
    }
  }
}

}  // namespace qnext
