// SPDX-License-Identifier: Apache-2.0
#include "app/import_hugging_face.hpp"

#include "core/fence.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace qnext {
namespace {

constexpr const char* mtp_prefix = "mtp.";

/// The part of both, or a box with an extent that is not positive.
Box common_part(const Box& a, const Box& b) {
  Box part;
  for (int axis = 0; axis < 4; ++axis) {
    part.offset[axis] = std::max(a.offset[axis], b.offset[axis]);
    part.extent[axis] = std::min(a.offset[axis] + a.extent[axis], b.offset[axis] + b.extent[axis]) -
                        part.offset[axis];
  }
  return part;
}

/// Where an element of the global tensor stands in the memory of a box of it.
std::int64_t place_in(const Box& box, const std::array<std::int64_t, 4>& at) {
  std::int64_t place = 0;
  for (int axis = 0; axis < 4; ++axis) {
    place = place * box.extent[axis] + at[axis] - box.offset[axis];
  }
  return place;
}

/// From that axis on, the elements of `part` are neighbours in both boxes.
int first_contiguous_axis(const Box& part, const Box& a, const Box& b) {
  int axis = 3;
  while (axis > 0 && part.extent[axis] == a.extent[axis] && part.extent[axis] == b.extent[axis]) {
    --axis;
  }
  return axis;
}

/// Copies what `box` of this rank and the tensor of the file have in common.
template <class T>
void copy_part(const SafeTensor& tensor, const HuggingFaceTensor& source, const Box& box, T* to) {
  const Box part = common_part(box, source.box);
  if (*std::min_element(part.extent.begin(), part.extent.end()) <= 0) {
    return;
  }
  const int axis = first_contiguous_axis(part, box, source.box);
  std::int64_t run = 1, runs = 1;
  for (int a = 0; a < 4; ++a) {
    (a < axis ? runs : run) *= part.extent[a];
  }
  for (std::int64_t r = 0; r < runs; ++r) {
    auto at = part.offset;
    std::int64_t rest = r;
    for (int a = axis - 1; a >= 0; --a) {
      at[a] += rest % part.extent[a];
      rest /= part.extent[a];
    }
    convert_elements(tensor, source.name, place_in(source.box, at), run, to + place_in(box, at));
  }
}

/// What the folder and the table do not have in common, collected over all parameters.
struct Differences {
  std::vector<std::string> missing;
  std::set<std::string> left;  // in the folder, used by no parameter
};

template <class T>
void fill_row_as(const ParameterTable& table, const Parameter& row,
                 const std::vector<HuggingFaceTensor>& sources,
                 const std::function<const SafeTensor&(const std::string&)>& find) {
  const auto values = table.values<T>(row);
  const auto host = Kokkos::create_mirror_view(values);
  for (const HuggingFaceTensor& source : sources) {
    const SafeTensor& tensor = find(source.name);
    std::int64_t begin = 0;
    for (const Box& box : row.shard.boxes) {
      copy_part(tensor, source, box, host.data() + begin);
      begin += box.elements();
    }
  }
  Kokkos::deep_copy(values, host);
}

/// The tensors of the folder for one parameter, with their shapes compared.
std::vector<HuggingFaceTensor> sources_of(const SafetensorsFolder& folder, const Parameter& row,
                                          Differences& differences) {
  const bool stacked = folder.find(row.name) != nullptr;
  const auto sources =
      hugging_face_tensors(row, stacked ? ExpertLayout::stacked : ExpertLayout::one_by_one);
  for (const HuggingFaceTensor& source : sources) {
    const SafeTensor* const tensor = folder.find(source.name);
    if (tensor == nullptr) {
      differences.missing.push_back(source.name);
      continue;
    }
    differences.left.erase(source.name);
    if (tensor->extents != source.extents) {
      throw InputError(fmt::format("{}: {}: has the extents ({}), wanted are ({})", folder.folder(),
                                   source.name, fmt::join(tensor->extents, ", "),
                                   fmt::join(source.extents, ", ")));
    }
  }
  return sources;
}

/// A tied head may stand in the file a second time.
void accept_tied_head(const SafetensorsFolder& folder, const Parameter& row,
                      Differences& differences, std::vector<std::string>& lines) {
  const SafeTensor* const own = folder.find(row.name);
  const SafeTensor* const original = folder.find(row.alias_of);
  if (own == nullptr || original == nullptr) {
    return;
  }
  if (own->type != original->type || own->extents != original->extents ||
      !std::equal(own->bytes.begin(), own->bytes.end(), original->bytes.begin(),
                  original->bytes.end())) {
    throw InputError(fmt::format("{}: {} differs from {}, although config.json ties them",
                                 folder.folder(), row.name, row.alias_of));
  }
  differences.left.erase(row.name);
  lines.push_back(fmt::format("{} is {} once more", row.name, row.alias_of));
}

bool is_mtp(const std::string& name) {
  return name.starts_with(mtp_prefix);
}

void accept_unused_mtp(const ParameterTable& table, const Communicator& world,
                       Differences& differences, std::vector<std::string>& lines) {
  const auto& rows = table.rows();
  std::vector<std::int64_t> module{
      std::any_of(rows.begin(), rows.end(), [](const auto& row) { return is_mtp(row.name); })};
  world.maximum(module);
  if (module.front() != 0) {
    return;
  }
  const auto count = std::erase_if(differences.left, is_mtp);
  if (count > 0) {
    lines.push_back(fmt::format("{} tensors {}* are left out: the model has no such module", count,
                                mtp_prefix));
  }
}

/// Stages of a pipeline take different tensors: left is what no rank takes.
void keep_left_by_all(const std::vector<std::string>& names, const Communicator& world,
                      Differences& differences) {
  std::vector<std::int64_t> taken;
  for (const std::string& name : names) {
    taken.push_back(differences.left.count(name) == 0);
  }
  world.maximum(taken);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (taken[i] != 0) {
      differences.left.erase(names[i]);
    }
  }
}

template <class Names>
std::string some_of(const Names& names) {
  constexpr std::size_t shown = 8;
  const std::vector<std::string> first(names.begin(),
                                       std::next(names.begin(), std::min(shown, names.size())));
  return fmt::format("{} ({}{})", names.size(), fmt::join(first, ", "),
                     names.size() > shown ? ", ..." : "");
}

void refuse(const std::string& folder, const Differences& differences) {
  if (differences.missing.empty() && differences.left.empty()) {
    return;
  }
  std::string message = folder + ": does not hold the tensors of this model:";
  if (!differences.missing.empty()) {
    message += " missing " + some_of(differences.missing);
  }
  if (!differences.left.empty()) {
    message += " unknown " + some_of(differences.left);
  }
  throw InputError(message);
}

}  // namespace

HuggingFaceSources hugging_face_sources(const SafetensorsFolder& folder,
                                        const ParameterTable& table, const Communicator& world) {
  const std::vector<std::string> names = folder.names();
  Differences differences{{}, {names.begin(), names.end()}};
  HuggingFaceSources sources;
  for (const Parameter& row : table.rows()) {
    sources.tensors.emplace_back();
    if (row.of_adapter) {
      continue;  // no folder of a model has it
    }
    if (row.alias_of.empty()) {
      sources.tensors.back() = sources_of(folder, row, differences);
    } else {
      accept_tied_head(folder, row, differences, sources.remarks);
    }
  }
  keep_left_by_all(names, world, differences);
  accept_unused_mtp(table, world, differences, sources.remarks);
  refuse(folder.folder(), differences);
  return sources;
}

std::vector<std::string> import_hugging_face(const std::string& folder, const ParameterTable& table,
                                             const Communicator& world) {
  const SafetensorsFolder weights(folder);
  const HuggingFaceSources sources = hugging_face_sources(weights, table, world);
  fence(Exec{}, "import: the parameters are overwritten");
  for (std::size_t i = 0; i < sources.tensors.size(); ++i) {
    if (!sources.tensors[i].empty()) {
      fill_row(table, table.rows()[i], sources.tensors[i],
               [&](const std::string& name) -> const SafeTensor& { return *weights.find(name); });
    }
  }
  return sources.remarks;
}

void fill_row(const ParameterTable& table, const Parameter& row,
              const std::vector<HuggingFaceTensor>& sources,
              const std::function<const SafeTensor&(const std::string&)>& find) {
  switch (row.type) {
    case DataType::bf16:
      return fill_row_as<bf16>(table, row, sources, find);
    case DataType::float32:
      return fill_row_as<float>(table, row, sources, find);
    case DataType::float64:
      return fill_row_as<double>(table, row, sources, find);
  }
}

bool has_mtp_weights(const std::string& folder) {
  const auto names = SafetensorsFolder(folder).names();
  return std::any_of(names.begin(), names.end(), is_mtp);
}

}  // namespace qnext
