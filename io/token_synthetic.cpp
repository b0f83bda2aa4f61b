// SPDX-License-Identifier: Apache-2.0
#include "core/random.hpp"
#include "core/require.hpp"
#include "io/token_source.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace qnext {
namespace {

enum class Pattern { uniform, markov, copy };

Pattern pattern_of(const std::string& path) {
  const std::string name = path.substr(path.find(':') + 1);
  if (name == "uniform") {
    return Pattern::uniform;
  }
  if (name == "markov") {
    return Pattern::markov;
  }
  if (name == "copy") {
    return Pattern::copy;
  }
  throw InputError(fmt::format("{}: expected synthetic:uniform | markov | copy", path));
}

class SyntheticSource : public TokenSource {
 public:
  SyntheticSource(const SourceConfig& config, int vocabulary, std::uint64_t seed)
      : name_(config.path),
        pattern_(pattern_of(config.path)),
        length_(config.document),
        documents_(length_ > 0 ? config.tokens / length_ : 0),
        vocabulary_(vocabulary),
        key_(random_key(seed, config.path)) {
    if (length_ < 2 || documents_ < 1) {
      throw InputError(
          fmt::format("{}: document = {} and tokens = {}, expected 2 or more and at least one "
                      "document",
                      name_, config.document, config.tokens));
    }
  }

  const std::string& name() const override { return name_; }
  std::int64_t tokens() const override { return documents_ * length_; }
  std::int64_t documents() const override { return documents_; }
  std::int64_t document_begin(std::int64_t d) const override { return d * length_; }

  void read(std::int64_t begin, std::int64_t count, std::int32_t* ids) const override {
    std::vector<std::int32_t> document(length_);
    for (std::int64_t d = begin / length_; count > 0; ++d) {
      const std::int64_t from = begin - d * length_;
      const std::int64_t here = std::min(count, length_ - from);
      write(d, document);
      std::copy_n(document.begin() + from, here, ids);
      ids += here;
      begin += here;
      count -= here;
    }
  }

 private:
  std::int32_t random_id(std::uint64_t bits) const {
    return static_cast<std::int32_t>(bits % static_cast<std::uint64_t>(vocabulary_));
  }

  std::int32_t follower(std::int32_t id, std::uint64_t bits) const {
    const std::uint64_t which = bits >> 61;  // 0 ... 7
    const std::uint64_t rank = which < 4 ? 0 : which < 6 ? 1 : which - 4;
    return random_id(random_bits(~key_, 4 * static_cast<std::uint64_t>(id) + rank));
  }

  void write(std::int64_t d, std::vector<std::int32_t>& document) const {
    const std::int64_t half = (length_ + 1) / 2;
    for (std::int64_t t = 0; t < length_; ++t) {
      const std::uint64_t bits = random_bits(key_, static_cast<std::uint64_t>(d * length_ + t));
      if (pattern_ == Pattern::copy && t >= half) {
        document[t] = document[t - half];
      } else if (pattern_ == Pattern::markov && t > 0) {
        document[t] = follower(document[t - 1], bits);
      } else {
        document[t] = random_id(bits);
      }
    }
  }

  std::string name_;
  Pattern pattern_;
  std::int64_t length_, documents_;
  int vocabulary_;
  std::uint64_t key_;
};

}  // namespace

std::unique_ptr<TokenSource> make_synthetic(const SourceConfig& config, int vocabulary,
                                            std::uint64_t seed) {
  return std::make_unique<SyntheticSource>(config, vocabulary, seed);
}

}  // namespace qnext
