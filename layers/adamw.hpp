// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/parameter.hpp"
#include "core/types.hpp"

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
/// same layout as the table's groups.
class AdamW {
 public:
  /// One number for each element of a group of the table.
  struct Buffers {
    DataType type;                       // of all three: accum_of the group's type
    Tensor<std::byte, 1> first_moment;   // m
    Tensor<std::byte, 1> second_moment;  // v
    Tensor<std::byte, 1> master;         // empty unless the group is bf16
  };

  /// What the gradients of one step look like. Norms are those of one tensor, in table order.
  struct GradientNorms {
    double global = 0.0;
    std::vector<double> squares;  // (rows) NaN or infinite where a gradient is
    std::string first_bad;        // name of the first tensor that is not finite, or empty
  };

  AdamW(const AdamWConfig& config, const ParameterTable& table);

  const AdamWConfig& config() const { return config_; }
  const std::vector<Buffers>& buffers() const { return buffers_; }

  /// Masters take the values of the parameters: after initialisation or an import.
  void copy_masters_from_parameters() const;

  /// Parameters take the rounded masters: after a restart that holds masters.
  void copy_parameters_from_masters() const;

  /// Sums of squares in blocks of 4096 elements of a tensor, whatever the number of threads.
  GradientNorms gradient_norms(const Exec& exec) const;

  /// One update with `step` = 1, 2, ... Gradients are scaled by min(1, clip / (norm + 1e-6)).
  void update(const Exec& exec, std::int64_t step, double learning_rate,
              double gradient_norm) const;

 private:
  AdamWConfig config_;
  const ParameterTable& table_;
  std::vector<Buffers> buffers_;
  Tensor<double, 1> block_sums_;           // one for each block of each row
  std::vector<std::int64_t> first_block_;  // (rows + 1)
};

}  // namespace qnext
