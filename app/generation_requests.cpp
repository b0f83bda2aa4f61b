// SPDX-License-Identifier: Apache-2.0
#include "app/generation_requests.hpp"

#include "app/model_source.hpp"
#include "core/require.hpp"
#include "io/hugging_face_config.hpp"
#include "io/json.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <utility>

namespace qnext {
namespace {

constexpr int most_tokens = 1 << 30;  // with a prompt and drafts that is an int

/// Refuses settings of a line, "file:3: ", or of the command line, where it is empty.
class Checks {
 public:
  explicit Checks(std::string where) : where_(std::move(where)) {}

  template <class Value>
  void check(bool condition, std::string name, const Value& value, const char* reason) const {
    if (condition) {
      return;
    }
    if (where_.empty()) {
      std::replace(name.begin(), name.end(), '_', '-');
      name.insert(0, "--");
    }
    throw InputError(fmt::format("{}{} {}: {}", where_, name, value, reason));
  }

  void settings(const GenerationRequest& r) const {
    const Sampling& s = r.sampling;
    check(s.temperature >= 0.0, "temperature", s.temperature, "must not be negative");
    check(s.top_k >= 0, "top_k", s.top_k, "must not be negative");
    check(s.top_p > 0.0 && s.top_p <= 1.0, "top_p", s.top_p, "must be above 0 and at most 1");
    check(s.min_p >= 0.0 && s.min_p <= 1.0, "min_p", s.min_p, "must be from 0 to 1");
    check(s.repetition_penalty > 0.0, "repetition_penalty", s.repetition_penalty,
          "must be positive; 1: none");
    check(r.length >= 0, "length", r.length, "must not be negative");
    check(r.length <= most_tokens, "length", r.length, "must be at most 2^30 tokens");
    for (const std::string& stop : r.stop_texts) {
      check(!stop.empty(), "stop", "\"\"", "ends every text");
    }
  }

  void prompt(const std::vector<int>& prompt, int vocabulary) const {
    if (prompt.empty()) {
      throw InputError(where_ + "the prompt has no token");
    }
    for (const int token : prompt) {
      if (token < 0 || token >= vocabulary) {
        throw InputError(fmt::format("{}the prompt has the token {}; this model knows 0 to {}",
                                     where_, token, vocabulary - 1));
      }
    }
  }

 private:
  std::string where_;
};

int whole(const Json& value, const std::string& where) {
  const std::int64_t number = value.integer(where);
  if (number < std::numeric_limits<int>::min() || number > std::numeric_limits<int>::max()) {
    throw InputError(fmt::format("{} = {}: is no number of 32 bits", where, number));
  }
  return static_cast<int>(number);
}

std::vector<int> wholes(const Json& value, const std::string& where) {
  std::vector<int> numbers;
  for (const Json& item : value.list(where)) {
    numbers.push_back(whole(item, where));
  }
  return numbers;
}

std::vector<std::string> texts(const Json& value, const std::string& where) {
  if (value.is_text()) {
    return {value.text(where)};
  }
  std::vector<std::string> all;
  for (const Json& item : value.list(where)) {
    all.push_back(item.text(where));
  }
  return all;
}

/// Takes one key of a line.
void take(const std::string& key, const Json& value, const std::string& where,
          const TokenText& text, GenerationRequest& request) {
  Sampling& sampling = request.sampling;
  if (key == "prompt") {
    request.prompt = text.tokens_of(value.text(where));
  } else if (key == "tokens") {
    request.prompt = wholes(value, where);
  } else if (key == "length") {
    request.length = whole(value, where);
  } else if (key == "temperature") {
    sampling.temperature = value.real(where);
  } else if (key == "top_k") {
    sampling.top_k = whole(value, where);
  } else if (key == "top_p") {
    sampling.top_p = value.real(where);
  } else if (key == "min_p") {
    sampling.min_p = value.real(where);
  } else if (key == "repetition_penalty") {
    sampling.repetition_penalty = value.real(where);
  } else if (key == "presence_penalty") {
    sampling.presence_penalty = value.real(where);
  } else if (key == "seed") {
    sampling.seed = static_cast<std::uint64_t>(value.integer(where));
  } else if (key == "stop") {
    request.stop_texts = texts(value, where);
  } else if (key == "stop_tokens") {
    request.stop_tokens = wholes(value, where);
  } else {
    throw InputError(where + ": is no setting of a prompt");
  }
}

}  // namespace

GenerationRequest request_of(const GenerateOptions& o, const TokenText& text,
                             const ModelSource& source) {
  GenerationRequest request;
  request.prompt =
      !o.tokens.empty() ? o.tokens : text.tokens_of(o.prompt.empty() ? "\n" : o.prompt);
  request.sampling = {.temperature = o.temperature,
                      .top_k = o.top_k,
                      .top_p = o.top_p,
                      .min_p = o.min_p,
                      .repetition_penalty = o.repetition_penalty,
                      .presence_penalty = o.presence_penalty,
                      .seed = o.seed};
  request.length = o.length;
  request.stop_tokens = o.stop_tokens;
  request.stop_texts = o.stop;
  if (!o.ignore_end) {
    request.end_tokens = end_tokens(source);
  }
  const Checks checks("");
  checks.settings(request);
  checks.prompt(request.prompt, source.model.vocabulary);
  checks.check(o.drafts >= 0 && o.drafts <= 4, "drafts", o.drafts, "must be from 0 to 4");
  checks.check(o.batch > 0 && o.batch * (o.drafts + 1) <= Decoder<float>::most_tokens(), "batch",
               o.batch, "must be from 1 to 64, together with the drafts of each document");
  checks.check(o.prefill_chunk > 0, "prefill-chunk", o.prefill_chunk, "must be positive");
  checks.check(o.context > 0 && o.context <= most_tokens, "context", o.context,
               "must be from 1 to 2^30 tokens");
  return request;
}

void check_prompt(const std::vector<int>& prompt, int vocabulary) {
  Checks("").prompt(prompt, vocabulary);
}

std::vector<GenerationRequest> read_requests(const std::string& path,
                                             const GenerationRequest& usual, const TokenText& text,
                                             int vocabulary) {
  std::ifstream file(path);
  if (!file) {
    throw InputError(path + ": cannot be read");
  }
  std::vector<GenerationRequest> requests;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    const std::string where = fmt::format("{}:{}: ", path, ++number);
    const Json json = Json::parse(line, where.substr(0, where.size() - 2));
    if ((json.find("prompt") != nullptr) == (json.find("tokens") != nullptr)) {
      throw InputError(where + "a line has either a prompt or tokens");
    }
    GenerationRequest& request = requests.emplace_back(usual);
    for (const auto& [key, value] : json.object(where)) {
      take(key, value, where + key, text, request);
    }
    const Checks checks(where);
    checks.settings(request);
    checks.prompt(request.prompt, vocabulary);
  }
  return requests;
}

std::string line_of(const GenerationAnswer& answer) {
  const char* const ending = answer.ending == Ending::length       ? "length"
                             : answer.ending == Ending::stop_token ? "stop_token"
                                                                   : "stop_text";
  return fmt::format("{{\"tokens\": [{}], \"text\": {}, \"ending\": \"{}\"}}\n",
                     fmt::join(answer.tokens, ", "), json_text(answer.text), ending);
}

std::vector<int> end_tokens(const ModelSource& source) {
  if (const auto text = source.file("generation_config.json")) {
    const std::string name = source.name_of_file("generation_config.json");
    const Json json = Json::parse(*text, name);
    const Json* const end = json.find("eos_token_id");
    if (end != nullptr && !end->is_null()) {
      const std::string where = name + ": eos_token_id";
      return end->is_list() ? wholes(*end, where) : std::vector<int>{whole(*end, where)};
    }
  }
  const auto config = source.file("config.json");
  return config
             ? HuggingFaceConfig::parse(*config, source.name_of_file("config.json")).eos_token_ids
             : std::vector<int>{};
}

}  // namespace qnext
