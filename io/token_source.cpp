// SPDX-License-Identifier: Apache-2.0
#include "io/token_source.hpp"

#include <algorithm>
#include <filesystem>

namespace qnext {

std::int64_t TokenSource::document_of(std::int64_t position) const {
  std::int64_t low = 0, high = documents();  // begin(low) <= position < begin(high)
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= position ? low : high) = middle;
  }
  return low;
}

void TokenSource::read_learnt(std::int64_t, std::int64_t count, std::uint8_t* learnt) const {
  std::fill_n(learnt, count, std::uint8_t{1});
}

// The worst window starts on the last token of a document: it touches that one and all that begin
// within the next window - 1 tokens.
int TokenSource::most_documents(std::int64_t window) const {
  std::int64_t most = 1, ahead = 0, inside = 0;
  for (std::int64_t d = 0; d < documents(); ++d) {
    const std::int64_t begin = document_begin(d);
    if (begin == document_begin(d + 1)) {
      continue;
    }
    const std::int64_t end = begin + window - (begin == 0 ? 0 : 1);
    for (; ahead < documents() && document_begin(ahead) < end; ++ahead) {
      inside += document_begin(ahead) < document_begin(ahead + 1) ? 1 : 0;
    }
    most = std::max(most, inside + (begin == 0 ? 0 : 1));
    --inside;
  }
  return static_cast<int>(std::min(most, window));
}

std::unique_ptr<TokenSource> open_token_source(const SourceConfig& config, int vocabulary,
                                               std::uint64_t seed) {
  const std::string& path = config.path;
  if (path.starts_with("synthetic:")) {
    return make_synthetic(config, vocabulary, seed);
  }
  const bool prefix = !std::filesystem::exists(path) && std::filesystem::exists(path + ".idx");
  if (prefix || path.ends_with(".bin") || path.ends_with(".idx")) {
    return open_indexed(path);
  }
  return config.tokenizer.empty() ? open_text(path, config.separator)
                                  : open_tokenized(path, config.separator, config.tokenizer);
}

}  // namespace qnext
