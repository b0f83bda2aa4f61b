// SPDX-License-Identifier: Apache-2.0
#include "core/context_share.hpp"

#include "core/require.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>

namespace qnext {
namespace {

// Tokens [begin, end) of a sequence.
struct Span {
  int begin;
  int end;

  int length() const { return end - begin; }
  Span meet(const Span& other) const {
    return {std::max(begin, other.begin), std::min(end, other.end)};
  }
};

// The documents of every sequence.
std::vector<std::vector<Span>> documents_of(const std::vector<int>& lengths, int sequences,
                                            int sequence) {
  std::vector<std::vector<Span>> documents(sequences);
  int begin = 0;
  for (const int length : lengths) {
    require(length > 0, "context: a document without tokens");
    const int s = begin / sequence;
    const Span span{begin - s * sequence, begin - s * sequence + length};
    require(span.end <= sequence, "context: a document of " + std::to_string(length) +
                                      " tokens crosses the border of " + "its sequence of " +
                                      std::to_string(sequence) + " tokens");
    documents[s].push_back(span);
    begin += length;
  }
  return documents;
}

// A half of a piece, and where its first token is in the rows of a sequence.
struct Half {
  Span span;
  int row;
};

// The two halves that a rank has in the ring.
std::array<Half, 2> halves_of(int rank, int ranks, int piece) {
  const int first = first_half(piece), mirror = ranks - 1 - rank;
  return {Half{{rank * piece, rank * piece + first}, 0},
          Half{{mirror * piece + first, (mirror + 1) * piece}, first}};
}

using Line = std::array<int, 5>;

std::vector<Line> lines_of(const std::vector<std::vector<Span>>& documents, int piece,
                           const Half& queries, const Half& keys) {
  std::vector<Line> lines;
  if (keys.span.begin > queries.span.begin) {
    return lines;
  }
  for (std::size_t s = 0; s < documents.size(); ++s) {
    const int row = static_cast<int>(s) * piece;
    for (const Span& document : documents[s]) {
      const Span q = document.meet(queries.span), k = document.meet(keys.span);
      if (q.length() > 0 && k.length() > 0) {
        lines.push_back({row + queries.row + q.begin - queries.span.begin, q.length(),
                         row + keys.row + k.begin - keys.span.begin, k.length(),
                         k.begin - q.begin});
      }
    }
  }
  return lines;
}

Tensor<const int, 1> to_device(const std::string& name, const std::vector<int>& values) {
  const Tensor<int, 1> device(name, values.size());
  Kokkos::deep_copy(device, HostTensor<const int, 1>(values.data(), values.size()));
  return device;
}

RunPairs to_device(const std::vector<Line>& lines) {
  RunPairs pairs;
  pairs.count = static_cast<int>(lines.size());
  const Tensor<int, 2> runs("context::runs", lines.size(), 5);
  Kokkos::deep_copy(runs, HostTensor<const int, 2>(lines.front().data(), lines.size(), 5));
  pairs.runs = runs;
  for (const Line& line : lines) {
    pairs.longest_queries = std::max(pairs.longest_queries, line[1]);
    pairs.longest_keys = std::max(pairs.longest_keys, line[3]);
  }
  return pairs;
}

}  // namespace

ContextShare ContextShare::make(const std::vector<int>& lengths, int sequences, int ranks,
                                int rank) {
  const int T = std::accumulate(lengths.begin(), lengths.end(), 0);
  require(T % (sequences * ranks) == 0, "context: " + std::to_string(sequences) + " sequences of " +
                                            std::to_string(T / sequences) +
                                            " tokens, wanted a multiple of the context degree " +
                                            std::to_string(ranks));
  const int sequence = T / sequences, piece = sequence / ranks;
  const auto documents = documents_of(lengths, sequences, sequence);
  const Span mine{rank * piece, (rank + 1) * piece};
  std::vector<int> own, first_position, arrives, leaves;
  ContextShare share;
  for (int s = 0; s < sequences; ++s) {
    for (const Span& document : documents[s]) {
      const Span part = document.meet(mine);
      if (part.length() > 0) {
        own.push_back(part.length());
        first_position.push_back(part.begin - document.begin);
        arrives.push_back(document.begin < mine.begin ? s : -1);
        leaves.push_back(document.end > mine.end ? s : -1);
      }
    }
    for (int t = mine.begin; t < mine.end; ++t) {
      share.tokens.push_back(s * sequence + t);
    }
  }
  share.documents = make_documents(own, sequences, first_position);
  share.documents.arrives = to_device("documents::arrives", arrives);
  share.documents.leaves = to_device("documents::leaves", leaves);

  const auto ring = std::make_shared<ContextRing>();
  for (int step = 0; step < ranks; ++step) {
    auto& pairs = ring->pairs_.emplace_back();
    for (const Half& queries : halves_of(rank, ranks, piece)) {
      for (const Half& keys : halves_of((rank + ranks - step) % ranks, ranks, piece)) {
        const auto lines = lines_of(documents, piece, queries, keys);
        if (!lines.empty()) {
          pairs.push_back(to_device(lines));
        }
      }
    }
  }
  share.ring = ring;
  share.documents.ring = ring.get();
  return share;
}

}  // namespace qnext
