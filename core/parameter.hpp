// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/adapter_config.hpp"
#include "core/require.hpp"
#include "core/types.hpp"

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext {

/// One box of a global tensor, in elements.
struct Box {
  std::array<std::int64_t, 4> offset{};
  std::array<std::int64_t, 4> extent{1, 1, 1, 1};

  std::int64_t elements() const { return extent[0] * extent[1] * extent[2] * extent[3]; }
};

/// What this rank holds of a global tensor: one box, or several (the channels of q, k and v in the
/// convolution), stacked along the first extent. Plain arithmetic: no communicator in here.
struct Shard {
  int rank = 1;  // how many extents the tensor has
  std::array<std::int64_t, 4> global_extent{1, 1, 1, 1};
  std::vector<Box> boxes;

  /// All of a tensor.
  static Shard whole(const std::vector<std::int64_t>& extents);

  /// One of `parts` consecutive parts along an axis, cut as evenly as it can be.
  static Shard part(const std::vector<std::int64_t>& extents, int axis, int part, int parts);

  /// Of the memory of this rank.
  std::array<std::int64_t, 4> local_extent() const;
  std::int64_t local_elements() const;
  std::int64_t global_elements() const;
};

enum class Decay : bool { no, yes };

/// How a parameter starts. `scale` is the deviation of `normal`, the half width of `uniform` and
/// the upper end of `log_uniform`, which is the logarithm of a uniform number above 1e-6.
struct Init {
  enum class Kind { zeros, ones, normal, uniform, log_uniform };
  Kind kind = Kind::zeros;
  double scale = 0.0;

  static Init zeros() { return {Kind::zeros, 0.0}; }
  static Init ones() { return {Kind::ones, 0.0}; }
  static Init normal(double deviation) { return {Kind::normal, deviation}; }
  static Init uniform(double half_width) { return {Kind::uniform, half_width}; }
  static Init log_uniform(double highest) { return {Kind::log_uniform, highest}; }
};

/// Over which ranks the gradient is summed and the optimizer's state shared: dense weights over
/// data and context, experts over all ranks of a stage that hold the same ones. What tensor ranks
/// replicate (norms, the router) is summed over these too.
enum class ReduceOver { data, data_beside_experts, data_and_tensor };

/// One tensor of weights. A layer registers it once; initialisation, gradient reduction, the
/// gradient norm, the optimizer, the checkpoint and the importer walk the table and never name a
/// layer.
struct Parameter {
  std::string name{};  // as in the released file: "model.layers.3.linear_attn.out_proj.weight"
  Shard shard{};       // rows in the order of the released file
  Init init{};
  Decay decay = Decay::yes;
  ReduceOver reduce_over = ReduceOver::data;
  int replicas = 0;                // of data_and_tensor: so many neighbours hold the same; 0: all
  bool owner = true;               // false on replicas that count neither in norms nor in files
  std::string alias_of{};          // a tied head names the embedding and has no memory of its own
  bool zero_centred_norm = false;  // decays only where the deck says `decay_norms`
  bool on_two_stages = false;      // the last stage of a pipeline has a copy of the first one's
  bool of_adapter = false;         // a half of a low-rank adapter; no released file has it

  // Filled by the table.
  DataType type =
      DataType::float32;   // A_log, dt_bias, norms and router are float32 in a bf16 model
  int group = -1;          // index into ParameterTable::groups()
  std::int64_t begin = 0;  // first element in the flat buffers of that group
  int chunk = 0;           // of the pipeline: the one that this belongs to
  bool frozen = false;     // nobody trains it: no gradient, nothing of the optimizer

  std::int64_t elements() const { return shard.local_elements(); }
};

/// The same memory with its shape: what a layer computes with. Valid once the table is laid out.
/// It stays where it is: the table remembers its address.
template <class T, int Rank>
struct Weight {
  Tensor<const T, Rank> value;
  Tensor<Accum<T>, Rank> grad;  // nowhere where the weight is frozen

  bool trained() const { return grad.data() != nullptr; }

  Weight() = default;
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;
};

class ParameterTable {
 public:
  /// Flat buffers of parameters of one chunk and one data type that are reduced over the same
  /// ranks, in table order, so that optimizer shards are plain ranges. What messages carry at a
  /// time: a bucket.
  struct Group {
    DataType type;
    ReduceOver reduce_over;
    int replicas = 0;
    bool on_two_stages = false;
    int chunk = 0;
    bool frozen = false;                  // no gradients
    std::size_t first_row = 0;            // of the table, in this group; groups are in that order
    std::int64_t elements = 0;            // padding included; the padding is zero
    Tensor<std::byte, 1> values = {};     // elements of `type`
    Tensor<std::byte, 1> gradients = {};  // elements of accum_of(type)
  };

  /// Rows that would make the gradients of a group take more than `bucket` bytes begin another one;
  /// a larger tensor has a group of its own.
  explicit ParameterTable(std::int64_t bucket = std::numeric_limits<std::int64_t>::max())
      : bucket_(bucket) {}
  ParameterTable(const ParameterTable&) = delete;
  ParameterTable& operator=(const ParameterTable&) = delete;

  /// The low-rank adapters of the model, before anything is added. Where there are any, every row
  /// but theirs is frozen.
  void begin_adapters(const AdapterConfig& adapters);
  const AdapterConfig& adapters() const { return adapters_; }

  /// What is added from here on belongs to that chunk of the pipeline, in groups of its own. Chunks
  /// come in their order; a model that nobody divides is chunk 0.
  void begin_chunk(int chunk);

  /// `weight` is filled by lay_out.
  template <class T, int Rank>
  void add(Parameter parameter, Weight<T, Rank>& weight) {
    require(parameter.shard.rank == Rank, parameter.name + ": rank of shard and weight differ");
    parameter.type = data_type_of<T>();
    const auto extent = parameter.shard.local_extent();
    append(std::move(parameter), [&weight, extent](void* value, void* grad) {
      weight.value = shaped<const T, Rank>(value, extent);
      weight.grad = shaped<Accum<T>, Rank>(grad, extent);
    });
  }

  /// `make` is called when the table is laid out: for memory that a layer keeps beside its weights,
  /// which a plan goes without.
  void at_lay_out(std::function<void()> make) { makes_.push_back(std::move(make)); }

  /// Allocates the flat buffers and fills every weight. Values and gradients start as zero. Without
  /// gradients (decoding, evaluation) these have no memory.
  void lay_out(bool with_gradients = true);

  /// The same with all gradients in one buffer, where groups share memory one after the other: the
  /// byte that each begins with.
  void lay_out(const std::vector<std::int64_t>& gradient_begins, std::int64_t bytes);

  void zero_gradients(const Exec& exec) const;

  const std::deque<Parameter>& rows() const { return rows_; }
  const std::vector<Group>& groups() const { return groups_; }

  /// The row of that name, or null.
  const Parameter* find(std::string_view name) const;

  /// The memory of one row. T is the type of the row, Real its Accum.
  template <class T>
  Tensor<T, 1> values(const Parameter& row) const {
    require(row.type == data_type_of<T>(), row.name + ": asked for as another type");
    const auto& buffer = groups_[row.group].values;
    return Tensor<T, 1>(reinterpret_cast<T*>(buffer.data()) + row.begin, row.elements());
  }
  template <class Real>
  Tensor<Real, 1> gradients(const Parameter& row) const {
    require(accum_of(row.type) == data_type_of<Real>(), row.name + ": asked for as another type");
    const auto& buffer = groups_[row.group].gradients;
    return Tensor<Real, 1>(reinterpret_cast<Real*>(buffer.data()) + row.begin, row.elements());
  }

  /// Numbers of this rank / of the whole model; an alias counts once.
  std::int64_t local_elements() const;
  std::int64_t global_elements() const;

 private:
  using Bind = std::function<void(void* value, void* grad)>;

  template <class T, int Rank>
  static Tensor<T, Rank> shaped(void* address, const std::array<std::int64_t, 4>& extent) {
    T* const data = static_cast<T*>(address);
    if constexpr (Rank == 1) {
      return Tensor<T, 1>(data, extent[0]);
    } else if constexpr (Rank == 2) {
      return Tensor<T, 2>(data, extent[0], extent[1]);
    } else if constexpr (Rank == 3) {
      return Tensor<T, 3>(data, extent[0], extent[1], extent[2]);
    } else {
      return Tensor<T, 4>(data, extent[0], extent[1], extent[2], extent[3]);
    }
  }

  void append(Parameter parameter, Bind bind);
  void bind() const;
  int group_for(const Parameter& row);

  std::int64_t bucket_;  // bytes
  int chunk_ = 0;
  AdapterConfig adapters_;
  std::deque<Parameter> rows_;
  std::deque<Bind> binds_;
  std::vector<std::function<void()>> makes_;
  std::vector<Group> groups_;
};

/// Fills every parameter by its rule. A number depends on the seed, the name and the place in the
/// global tensor, never on the layout.
void initialise(const ParameterTable& table, std::uint64_t seed);

/// The same of the adapters alone.
void initialise_adapters(const ParameterTable& table, std::uint64_t seed);

/// Moves every number that is not zero by the distance to its neighbour in its type, up or down by
/// random bits that depend on the member, the name and the place in the global tensor. Of a
/// zero-centred norm it is the number that it multiplies with that moves so, 1 + weight.
void move_by_one_rounding(const ParameterTable& table, std::uint64_t member);

}  // namespace qnext
