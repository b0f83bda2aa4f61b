// SPDX-License-Identifier: Apache-2.0
#include "app/checkpoint_from_hugging_face.hpp"

#include "app/hugging_face_origin.hpp"
#include "app/hugging_face_stream.hpp"
#include "app/precision.hpp"
#include "app/processor.hpp"
#include "app/run_config.hpp"
#include "io/checkpoint_stream.hpp"
#include "io/deck.hpp"
#include "layers/model.hpp"

#include <fmt/format.h>

#include <functional>

namespace qnext {
namespace {

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

struct WriteAs {
  const std::string& folder;
  const std::string& checkpoint;
  const Deck& deck;
  const ModelConfig& model;
  DataType precision;

  template <class Storage>
  ConvertedCheckpoint operator()() const {
    ParameterTable table;
    const Model<Storage> registered(model, ProcessGrid{}, table);
    const SafetensorsFolder weights(folder);
    HuggingFaceStream stream(weights, table);
    const HuggingFaceOrigin origin = HuggingFaceOrigin::of_folder(folder);
    CheckpointContent content;
    content.given_deck = deck.text();
    content.resolved_deck = deck.resolved();
    content.records.insert_or_assign("hugging_face", origin.record());
    content.records.insert_or_assign("program",
                                     program_record(Exec().concurrency(), processor_features()));
    write_checkpoint_stream(checkpoint, content, table, std::ref(stream));
    ConvertedCheckpoint converted{precision, static_cast<std::int64_t>(origin.tensors.size()), 0,
                                  stream.remarks()};
    for (const std::string& name : weights.names()) {
      converted.bytes += static_cast<std::int64_t>(weights.find(name)->bytes.size());
    }
    return converted;
  }
};

}  // namespace

ConvertedCheckpoint checkpoint_from_hugging_face(const std::string& folder,
                                                 const std::string& checkpoint) {
  const DataType precision = precision_of_folder(folder, model_of_folder(folder));
  const Deck deck = deck_of(folder, precision);
  const RunConfig config = read_run_config(deck);
  return with_storage(precision, WriteAs{folder, checkpoint, deck, config.model, precision});
}

}  // namespace qnext
