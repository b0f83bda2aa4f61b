// SPDX-License-Identifier: Apache-2.0
#include "app/commands.hpp"
#include "app/comparison.hpp"
#include "app/golden_bounds.hpp"
#include "app/golden_model.hpp"
#include "app/precision.hpp"
#include "io/hdf5_file.hpp"

#include <fmt/format.h>

#include <cmath>

namespace qnext {
namespace {

// The published coefficient of the MTP loss, with which the golden gradients were made.
constexpr double mtp_coefficient = 0.1;

std::vector<int> lengths_of(const Hdf5File& golden, const std::string& run) {
  if (golden.exists(run + "/document_starts")) {
    const auto starts = golden.read_dataset<int>(run + "/document_starts").values;
    std::vector<int> lengths;
    for (std::size_t i = 1; i < starts.size(); ++i) {
      lengths.push_back(starts[i] - starts[i - 1]);
    }
    return lengths;
  }
  const auto extents = golden.describe(run + "/tokens").extents;
  const int rows = extents.size() == 2 ? static_cast<int>(extents[0]) : 1;
  return std::vector<int>(rows, static_cast<int>(extents.back()));
}

template <class Storage>
class Compare {
 public:
  Compare(const CompareOptions& options, const Hdf5File& golden)
      : golden_(golden),
        model_(options.model, options.chunk),
        bounds_(GoldenBounds::read(golden, data_type_of<Storage>())),
        replayed_bounds_{options.divergence, options.loss, options.cosine} {}

  Comparison all() {
    passes({"", false, Bf16Bounds::own_choice()});
    if (!judged_by_number) {
      passes({", experts of the file", true, replayed_bounds_});
    }
    if (golden_.exists("/generate")) {
      generate();
    }
    if (golden_.exists("/mtp") && model_.config().mtp_modules == 0) {
      comparison_.note("mtp: left out, the folder has no mtp.* weights");
    }
    return comparison_;
  }

 private:
  static constexpr bool judged_by_number = !std::is_same_v<Storage, bf16>;

  using Choices = typename GoldenModel<Storage>::Choices;

  // One way through all runs: with the experts that the model chooses, or with those of the file.
  struct Way {
    std::string suffix;
    bool replays;
    Bf16Bounds bounds;
  };

  void passes(const Way& way) {
    outputs_.clear();
    if (golden_.exists("/runs")) {
      for (const std::string& name : golden_.list("/runs")) {
        run(name, way);
      }
      compare_packed_documents(way);
    }
    if (golden_.exists("/mtp") && model_.config().mtp_modules > 0) {
      for (const std::string& name : golden_.list("/mtp")) {
        mtp(name, way);
      }
    }
  }

  // The experts that the file says for a run, those of the documents of the packed run one after
  // the other. Nothing where the way does not replay.
  Choices choices(const std::string& name, const Way& way) const {
    Choices choices;
    if (!way.replays) {
      return choices;
    }
    const auto documents = golden_.exists("/runs/" + name + "/routing")
                               ? std::vector<std::string>{name}
                               : std::vector<std::string>{"a", "b"};
    for (const std::string& document : documents) {
      const std::string routers = "/runs/" + document + "/routing/selected_experts";
      const std::string module = "/mtp/" + document + "/selected_experts";
      append(choices, 0, routers, static_cast<int>(golden_.describe(routers).extents[0]));
      if (model_.config().mtp_modules > 0 && golden_.exists(module)) {
        append(choices, model_.routers() - 1, module, 1);
      }
    }
    return choices;
  }

  // The lists of a dataset (layers, ..., K) behind those of the routers from `first` on.
  void append(Choices& choices, int first, const std::string& dataset, int layers) const {
    const auto selected = golden_.read_dataset<int>(dataset).values;
    const std::size_t size = selected.size() / layers;
    choices.resize(std::max(choices.size(), static_cast<std::size_t>(first + layers)));
    for (int i = 0; i < layers; ++i) {
      const auto begin = selected.begin() + static_cast<std::ptrdiff_t>(i * size);
      choices[first + i].insert(choices[first + i].end(), begin, begin + size);
    }
  }

  std::vector<double> numbers(const std::string& dataset) const {
    return golden_.read_dataset<double>(dataset).values;
  }

  // What a dataset that is stored in float may be off.
  double rounding(const std::string& dataset) const {
    return golden_.describe(dataset).type == ElementType::float32
               ? 0x1.0p-24 * largest_magnitude(numbers(dataset))
               : 0.0;
  }

  // A tensor against a dataset: judged in float and double, reported in bf16.
  void number(const std::string& what, const std::vector<double>& actual,
              const std::vector<double>& expected, double bound) {
    const double difference = largest_difference(actual, expected);
    if (judged_by_number) {
      comparison_.judge(what, difference, bound);
    } else {
      comparison_.report(what, difference);
    }
  }

  void logits(const std::string& what, const std::vector<double>& actual,
              const std::vector<double>& expected, double extra, const Way& way) {
    number(what, actual, expected, bounds_.logits + extra);
    if (!judged_by_number) {
      comparison_.judge(what + ", divergence in nats",
                        largest_divergence(expected, actual, model_.config().vocabulary),
                        way.bounds.divergence);
    }
  }

  void loss(const std::string& what, double actual, double expected, const Way& way) {
    comparison_.judge(what, std::abs(actual - expected),
                      judged_by_number ? bounds_.loss : way.bounds.loss);
  }

  void same(const std::string& what, const std::vector<double>& actual,
            const std::vector<double>& expected) {
    double different = actual.size() == expected.size() ? 0.0 : 1.0;
    for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
      different += actual[i] != expected[i] ? 1.0 : 0.0;
    }
    if (judged_by_number) {
      comparison_.judge(what + ", how many differ", different, 0.0);
    } else {
      comparison_.report(what + ", how many differ", different);
    }
  }

  void run(const std::string& name, const Way& way) {
    const std::string group = "/runs/" + name;
    const auto tokens = golden_.read_dataset<int>(group + "/tokens").values;
    const auto lengths = lengths_of(golden_, group);
    const Choices experts = choices(name, way);
    const GoldenOutputs outputs = model_.run(tokens, lengths, experts);
    outputs_[name] = outputs;
    const std::string what = "run " + name + way.suffix + ": ";
    if (golden_.exists(group + "/logits")) {
      logits(what + "logits", outputs.logits, numbers(group + "/logits"),
             rounding(group + "/logits"), way);
    }
    if (golden_.exists(group + "/hidden")) {
      const auto expected = numbers(group + "/hidden");
      const double bound = bounds_.hidden + rounding(group + "/hidden");
      const std::size_t size = outputs.final_norm.size();
      for (std::size_t i = 0; i < outputs.hidden.size(); ++i) {
        number(what + fmt::format("hidden {}", i), outputs.hidden[i],
               {expected.begin() + i * size, expected.begin() + (i + 1) * size}, bound);
      }
    }
    if (golden_.exists(group + "/final_norm")) {
      number(what + "final norm", outputs.final_norm, numbers(group + "/final_norm"),
             bounds_.hidden + rounding(group + "/final_norm"));
    }
    if (golden_.exists(group + "/routing")) {
      routing(what, group + "/routing/", outputs);
    }
    loss(what + "loss", outputs.loss_ce, golden_.read_scalar<double>(group + "/loss_ce"), way);
    loss(what + "balance loss", outputs.loss_aux, golden_.read_scalar<double>(group + "/loss_aux"),
         way);
    if (golden_.exists(group + "/grad_ce")) {
      gradients(what + "d loss / d ", group + "/grad_ce",
                model_.gradients(tokens, lengths, 1.0, 0.0, 0.0, experts), way);
    }
    if (golden_.exists(group + "/grad_aux")) {
      gradients(what + "d balance / d ", group + "/grad_aux",
                model_.gradients(tokens, lengths, 0.0, 0.0, 1.0, experts), way);
    }
  }

  void routing(const std::string& what, const std::string& group, const GoldenOutputs& outputs) {
    GoldenOutputs::Routing all;
    for (const auto& layer : outputs.routing) {
      all.probabilities.insert(all.probabilities.end(), layer.probabilities.begin(),
                               layer.probabilities.end());
      all.selected.insert(all.selected.end(), layer.selected.begin(), layer.selected.end());
      all.weights.insert(all.weights.end(), layer.weights.begin(), layer.weights.end());
    }
    same(what + "experts", all.selected, numbers(group + "selected_experts"));
    number(what + "router probabilities", all.probabilities, numbers(group + "probabilities"),
           bounds_.hidden + rounding(group + "probabilities"));
    number(what + "expert weights", all.weights, numbers(group + "weights"),
           bounds_.hidden + rounding(group + "weights"));
  }

  void gradients(const std::string& what, const std::string& group,
                 const std::map<std::string, std::vector<double>>& actual, const Way& way) {
    const auto storage = golden_.has_attribute(group, "storage")
                             ? golden_.read_attribute<std::string>(group, "storage")
                             : std::string("float64");
    double product = 0.0, actual_square = 0.0, expected_square = 0.0;
    for (const std::string& name : golden_.list(group)) {
      const auto expected = numbers(group + "/" + name);
      const auto found = actual.find(name);
      if (found == actual.end() || found->second.size() != expected.size()) {
        comparison_.judge(what + name + " is not in the model", 1.0, 0.0);
        continue;
      }
      // A golden gradient that is zero everywhere must be met exactly.
      const double largest = largest_magnitude(expected);
      const double difference = largest_difference(found->second, expected);
      const double relative = difference == 0.0 ? 0.0 : difference / largest;
      if (judged_by_number) {
        comparison_.judge(what + name, relative, bounds_.of_gradient(name, storage));
      } else {
        comparison_.report(what + name, relative);
      }
      for (std::size_t i = 0; i < expected.size(); ++i) {
        product += expected[i] * found->second[i];
        actual_square += found->second[i] * found->second[i];
        expected_square += expected[i] * expected[i];
      }
    }
    if (!judged_by_number) {
      const double cosine = product / std::sqrt(actual_square * expected_square);
      comparison_.judge(what + "all: 1 - cosine", 1.0 - cosine, 1.0 - way.bounds.gradient_cosine);
    }
  }

  // The documents of the packed run are those of the runs a and b, whose golden numbers they must
  // meet.
  void compare_packed_documents(const Way& way) {
    if (!golden_.exists("/runs/packed") || outputs_.count("a") == 0 || outputs_.count("b") == 0) {
      return;
    }
    const auto& packed = outputs_["packed"];
    std::size_t logit = 0, hidden = 0;
    for (const char* const name : {"a", "b"}) {
      const std::string group = std::string("/runs/") + name;
      const std::string what = std::string("run packed, document ") + name + way.suffix + ": ";
      const auto slice = [](const std::vector<double>& all, std::size_t first, std::size_t count) {
        return std::vector<double>(all.begin() + first, all.begin() + first + count);
      };
      const auto expected_logits = numbers(group + "/logits");
      logits(what + "logits", slice(packed.logits, logit, expected_logits.size()), expected_logits,
             rounding(group + "/logits"), way);
      const auto expected = numbers(group + "/hidden");
      const std::size_t size = expected.size() / packed.hidden.size();
      for (std::size_t i = 0; i < packed.hidden.size(); ++i) {
        number(what + fmt::format("hidden {}", i), slice(packed.hidden[i], hidden, size),
               slice(expected, i * size, size), bounds_.hidden + rounding(group + "/hidden"));
      }
      logit += expected_logits.size();
      hidden += size;
    }
  }

  void generate() {
    const auto prompt = golden_.read_dataset<int>("/generate/prompt").values;
    const auto tokens = numbers("/generate/tokens");
    const auto generated = model_.generate(prompt, static_cast<int>(tokens.size()));
    same("generate: tokens", {generated.tokens.begin(), generated.tokens.end()}, tokens);
    if (!judged_by_number) {
      return;  // after another token nothing can be compared
    }
    number("generate: logits", generated.logits, numbers("/generate/logits"), bounds_.logits);
    compare_states("generate, after the prompt: ", "/generate/state_after_prompt/",
                   generated.after_prompt);
    compare_states("generate, at the end: ", "/generate/state_at_end/", generated.at_end);
  }

  void compare_states(const std::string& what, const std::string& group,
                      const typename GoldenModel<Storage>::States& states) {
    for (const std::string& name : golden_.list(group)) {
      auto expected = golden_.read_dataset<double>(group + name);
      if (name.ends_with(".conv")) {  // holds one input more than the next token needs
        const auto taps = expected.extents[1];
        std::vector<double> needed;
        for (std::size_t i = 0; i < expected.values.size(); ++i) {
          if (static_cast<std::int64_t>(i) % taps != 0) {
            needed.push_back(expected.values[i]);
          }
        }
        expected.values = needed;
      }
      const auto found = states.find(name);
      number(what + name, found == states.end() ? std::vector<double>{} : found->second,
             expected.values, bounds_.hidden);
    }
  }

  void mtp(const std::string& name, const Way& way) {
    const std::string group = "/mtp/" + name;
    const std::string what = "mtp " + name + way.suffix + ": ";
    const std::string source = golden_.exists(group + "/tokens") ? group : "/runs/" + name;
    const auto tokens = golden_.read_dataset<int>(source + "/tokens").values;
    const auto lengths = lengths_of(golden_, source);
    const Choices experts = choices(name, way);
    const GoldenOutputs outputs = model_.run(tokens, lengths, experts);
    const int V = model_.config().vocabulary, D = model_.config().width;
    // The last token of a document has no next one: its row is not compared.
    const auto without_last = [](std::vector<double> rows, int width) {
      rows.resize(rows.size() - width);
      return rows;
    };
    if (golden_.exists(group + "/fc")) {
      number(what + "fc", without_last(outputs.mtp_fc, D), without_last(numbers(group + "/fc"), D),
             bounds_.hidden);
      number(what + "layer", without_last(outputs.mtp_layer, D),
             without_last(numbers(group + "/layer"), D),
             bounds_.hidden + rounding(group + "/layer"));
      logits(what + "logits", without_last(outputs.mtp_logits, V),
             without_last(numbers(group + "/logits"), V), rounding(group + "/logits"), way);
    }
    if (golden_.exists(group + "/selected_experts")) {
      const int E = model_.config().layer.experts.experts;
      const int K = model_.config().layer.experts.experts_per_token;
      same(what + "experts", without_last(outputs.mtp_selected, K),
           without_last(numbers(group + "/selected_experts"), K));
      number(what + "router probabilities", without_last(outputs.mtp_probabilities, E),
             without_last(numbers(group + "/probabilities"), E),
             bounds_.hidden + rounding(group + "/probabilities"));
    }
    loss(what + "loss", outputs.loss_mtp, golden_.read_scalar<double>(group + "/loss_mtp"), way);
    if (golden_.exists(group + "/grad_total")) {
      gradients(what + "d total / d ", group + "/grad_total",
                model_.gradients(tokens, lengths, 1.0, mtp_coefficient, 0.0, experts), way);
    }
  }

  const Hdf5File& golden_;
  GoldenModel<Storage> model_;
  GoldenBounds bounds_;
  Bf16Bounds replayed_bounds_;
  Comparison comparison_;
  std::map<std::string, GoldenOutputs> outputs_;
};

}  // namespace

Status compare(const CompareOptions& options) {
  const Hdf5File golden(options.golden);
  const Comparison comparison =
      with_storage(data_type_named(options.precision),
                   [&]<class Storage>() { return Compare<Storage>(options, golden).all(); });
  fmt::print("{}", comparison.table());
  if (comparison.passed()) {
    fmt::print("all within their bounds\n");
    return Status::done;
  }
  fmt::print("{} outside of their bounds\n", comparison.failures());
  return Status::bad_number;
}

}  // namespace qnext
