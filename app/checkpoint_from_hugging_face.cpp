// SPDX-License-Identifier: Apache-2.0
#include "app/checkpoint_from_hugging_face.hpp"

#include "app/hugging_face_origin.hpp"
#include "app/import_hugging_face.hpp"
#include "app/precision.hpp"
#include "app/processor.hpp"
#include "app/run_config.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/deck.hpp"
#include "io/posix_file.hpp"
#include "layers/model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>

namespace qnext {
namespace {

constexpr std::int64_t piece_bytes = std::int64_t{4} << 20;

/// A text as YAML takes it between double quotes.
std::string quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    quoted += letter == '"' || letter == '\\' ? std::string{'\\', letter} : std::string{letter};
  }
  return quoted + '"';
}

/// A deck that describes the model, and begins a run that the reader completes.
Deck deck_of(const std::string& folder, DataType precision) {
  const std::string text = fmt::format(
      "run: {{name: converted, steps: 0, precision: {}}}\n"
      "model: {{init: {}}}\n"
      "data: {{train: [{{path: \"synthetic:markov\"}}], sequence: 4096, batch: 1}}\n"
      "optimizer: {{learning_rate: {{peak: 1.0e-5}}}}\n",
      name_of(precision), quoted(folder));
  return Deck::parse(text, folder + ": deck of the checkpoint");
}

/// Gives the tensors of the file that make up a row, one behind the other: a box of one expert and
/// projection is a run of the stacked parameter.
class FolderSource {
 public:
  FolderSource(const SafetensorsFolder& folder, const ParameterTable& table,
               const HuggingFaceSources& sources)
      : folder_(folder), table_(table), sources_(sources) {}

  void operator()(const Parameter& row, const Sink& sink) {
    std::size_t index = 0;
    while (&table_.rows()[index] != &row) {
      ++index;
    }
    for (const HuggingFaceTensor& tensor : sources_.tensors[index]) {
      stream(tensor.name, number_format_of(row.type), sink);
    }
  }

 private:
  void stream(const std::string& name, NumberFormat to, const Sink& sink) {
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

  const PosixFile& open(const std::string& path) {
    if (!file_ || file_->path() != path) {
      file_.reset();
      file_.emplace(PosixFile::open_for_reading(path));
    }
    return *file_;
  }

  const SafetensorsFolder& folder_;
  const ParameterTable& table_;
  const HuggingFaceSources& sources_;
  std::optional<PosixFile> file_;
  std::vector<std::byte> read_, converted_;
};

/// Whether a checkpoint of that table holds every number of the folder.
bool holds_all(const ParameterTable& table, const HuggingFaceSources& sources,
               const SafetensorsFolder& folder) {
  for (std::size_t i = 0; i < sources.tensors.size(); ++i) {
    const NumberFormat wide = number_format_of(table.rows()[i].type);
    for (const HuggingFaceTensor& tensor : sources.tensors[i]) {
      if (!holds(wide, format_of(*folder.find(tensor.name), tensor.name))) {
        return false;
      }
    }
  }
  return true;
}

/// Writes the checkpoint as a model of that precision if it holds every number.
struct WriteAs {
  const std::string& folder;
  const std::string& checkpoint;
  DataType precision;

  template <class Storage>
  std::optional<ConvertedCheckpoint> operator()() const {
    const Deck deck = deck_of(folder, precision);
    const RunConfig config = read_run_config(deck);
    ParameterTable table;
    const Model<Storage> registered(config.model, ProcessGrid{}, table);
    const SafetensorsFolder weights(folder);
    const HuggingFaceSources sources = hugging_face_sources(weights, table);
    if (!holds_all(table, sources, weights)) {
      return std::nullopt;
    }
    const HuggingFaceOrigin origin = HuggingFaceOrigin::of_folder(folder);
    CheckpointContent content;
    content.given_deck = deck.text();
    content.resolved_deck = deck.resolved();
    content.records.insert_or_assign("hugging_face", origin.record());
    content.records.insert_or_assign("program",
                                     program_record(Exec().concurrency(), processor_features()));
    FolderSource source(weights, table, sources);
    write_checkpoint_stream(checkpoint, content, table, std::ref(source));
    ConvertedCheckpoint converted{precision, static_cast<std::int64_t>(origin.tensors.size()), 0,
                                  sources.remarks};
    for (const std::string& name : weights.names()) {
      converted.bytes += static_cast<std::int64_t>(weights.find(name)->bytes.size());
    }
    return converted;
  }
};

}  // namespace

ConvertedCheckpoint checkpoint_from_hugging_face(const std::string& folder,
                                                 const std::string& checkpoint) {
  for (const DataType precision : {DataType::bf16, DataType::float32}) {
    if (const auto converted = with_storage(precision, WriteAs{folder, checkpoint, precision})) {
      return *converted;
    }
  }
  return *with_storage(DataType::float64, WriteAs{folder, checkpoint, DataType::float64});
}

}  // namespace qnext
