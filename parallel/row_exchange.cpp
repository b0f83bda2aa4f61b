// SPDX-License-Identifier: Apache-2.0
#include "parallel/row_exchange.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace qnext {
namespace {

// The rows of every stretch in the lists of parcels of one tensor.
template <class Stretches>
void append(const Buffer& buffer, std::int64_t row_bytes, const Stretches& stretches,
            std::vector<Parcel>& parcels) {
  for (std::size_t r = 0; r < stretches.size(); ++r) {
    const auto& [begin, rows] = stretches[r];
    require((begin + rows) * row_bytes <= buffer.bytes,
            fmt::format("row exchange: {} rows in a buffer of {}", begin + rows,
                        buffer.bytes / row_bytes));
    parcels.push_back(
        {static_cast<int>(r), {buffer.data + begin * row_bytes, rows * row_bytes, buffer.on_host}});
  }
}

}  // namespace

RowExchange::RowExchange(const Communicator& ranks, const std::vector<int>& count, int capacity)
    : ranks_(ranks), groups_(static_cast<int>(count.size())) {
  const int N = ranks_.ranks();
  require(
      groups_ % N == 0 && capacity > 0,
      fmt::format("row exchange: {} groups over {} ranks, {} rows a round", groups_, N, capacity));
  // One message a pair of ranks: the counts, and behind them the capacity.
  std::vector<int> all(N * (groups_ + 1));
  std::vector<std::int64_t> borders(N + 1);
  for (int n = 0; n <= N; ++n) {
    borders[n] = std::int64_t{n} * (groups_ + 1);
  }
  std::copy(count.begin(), count.end(), all.begin() + borders[ranks_.rank()]);
  all[borders[ranks_.rank()] + groups_] = capacity;
  ranks_.all_gather_parts(HostTensor<int, 1>(all.data(), all.size()), borders);
  for (int n = 0; n < N; ++n) {
    const auto begin = all.begin() + borders[n];
    count_.insert(count_.end(), begin, begin + groups_);
    capacity_.push_back(begin[groups_]);
  }

  position_.resize(count_.size());
  const int L = groups_of_rank();
  for (int owner = 0; owner < N; ++owner) {
    std::int64_t rows = 0;
    for (int g = owner * L; g < (owner + 1) * L; ++g) {
      for (int source = 0; source < N; ++source) {
        position_[source * groups_ + g] = rows;
        rows += this->count(source, g);
      }
    }
    rounds_ = std::max(rounds_, static_cast<int>((rows + capacity_[owner] - 1) / capacity_[owner]));
  }
}

// How many rows of a source and group go before a round.
std::int64_t RowExchange::earlier(int source, int group, int round) const {
  const std::int64_t border = std::int64_t{round} * capacity_[group / groups_of_rank()];
  return std::clamp<std::int64_t>(border - position_[source * groups_ + group], 0,
                                  count(source, group));
}

// What this rank has for each owner. Its rows keep their order in the list of an owner, so that
// those of a round are neighbours.
std::vector<RowExchange::Stretch> RowExchange::at_home(int round) const {
  const int L = groups_of_rank(), own = ranks_.rank();
  std::vector<Stretch> stretches;
  std::int64_t begin = 0;
  for (int owner = 0; owner < ranks_.ranks(); ++owner) {
    Stretch stretch{begin, 0};
    for (int g = owner * L; g < (owner + 1) * L; ++g) {
      const std::int64_t before = earlier(own, g, round);
      stretch.begin += before;
      stretch.rows += earlier(own, g, round + 1) - before;
      begin += count(own, g);
    }
    stretches.push_back(stretch);
  }
  return stretches;
}

// What each source has for this rank.
std::vector<RowExchange::Stretch> RowExchange::in_message(int round) const {
  const int L = groups_of_rank(), first = ranks_.rank() * L;
  std::vector<Stretch> stretches;
  std::int64_t begin = 0;
  for (int source = 0; source < ranks_.ranks(); ++source) {
    Stretch stretch{begin, 0};
    for (int g = first; g < first + L; ++g) {
      stretch.rows += earlier(source, g, round + 1) - earlier(source, g, round);
    }
    begin += stretch.rows;
    stretches.push_back(stretch);
  }
  return stretches;
}

RowExchange::Round RowExchange::round(int round) const {
  const int L = groups_of_rank(), N = ranks_.ranks(), first = ranks_.rank() * L;
  const auto rows = [&](int source, int l) {
    return static_cast<int>(earlier(source, first + l, round + 1) -
                            earlier(source, first + l, round));
  };
  Round result{.rows = 0,
               .offset = {0},
               .arrived = std::vector<int>(groups_),
               .ordered = std::vector<int>(groups_)};
  for (int l = 0; l < L; ++l) {
    for (int source = 0; source < N; ++source) {
      result.ordered[source * L + l] = result.rows;
      result.rows += rows(source, l);
    }
    result.offset.push_back(result.rows);
  }
  int arrived = 0;
  for (int source = 0; source < N; ++source) {
    for (int l = 0; l < L; ++l) {
      result.arrived[source * L + l] = arrived;
      arrived += rows(source, l);
    }
  }
  return result;
}

void RowExchange::to_owners(int round, const std::vector<Rows>& rows) const {
  const auto home = at_home(round), message = in_message(round);
  std::vector<Parcel> sends, receives;
  for (const Rows& each : rows) {
    append(each.home, each.row_bytes, home, sends);
    append(each.message, each.row_bytes, message, receives);
  }
  ranks_.exchange(sends, receives);
}

void RowExchange::to_sources(int round, const std::vector<Rows>& rows) const {
  const auto home = at_home(round), message = in_message(round);
  std::vector<Parcel> sends, receives;
  for (const Rows& each : rows) {
    append(each.message, each.row_bytes, message, sends);
    append(each.home, each.row_bytes, home, receives);
  }
  ranks_.exchange(sends, receives);
}

}  // namespace qnext
