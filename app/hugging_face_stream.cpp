// SPDX-License-Identifier: Apache-2.0
#include "app/hugging_face_stream.hpp"

#include "app/hugging_face_model.hpp"
#include "app/precision.hpp"
#include "io/hugging_face_config.hpp"

#include <algorithm>

namespace qnext {
namespace {

constexpr std::int64_t piece_bytes = std::int64_t{4} << 20;

struct HoldsAll {
  const std::string& folder;
  const ModelConfig& model;

  template <class Storage>
  bool operator()() const {
    ParameterTable table;
    const Model<Storage> registered(model, ProcessGrid{}, table);
    const SafetensorsFolder weights(folder);
    return HuggingFaceStream(weights, table).holds_all();
  }
};

}  // namespace

ModelConfig model_of_folder(const std::string& folder) {
  ModelConfig model = model_config(HuggingFaceConfig::read(folder));
  model.mtp_modules = has_mtp_weights(folder) ? 1 : 0;
  return model;
}

HuggingFaceStream::HuggingFaceStream(const SafetensorsFolder& folder, const ParameterTable& table)
    : folder_(folder), table_(table), sources_(hugging_face_sources(folder, table)) {}

// The tensors that make up a row lie one behind the other: a box of one expert and projection is a
// run of the stacked parameter.
void HuggingFaceStream::operator()(const Parameter& row, const Sink& sink) {
  std::size_t index = 0;
  while (&table_.rows()[index] != &row) {
    ++index;
  }
  for (const HuggingFaceTensor& tensor : sources_.tensors[index]) {
    stream(tensor.name, number_format_of(row.type), sink);
  }
}

bool HuggingFaceStream::holds_all() const {
  for (std::size_t i = 0; i < sources_.tensors.size(); ++i) {
    const NumberFormat wide = number_format_of(table_.rows()[i].type);
    for (const HuggingFaceTensor& tensor : sources_.tensors[i]) {
      if (!holds(wide, format_of(*folder_.find(tensor.name), tensor.name))) {
        return false;
      }
    }
  }
  return true;
}

void HuggingFaceStream::stream(const std::string& name, NumberFormat to, const Sink& sink) {
  const SafeTensor& tensor = *folder_.find(name);
  const NumberFormat from = format_of(tensor, name);
  const PosixFile& file = open(folder_.path_of(name));
  const std::int64_t elements = tensor.elements(), most = piece_bytes / bytes_of(from);
  read_.resize(static_cast<std::size_t>(std::min(elements, most) * bytes_of(from)));
  converted_.resize(static_cast<std::size_t>(std::min(elements, most) * bytes_of(to)));
  for (std::int64_t first = 0; first < elements; first += most) {
    const std::int64_t count = std::min(most, elements - first);
    file.read(tensor.begin + first * bytes_of(from), read_.data(), count * bytes_of(from));
    if (from != to) {
      convert_numbers(from, read_.data(), to, converted_.data(), count);
    }
    const auto& piece = from == to ? read_ : converted_;
    sink({piece.data(), static_cast<std::size_t>(count * bytes_of(to))});
  }
}

const PosixFile& HuggingFaceStream::open(const std::string& path) {
  if (!file_ || file_->path() != path) {
    file_.reset();
    file_.emplace(PosixFile::open_for_reading(path));
  }
  return *file_;
}

DataType precision_of_folder(const std::string& folder, const ModelConfig& model) {
  for (const DataType precision : {DataType::bf16, DataType::float32}) {
    if (with_storage(precision, HoldsAll{folder, model})) {
      return precision;
    }
  }
  return DataType::float64;
}

}  // namespace qnext
