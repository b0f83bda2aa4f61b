// SPDX-License-Identifier: Apache-2.0
#include "layers/experts_over_ranks.hpp"

#include "core/fence.hpp"
#include "layers/adapter.hpp"
#include "layers/kernels/arrived_rows.hpp"
#include "layers/kernels/swiglu.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace qnext {
namespace {

template <class View>
View first_rows(const View& tensor, int n) {
  return View(tensor.data(), n, tensor.extent(1));
}

void upload(const Exec& exec, const std::vector<int>& values, const Tensor<int, 1>& tensor) {
  Kokkos::deep_copy(exec, tensor, HostTensor<const int, 1>(values.data(), values.size()));
}

std::vector<int> rows_by_expert(const Exec& exec, const Tensor<const int, 1>& offset) {
  std::vector<int> border(offset.extent(0));
  Kokkos::deep_copy(exec, HostTensor<int, 1>(border.data(), border.size()), offset);
  fence(exec, "experts_over_ranks: other ranks are told the counts");
  std::vector<int> count(border.size() - 1);
  for (std::size_t e = 0; e < count.size(); ++e) {
    count[e] = border[e + 1] - border[e];
  }
  return count;
}

}  // namespace

// One round of the exchange. Rows leave from work.received, sorted by expert, arrive in
// work.message and are ordered into work.received; results go the same way back, so that both
// memories serve in either direction.
template <class Storage>
class ExpertsOverRanks<Storage>::Round {
 public:
  Round(const Exec& exec, const RowExchange& exchange, int number, const ExpertRows& choices,
        const Work& work)
      : exec_(exec),
        exchange_(exchange),
        number_(number),
        pieces_(exchange.round(number)),
        choices_(choices),
        work_(work) {
    upload(exec, pieces_.offset, work.offset);
    upload(exec, pieces_.arrived, work.arrived);
    upload(exec, pieces_.ordered, work.ordered);
    place_pieces(exec, rows(), work.arrived, work.ordered, work.place);
  }

  int rows() const { return pieces_.rows; }
  Tensor<Storage, 2> received() const { return first_rows(work_.received, rows()); }
  Tensor<Storage, 2> results() const { return first_rows(work_.message, rows()); }
  SwigluRows<Real> weighted() const {
    return {rows(), {}, Tensor<const Real, 1>(work_.received_weight.data(), rows())};
  }
  Tensor<Real, 1> weight_results() const {
    return Tensor<Real, 1>(work_.message_weight.data(), rows());
  }

  /// The rows of x (T, D) that the experts of this rank work on, into received(); their weights
  /// too, where there are such. A rank without tokens has weights, of which there are none.
  void fetch(const Tensor<const Storage, 2>& x, const Tensor<const Real, 2>& weights = {}) const {
    std::vector<RowExchange::Rows> lists{list(work_.received, work_.message)};
    spread_tokens<Storage>(exec_, x, choices_.place, work_.received);
    if (weights.data() != nullptr) {
      spread_choices<Real>(exec_, weights, choices_.place, work_.received_weight);
      lists.push_back(list(work_.received_weight, work_.message_weight));
    }
    exchange_.to_owners(number_, lists);
    move_rows<Storage>(exec_, rows(), Place::to, work_.place, work_.message, work_.received);
    if (weights.data() != nullptr) {
      move_rows<Real>(exec_, rows(), Place::to, work_.place, work_.message_weight,
                      work_.received_weight);
    }
  }

  /// results() to the rows (T K, D) that they belong to; weight_results() too, where there are
  /// `weights` (T K, 1).
  void give_back(const Tensor<Storage, 2>& home, const Tensor<Real, 2>& weights = {}) const {
    std::vector<RowExchange::Rows> lists{list(home, work_.received)};
    move_rows<Storage>(exec_, rows(), Place::from, work_.place, work_.message, work_.received);
    if (weights.data() != nullptr) {
      move_rows<Real>(exec_, rows(), Place::from, work_.place, work_.message_weight,
                      work_.received_weight);
      lists.push_back(list(weights, work_.received_weight));
    }
    exchange_.to_sources(number_, lists);
  }

 private:
  template <class View>
  static RowExchange::Rows list(const View& home, const View& message) {
    return {buffer_of(home), buffer_of(message),
            static_cast<std::int64_t>(home.extent(1) * sizeof(typename View::value_type))};
  }

  const Exec& exec_;
  const RowExchange& exchange_;
  int number_;
  RowExchange::Round pieces_;
  const ExpertRows& choices_;
  const Work& work_;
};

template <class Storage>
ExpertsOverRanks<Storage>::ExpertsOverRanks(const Communicator& ranks, int degree, int experts,
                                            double receive_factor)
    : ranks_(ranks), degree_(degree), experts_(experts), receive_factor_(receive_factor) {
  require(experts % degree == 0 && receive_factor >= 1.0,
          std::to_string(experts) + " experts over " + std::to_string(degree) +
              " ranks, receive_factor " + std::to_string(receive_factor));
}

// A token sends an expert one row, so that there are never more than those of min(K, E / N) choices
// of all tokens.
template <class Storage>
int ExpertsOverRanks<Storage>::most_rows(int tokens, int per_token) const {
  const double planned = std::ceil(receive_factor_ * tokens * per_token);
  const double all = 1.0 * degree_ * tokens * std::min(per_token, experts_ / degree_);
  return static_cast<int>(std::min(planned, all));
}

template <class Storage>
typename ExpertsOverRanks<Storage>::Saved ExpertsOverRanks<Storage>::reserve_saved(
    Arena& arena, int rows, int expert_width) const {
  Saved saved;
  saved.gate_up = arena.reserve<Storage, 2>("gate_up", rows, 2 * expert_width);
  return saved;
}

template <class Storage>
typename ExpertsOverRanks<Storage>::Work ExpertsOverRanks<Storage>::reserve_work(
    Arena& arena, const AdapterConfig& adapters, int choices, int rows, int model_width,
    int expert_width) const {
  const int F = expert_width;
  Work work;
  work.received = arena.reserve<Storage, 2>("received_rows", rows, model_width);
  work.message = arena.reserve<Storage, 2>("received_message", rows, model_width);
  work.received_weight = arena.reserve<Real, 2>("received_weight", rows, 1);
  work.message_weight = arena.reserve<Real, 2>("message_weight", rows, 1);
  work.dweight = arena.reserve<Real, 2>("row_dweight", choices, 1);
  work.hidden = arena.reserve<Storage, 2>("hidden", rows, F);
  work.dgate_up = arena.reserve<Storage, 2>("dgate_up", rows, 2 * F);
  work.low = Adapter<Storage>::reserve_low(arena, adapters, rows);
  work.place = arena.reserve<int, 1>("received_place", rows);
  work.offset = arena.reserve<int, 1>("received_offset", experts_ / degree_ + 1);
  work.arrived = arena.reserve<int, 1>("pieces_arrived", experts_);
  work.ordered = arena.reserve<int, 1>("pieces_ordered", experts_);
  return work;
}

template <class Storage>
void ExpertsOverRanks<Storage>::forward(const Exec& exec, const Weights& weights,
                                        const Tensor<const Storage, 2>& x,
                                        const Routing<Real>& routing, const ExpertRows& choices,
                                        Saved& saved, const Work& work,
                                        const Tensor<Storage, 2>& rows) const {
  saved.exchange =
      RowExchange(ranks_, rows_by_expert(exec, choices.offset), work.received.extent_int(0));
  for (int i = 0; i < saved.exchange.rounds(); ++i) {
    const Round round(exec, saved.exchange, i, choices, work);
    const auto gate_up = first_rows(i == 0 ? saved.gate_up : work.dgate_up, round.rows());
    const auto hidden = first_rows(work.hidden, round.rows());
    round.fetch(x, routing.weights);
    weights.gate_up.forward(exec, work.offset, round.received(), gate_up, work.low);
    swiglu_forward<Storage>(exec, round.weighted(), side_by_side<const Storage>(gate_up), hidden);
    weights.down.forward(exec, work.offset, hidden, round.results(), work.low);
    round.give_back(rows);
  }
}

template <class Storage>
void ExpertsOverRanks<Storage>::backward(const Exec& exec, const Weights& weights,
                                         const Tensor<const Storage, 2>& x,
                                         const Tensor<const Storage, 2>& dy,
                                         const Routing<Real>& routing, const ExpertRows& choices,
                                         const Saved& saved, const Work& work,
                                         const Tensor<Storage, 2>& rows,
                                         const Tensor<Real, 2>& dweights) const {
  for (int i = 0; i < saved.exchange.rounds(); ++i) {
    const Round round(exec, saved.exchange, i, choices, work);
    const auto dgate_up = first_rows(work.dgate_up, round.rows());
    const auto gate_up = i == 0 ? first_rows(saved.gate_up, round.rows()) : dgate_up;
    const auto hidden = first_rows(work.hidden, round.rows());
    if (i > 0) {
      round.fetch(x);
      weights.gate_up.forward(exec, work.offset, round.received(), gate_up, work.low);
    }
    round.fetch(dy, routing.weights);
    weights.down.backward_input(exec, work.offset, round.received(), hidden, work.low);
    swiglu_backward<Storage>(exec, round.weighted(), side_by_side<const Storage>(gate_up), hidden,
                             side_by_side<Storage>(dgate_up), round.weight_results());
    weights.down.backward_weight(exec, work.offset, round.received(), hidden, work.low);
    if (weights.gate_up.trained()) {
      round.fetch(x);
      weights.gate_up.backward_weight(exec, work.offset, dgate_up, round.received(), work.low);
    }
    weights.gate_up.backward_input(exec, work.offset, dgate_up, round.results(), work.low);
    round.give_back(rows, work.dweight);
  }
  gather_choices<Real>(exec, work.dweight, choices.place, dweights);
}

template class ExpertsOverRanks<bf16>;
template class ExpertsOverRanks<float>;
template class ExpertsOverRanks<double>;

}  // namespace qnext
