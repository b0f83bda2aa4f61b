// SPDX-License-Identifier: Apache-2.0
#include "layers/adamw.hpp"

#include "core/fence.hpp"
#include "core/math.hpp"
#include "core/team.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

namespace qnext {
namespace {

// A team takes a block of one tensor, counted from the first of this rank.
template <class Real>
struct SquareSums {
  Tensor<const Real, 1> gradient;
  double* sums;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const std::int64_t begin = std::int64_t{team.league_rank()} * Shards::block;
    const std::int64_t left = static_cast<std::int64_t>(gradient.extent(0)) - begin;
    const Real* const block = gradient.data() + begin;
    const double sum =
        sum_over<double>(team, static_cast<int>(left < Shards::block ? left : Shards::block),
                         [&](const int i) { return double(block[i]) * double(block[i]); });
    Kokkos::single(Kokkos::PerTeam(team), [&] { sums[team.league_rank()] = sum; });
  }
};

// Storage is the type of the parameter; where it is its own master, master points at the parameter.
// A team takes a block of one tensor: its loop is one that compilers turn into vectors also where
// the parameter is narrower than its master.
template <class Storage>
struct Update {
  using Real = Accum<Storage>;

  Storage* value;
  Real* master;
  Real* first;
  Real* second;
  const Real* gradient;
  std::int64_t count;
  Real scale, beta1, beta2, epsilon, decay, rate, second_correction;

  KOKKOS_FUNCTION void operator()(const RowTeam& team) const {
    const std::int64_t begin = std::int64_t{team.league_rank()} * Shards::block;
    const std::int64_t left = count - begin;
    for_each_in(team, static_cast<int>(left < Shards::block ? left : Shards::block),
                [&](const int i) { update(begin + i); });
  }

  KOKKOS_FORCEINLINE_FUNCTION void update(const std::int64_t i) const {
    const Real g = gradient[i] * scale;
    const Real m = beta1 * first[i] + (Real(1) - beta1) * g;
    const Real v = beta2 * second[i] + (Real(1) - beta2) * g * g;
    const Real w = master[i] * decay - rate * (m / (sqrt(v) / second_correction + epsilon));
    first[i] = m;
    second[i] = v;
    master[i] = w;
    if constexpr (!std::is_same_v<Storage, Real>) {
      value[i] = Storage(w);
    }
  }
};

template <class T>
T* at(const Tensor<std::byte, 1>& buffer, std::int64_t element) {
  return reinterpret_cast<T*>(buffer.data()) + element;
}

// The elements of a tensor that a rank owns, counted from the first of the group.
struct Range {
  std::int64_t begin, end;
  std::int64_t elements() const { return std::max<std::int64_t>(0, end - begin); }
};

Range owned(const Parameter& row, const Shards& shards) {
  return {std::max(row.begin, shards.begin()), std::min(row.begin + row.elements(), shards.end())};
}

// to(i) = from(i), widened.
void convert(const bf16* from, float* to, std::int64_t count) {
  Kokkos::parallel_for(
      "adamw::convert", Kokkos::RangePolicy<Exec, Kokkos::IndexType<std::int64_t>>(0, count),
      KOKKOS_LAMBDA(const std::int64_t i) { to[i] = static_cast<float>(from[i]); });
  fence(Exec{}, "adamw: masters and parameters agree before anybody reads them");
}

}  // namespace

AdamW::AdamW(const AdamWConfig& config, const ParameterTable& table, const ProcessGrid& grid,
             bool keeps_gradients)
    : config_(config), table_(table), grid_(grid), shards_(make_shards(table, grid)) {
  for (std::size_t g = 0; g < shards_.size(); ++g) {
    const auto& group = table.groups()[g];
    const DataType type = accum_of(group.type);
    const std::int64_t bytes = group.frozen ? 0 : shards_[g].elements() * size_of(type);
    const bool has_master = group.type == DataType::bf16 && !group.frozen;
    buffers_.push_back({type, Tensor<std::byte, 1>("first moment", bytes),
                        Tensor<std::byte, 1>("second moment", bytes), has_master,
                        Tensor<std::byte, 1>("master weights", has_master ? bytes : 0),
                        keeps_gradients ? Tensor<std::byte, 1>("part of the gradients", bytes)
                                        : Tensor<std::byte, 1>(),
                        group.frozen});
    sums_.emplace_back("gradient block sums", group.frozen ? 0 : shards_[g].block_borders.back());
  }
  std::vector<std::int64_t> blocks(shards_.size(), 0);
  for (const Parameter& row : table.rows()) {
    first_block_.push_back(blocks[row.group]);
    blocks[row.group] += row.alias_of.empty() ? blocks_of(row) : 0;
  }
  order_rows();
}

// Chunks of a pipeline follow each other. A copy on a second stage is no row of its own.
void AdamW::order_rows() {
  std::string names;
  std::vector<int> chunks;
  for (const Parameter& row : table_.rows()) {
    names += row.name + '\n';
    chunks.push_back(row.on_two_stages && !row.owner ? -1 : row.chunk);
  }
  const auto characters = grid_.pipeline.all_gather(std::vector<char>(names.begin(), names.end()));
  std::istringstream text(std::string(characters.begin(), characters.end()));
  for (std::string name; std::getline(text, name);) {
    names_.push_back(name);
  }
  chunks = grid_.pipeline.all_gather(chunks);
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i] >= 0) {
      order_.push_back(i);
    }
  }
  std::stable_sort(order_.begin(), order_.end(),
                   [&](std::size_t a, std::size_t b) { return chunks[a] < chunks[b]; });
}

Tensor<std::byte, 1> AdamW::gradient_part(std::size_t g) const {
  if (buffers_[g].gradient.data() != nullptr) {
    return buffers_[g].gradient;
  }
  const int size = size_of(buffers_[g].type);
  return Tensor<std::byte, 1>(table_.groups()[g].gradients.data() + shards_[g].begin() * size,
                              shards_[g].elements() * size);
}

void AdamW::copy_masters_from_parameters() const {
  for (std::size_t g = 0; g < buffers_.size(); ++g) {
    const auto& group = table_.groups()[g];
    if (buffers_[g].has_master) {
      convert(at<const bf16>(group.values, shards_[g].begin()), at<float>(buffers_[g].master, 0),
              shards_[g].elements());
    }
  }
}

template <class Real>
void AdamW::square_sums(const Exec& exec, const Parameter& row, std::int64_t first_block) const {
  const Shards& shards = shards_[row.group];
  const Range range = owned(row, shards);
  if (range.elements() == 0) {
    return;
  }
  const auto* const gradients =
      at<const Real>(gradient_part(row.group), range.begin - shards.begin());
  const auto blocks = static_cast<int>((range.elements() + Shards::block - 1) / Shards::block);
  double* const sums =
      sums_[row.group].data() + first_block + (range.begin - row.begin) / Shards::block;
  Kokkos::parallel_for("adamw::square_sums", row_policy(exec, blocks),
                       SquareSums<Real>{Tensor<const Real, 1>(gradients, range.elements()), sums});
}

AdamW::GradientNorms AdamW::gradient_norms(const Exec& exec) const {
  const auto& rows = table_.rows();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].alias_of.empty() && !rows[i].frozen) {
      accum_of(rows[i].type) == DataType::float64
          ? square_sums<double>(exec, rows[i], first_block_[i])
          : square_sums<float>(exec, rows[i], first_block_[i]);
    }
  }
  fence(exec, "adamw: the host reads the sums of squares");
  std::vector<HostTensor<double, 1>> host;
  std::vector<Transfer> gathered(sums_.size());  // all at once: a group is a few numbers
  for (std::size_t g = 0; g < sums_.size(); ++g) {
    if (buffers_[g].frozen) {
      continue;
    }
    const Tensor<std::byte, 1> bytes(reinterpret_cast<std::byte*>(sums_[g].data()),
                                     sums_[g].size() * sizeof(double));
    gathered[g] = shards_[g].over.start_gather(bytes, sizeof(double), shards_[g].block_borders);
  }
  for (std::size_t g = 0; g < sums_.size(); ++g) {
    gathered[g].wait();
    host.push_back(Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), sums_[g]));
  }
  std::vector<double> mine;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double square = 0.0;
    const bool counts = rows[i].alias_of.empty() && !rows[i].frozen && grid_.counts(rows[i]);
    const std::int64_t blocks = counts ? blocks_of(rows[i]) : 0;
    for (std::int64_t block = 0; block < blocks; ++block) {
      square += host[rows[i].group](first_block_[i] + block);
    }
    mine.push_back(square);
  }
  std::vector<double> of_stage;
  const auto of_ranks = grid_.stage.all_gather(mine);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double square = 0.0;
    for (std::size_t part = i; part < of_ranks.size(); part += rows.size()) {
      square += of_ranks[part];
    }
    of_stage.push_back(square);
  }
  GradientNorms norms;
  double total = 0.0;
  const auto of_stages = grid_.pipeline.all_gather(of_stage);
  for (const std::size_t i : order_) {
    norms.squares.push_back(of_stages[i]);
    if (!std::isfinite(of_stages[i])) {
      norms.first_bad = norms.first_bad.empty() ? names_[i] : norms.first_bad;
      norms.last_bad = names_[i];
    }
    total += of_stages[i];
  }
  norms.global = std::sqrt(total);
  return norms;
}

template <class Storage>
void AdamW::update_row(const Exec& exec, const Parameter& row, std::int64_t step,
                       double learning_rate, double scale) const {
  using Real = Accum<Storage>;
  const Shards& shards = shards_[row.group];
  const Range range = owned(row, shards);
  if (range.elements() == 0) {
    return;
  }
  const bool decays = row.decay == Decay::yes || (row.zero_centred_norm && config_.decay_norms);
  const auto& group = table_.groups()[row.group];
  const Buffers& buffers = buffers_[row.group];
  const std::int64_t local = range.begin - shards.begin();
  Update<Storage> kernel;
  kernel.value = at<Storage>(group.values, range.begin);
  if constexpr (std::is_same_v<Storage, Real>) {
    kernel.master = kernel.value;
  } else {
    kernel.master = at<Real>(buffers.master, local);
  }
  kernel.first = at<Real>(buffers.first_moment, local);
  kernel.second = at<Real>(buffers.second_moment, local);
  kernel.gradient = at<const Real>(gradient_part(row.group), local);
  kernel.count = range.elements();
  kernel.scale = static_cast<Real>(scale);
  kernel.beta1 = static_cast<Real>(config_.beta1);
  kernel.beta2 = static_cast<Real>(config_.beta2);
  kernel.epsilon = static_cast<Real>(config_.epsilon);
  kernel.decay = static_cast<Real>(decays ? 1.0 - learning_rate * config_.weight_decay : 1.0);
  const auto n = static_cast<double>(step);
  kernel.rate = static_cast<Real>(learning_rate / (1.0 - std::pow(config_.beta1, n)));
  kernel.second_correction = static_cast<Real>(std::sqrt(1.0 - std::pow(config_.beta2, n)));
  const auto blocks = static_cast<int>((kernel.count + Shards::block - 1) / Shards::block);
  Kokkos::parallel_for("adamw::update", row_policy(exec, blocks), kernel);
}

void AdamW::update(const Exec& exec, std::int64_t step, double learning_rate, double gradient_norm,
                   std::size_t group) const {
  const double scale =
      config_.clip > 0.0 ? std::min(1.0, config_.clip / (gradient_norm + 1e-6)) : 1.0;
  for (const Parameter& row : table_.rows()) {
    if (!row.alias_of.empty() || row.frozen || row.group != static_cast<int>(group)) {
      continue;
    }
    switch (row.type) {
      case DataType::bf16:
        update_row<bf16>(exec, row, step, learning_rate, scale);
        break;
      case DataType::float32:
        update_row<float>(exec, row, step, learning_rate, scale);
        break;
      case DataType::float64:
        update_row<double>(exec, row, step, learning_rate, scale);
        break;
    }
  }
}

void AdamW::update(const Exec& exec, std::int64_t step, double learning_rate,
                   double gradient_norm) const {
  for (std::size_t group = 0; group < shards_.size(); ++group) {
    update(exec, step, learning_rate, gradient_norm, group);
  }
}

}  // namespace qnext
