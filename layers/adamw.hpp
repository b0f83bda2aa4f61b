// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/shards.hpp"

#include <string>
#include <vector>

namespace qnext {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  bool decay_norms = false;  // zero-centred norms too, QK norm included
  double clip = 1.0;         // largest global gradient norm; 0: no clipping
};

/// AdamW (Loshchilov and Hutter 2019, in the order of PyTorch's torch.optim.AdamW):
///
///     w -= rate decay w
///     m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
///     w -= rate / (1 - beta1^n) m / (sqrt(v / (1 - beta2^n)) + epsilon)
///
/// Moments are held in Accum of the parameter's type. A bf16 parameter has a master weight in
/// float, which is what is updated; the parameter is its rounding. All lie in flat buffers of the
/// same layout as the table's groups, of which each data rank holds and updates one part (ZeRO-1,
/// Rajbhandari et al. 2020).
class AdamW {
 public:
  /// One number for each element of this rank's part of a group of the table.
  struct Buffers {
    DataType type;                       // of all three: accum_of the group's type
    Tensor<std::byte, 1> first_moment;   // m
    Tensor<std::byte, 1> second_moment;  // v
    bool has_master;                     // where the group is bf16
    Tensor<std::byte, 1> master;         // else empty
    Tensor<std::byte, 1> gradient;       // empty where the table keeps all gradients
    bool frozen = false;                 // nobody updates the group: all are empty
  };

  /// What the gradients of one step look like, of all stages of a pipeline. Norms are those of one
  /// tensor, in the order of the table of the whole model.
  struct GradientNorms {
    double global = 0.0;
    std::vector<double> squares;      // (rows) NaN or infinite where a gradient is
    std::string first_bad, last_bad;  // names of the tensors that are not finite, or empty
  };

  /// `keeps_gradients`: the table's gradients are gone when an update wants them (ZeRO-2).
  AdamW(const AdamWConfig& config, const ParameterTable& table, const ProcessGrid& grid = {},
        bool keeps_gradients = false);

  const AdamWConfig& config() const { return config_; }
  const std::vector<Buffers>& buffers() const { return buffers_; }

  /// Which parts of the groups the ranks own.
  const std::vector<Shards>& shards() const { return shards_; }

  /// The gradients that an update of a group takes: of the own part, in Accum.
  Tensor<std::byte, 1> gradient_part(std::size_t group) const;

  /// Masters take the values of the parameters: after initialisation or an import.
  void copy_masters_from_parameters() const;

  /// Sums of squares in blocks of a tensor, whatever the number of threads and ranks; the same on
  /// all ranks.
  GradientNorms gradient_norms(const Exec& exec) const;

  /// One update with `step` = 1, 2, ... Gradients are scaled by min(1, clip / (norm + 1e-6)). Each
  /// rank has its own part of the new parameters then, and the others are theirs to send.
  void update(const Exec& exec, std::int64_t step, double learning_rate,
              double gradient_norm) const;

  /// The same of one group of the table.
  void update(const Exec& exec, std::int64_t step, double learning_rate, double gradient_norm,
              std::size_t group) const;

 private:
  AdamWConfig config_;
  const ParameterTable& table_;
  void order_rows();
  template <class Real>
  void square_sums(const Exec& exec, const Parameter& row, std::int64_t first_block) const;
  template <class Storage>
  void update_row(const Exec& exec, const Parameter& row, std::int64_t step, double learning_rate,
                  double scale) const;

  ProcessGrid grid_;
  std::vector<Shards> shards_;             // (groups)
  std::vector<Buffers> buffers_;           // (groups)
  std::vector<Tensor<double, 1>> sums_;    // (groups) of squares, one for each block
  std::vector<std::int64_t> first_block_;  // (rows) in its group
  std::vector<std::string> names_;         // of the rows of all stages, one stage after the other
  std::vector<std::size_t> order_;         // of these, as the table of the whole model has them
};

}  // namespace qnext
