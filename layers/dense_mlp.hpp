// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "core/arena.hpp"
#include "core/documents.hpp"
#include "core/parameter.hpp"
#include "core/types.hpp"
#include "layers/linear.hpp"
#include "layers/shared_rows.hpp"
#include "parallel/process_grid.hpp"

#include <string>

namespace qnext {

struct DenseMlpConfig {
  int model_width = 0;  // D
  int width = 0;        // F
  double init_deviation = 0.02;
};

/// y = c W_down (silu(W_gate x) W_up x), with a factor c for each token where it is the shared
/// expert of a mixture. T tokens, D model width, F hidden width: the columns of this rank, where
/// tensor ranks divide them. x, y and the factors are those of the rows of this rank.
template <class Storage>
class DenseMlp {
 public:
  using Real = Accum<Storage>;

  /// 2 F elements a token.
  struct Saved {
    Tensor<const Storage, 2> x;  // (rows, D)  the caller's, who keeps it until backward
    Tensor<Storage, 2> gate;     // (T, F)
    Tensor<Storage, 2> up;       // (T, F)
  };
  struct Work {
    SharedRows<Storage> rows;
    Tensor<Real, 2> factor;     // (T, 1)  of all rows, or the gradient; empty for a rank alone
    Tensor<Real, 1> received;   // parts of the sum of that gradient
    Tensor<Storage, 2> hidden;  // (T, F)
    Tensor<Storage, 2> dgate;   // (T, F)
    Tensor<Storage, 2> dup;     // (T, F)
    Tensor<Storage, 2> low;     // (T, r)  of the adapters
  };

  /// Registers prefix + ".gate_proj.weight", ".up_proj.weight" and ".down_proj.weight".
  DenseMlp(const DenseMlpConfig& config, const ProcessGrid& grid, ParameterTable& table,
           const std::string& prefix);

  Saved reserve_saved(Arena& arena, const MicrobatchShape& shape) const;
  Work reserve_work(Arena& arena, const MicrobatchShape& shape) const;

  /// x, y (rows, D); factor (rows), or empty: 1.
  void forward(const Exec& exec, const Tensor<const Storage, 2>& x, const Tensor<Storage, 2>& y,
               Saved& saved, const Work& work, const Tensor<const Real, 1>& factor = {}) const;

  /// dy, dx (rows, D), not the same memory; dfactor (rows) is that of the factor, or empty.
  void backward(const Exec& exec, const Tensor<const Storage, 2>& dy, const Saved& saved,
                const Tensor<Storage, 2>& dx, const Work& work,
                const Tensor<const Real, 1>& factor = {},
                const Tensor<Real, 1>& dfactor = {}) const;

  const Linear<Storage>& gate() const { return gate_; }
  const Linear<Storage>& up() const { return up_; }
  const Linear<Storage>& down() const { return down_; }
  bool has_adapters() const {
    return gate_.has_adapter() || up_.has_adapter() || down_.has_adapter();
  }

 private:
  Tensor<const Real, 1> all_factors(const Exec& exec, const Tensor<const Real, 1>& mine,
                                    const Work& work) const;

  ProcessGrid grid_;
  Linear<Storage> gate_;
  Linear<Storage> up_;
  Linear<Storage> down_;
  AdapterConfig adapters_;
};

}  // namespace qnext
