// SPDX-License-Identifier: Apache-2.0
#include "layers/adamw.hpp"

#include "core/fence.hpp"
#include "core/math.hpp"
#include "core/team.hpp"

#include <algorithm>
#include <cmath>

namespace qnext {
namespace {

constexpr int block = 4096;

// A team takes a block of one tensor.
template <class Real>
struct SquareSums {
  Tensor<const Real, 1> gradient;
  double* sums;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const std::int64_t begin = std::int64_t{team.league_rank()} * block;
    const std::int64_t left = static_cast<std::int64_t>(gradient.extent(0)) - begin;
    const Real* const part = gradient.data() + begin;
    const double sum =
        sum_over<double>(team, static_cast<int>(left < block ? left : block),
                         [&](const int i) { return double(part[i]) * double(part[i]); });
    Kokkos::single(Kokkos::PerTeam(team), [&] { sums[team.league_rank()] = sum; });
  }
};

// Storage is the type of the parameter; where it is its own master, master points at the parameter.
// A team takes a block of one tensor: its loop is one that compilers turn into vectors also where
// the parameter is narrower than its master.
template <class Storage>
struct Update {
  using Real = Accum<Storage>;

  Tensor<Storage, 1> value;
  Real* master;
  Real* first;
  Real* second;
  Tensor<const Real, 1> gradient;
  Real scale, beta1, beta2, epsilon, decay, rate, second_correction;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const std::int64_t begin = std::int64_t{team.league_rank()} * block;
    const std::int64_t left = static_cast<std::int64_t>(value.extent(0)) - begin;
    for_each_in(team, static_cast<int>(left < block ? left : block),
                [&](const int i) { update(begin + i); });
  }

  KOKKOS_FORCEINLINE_FUNCTION void update(const std::int64_t i) const {
    const Real g = gradient(i) * scale;
    const Real m = beta1 * first[i] + (Real(1) - beta1) * g;
    const Real v = beta2 * second[i] + (Real(1) - beta2) * g * g;
    const Real w = master[i] * decay - rate * (m / (sqrt(v) / second_correction + epsilon));
    first[i] = m;
    second[i] = v;
    master[i] = w;
    if constexpr (!std::is_same_v<Storage, Real>) {
      value(i) = Storage(w);
    }
  }
};

template <class Real>
Real* at(const Tensor<std::byte, 1>& buffer, std::int64_t element) {
  return reinterpret_cast<Real*>(buffer.data()) + element;
}

template <class Real>
void square_sums(const Exec& exec, const ParameterTable& table, const Parameter& row,
                 double* sums) {
  const auto gradient = table.gradients<Real>(row);
  const int blocks = static_cast<int>((row.elements() + block - 1) / block);
  Kokkos::parallel_for("adamw::square_sums", row_policy(exec, blocks),
                       SquareSums<Real>{gradient, sums});
}

template <class Storage>
void update_row(const Exec& exec, const ParameterTable& table, const Parameter& row,
                const AdamW::Buffers& buffers, const AdamWConfig& config, std::int64_t step,
                double learning_rate, double scale) {
  using Real = Accum<Storage>;
  const bool decays = row.decay == Decay::yes || (row.zero_centred_norm && config.decay_norms);
  const auto value = table.values<Storage>(row);
  Update<Storage> kernel;
  kernel.value = value;
  if constexpr (std::is_same_v<Storage, Real>) {
    kernel.master = value.data();
  } else {
    kernel.master = at<Real>(buffers.master, row.begin);
  }
  kernel.first = at<Real>(buffers.first_moment, row.begin);
  kernel.second = at<Real>(buffers.second_moment, row.begin);
  kernel.gradient = table.gradients<Real>(row);
  kernel.scale = static_cast<Real>(scale);
  kernel.beta1 = static_cast<Real>(config.beta1);
  kernel.beta2 = static_cast<Real>(config.beta2);
  kernel.epsilon = static_cast<Real>(config.epsilon);
  kernel.decay = static_cast<Real>(decays ? 1.0 - learning_rate * config.weight_decay : 1.0);
  const auto n = static_cast<double>(step);
  kernel.rate = static_cast<Real>(learning_rate / (1.0 - std::pow(config.beta1, n)));
  kernel.second_correction = static_cast<Real>(std::sqrt(1.0 - std::pow(config.beta2, n)));
  Kokkos::parallel_for("adamw::update",
                       row_policy(exec, static_cast<int>((row.elements() + block - 1) / block)),
                       kernel);
}

// to(i) = from(i), rounded or widened.
template <class From, class To>
void convert(const From* from, To* to, std::int64_t count) {
  Kokkos::parallel_for(
      "adamw::convert", Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(0, count),
      KOKKOS_LAMBDA(const std::int64_t i) { to[i] = To(static_cast<float>(from[i])); });
  fence(Exec{}, "adamw: masters and parameters agree before anybody reads them");
}

}  // namespace

AdamW::AdamW(const AdamWConfig& config, const ParameterTable& table)
    : config_(config), table_(table) {
  for (const auto& group : table.groups()) {
    const DataType type = accum_of(group.type);
    const std::int64_t bytes = group.elements * size_of(type);
    buffers_.push_back(
        {type, Tensor<std::byte, 1>("first moment", bytes),
         Tensor<std::byte, 1>("second moment", bytes),
         Tensor<std::byte, 1>("master weights", group.type == DataType::bf16 ? bytes : 0)});
  }
  std::int64_t blocks = 0;
  for (const Parameter& row : table.rows()) {
    first_block_.push_back(blocks);
    blocks += row.alias_of.empty() ? (row.elements() + block - 1) / block : 0;
  }
  first_block_.push_back(blocks);
  block_sums_ = Tensor<double, 1>("gradient block sums", blocks);
}

void AdamW::copy_masters_from_parameters() const {
  for (std::size_t g = 0; g < buffers_.size(); ++g) {
    const auto& group = table_.groups()[g];
    if (group.type == DataType::bf16) {
      convert(reinterpret_cast<const bf16*>(group.values.data()), at<float>(buffers_[g].master, 0),
              group.elements);
    }
  }
}

void AdamW::copy_parameters_from_masters() const {
  for (std::size_t g = 0; g < buffers_.size(); ++g) {
    const auto& group = table_.groups()[g];
    if (group.type == DataType::bf16) {
      convert(at<const float>(buffers_[g].master, 0), reinterpret_cast<bf16*>(group.values.data()),
              group.elements);
    }
  }
}

AdamW::GradientNorms AdamW::gradient_norms(const Exec& exec) const {
  for (std::size_t i = 0; i < table_.rows().size(); ++i) {
    const Parameter& row = table_.rows()[i];
    if (!row.alias_of.empty()) {
      continue;
    }
    double* const sums = block_sums_.data() + first_block_[i];
    if (accum_of(row.type) == DataType::float64) {
      square_sums<double>(exec, table_, row, sums);
    } else {
      square_sums<float>(exec, table_, row, sums);
    }
  }
  fence(exec, "adamw: the host reads the sums of squares");
  const auto host = Kokkos::create_mirror_view(block_sums_);
  Kokkos::deep_copy(host, block_sums_);
  GradientNorms norms;
  double total = 0.0;
  for (std::size_t i = 0; i < table_.rows().size(); ++i) {
    double square = 0.0;
    for (std::int64_t block = first_block_[i]; block < first_block_[i + 1]; ++block) {
      square += host(block);
    }
    norms.squares.push_back(square);
    if (!std::isfinite(square) && norms.first_bad.empty()) {
      norms.first_bad = table_.rows()[i].name;
    }
    total += square;
  }
  norms.global = std::sqrt(total);
  return norms;
}

void AdamW::update(const Exec& exec, std::int64_t step, double learning_rate,
                   double gradient_norm) const {
  const double scale =
      config_.clip > 0.0 ? std::min(1.0, config_.clip / (gradient_norm + 1e-6)) : 1.0;
  for (const Parameter& row : table_.rows()) {
    if (!row.alias_of.empty()) {
      continue;
    }
    const Buffers& buffers = buffers_[row.group];
    switch (row.type) {
      case DataType::bf16:
        update_row<bf16>(exec, table_, row, buffers, config_, step, learning_rate, scale);
        break;
      case DataType::float32:
        update_row<float>(exec, table_, row, buffers, config_, step, learning_rate, scale);
        break;
      case DataType::float64:
        update_row<double>(exec, table_, row, buffers, config_, step, learning_rate, scale);
        break;
    }
  }
}

}  // namespace qnext
