// SPDX-License-Identifier: Apache-2.0
#include "app/traffic_plan.hpp"

#include "core/context_share.hpp"
#include "core/parts.hpp"
#include "parallel/ordered_sum.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/replica_sum.hpp"
#include "parallel/shards.hpp"
#include "parallel/tree_sum.hpp"

#include <algorithm>

namespace qnext {
namespace {

/// The messages of one microbatch through the layers, then those of a step. Letters as in the
/// layers: T tokens that a context rank has in S sequences, n tensor ranks, C context ranks.
class Planner {
 public:
  Planner(const RunConfig& config, const ParameterTable& table)
      : config_(config),
        model_(config.model),
        table_(table),
        grid_(config.degrees),
        n_(config.degrees.tensor),
        C_(config.degrees.context),
        S_(config.data.microbatch),
        piece_(config.data.sequence / C_),
        T_(std::int64_t{S_} * piece_),
        rows_(S_ * part_begin(piece_, 1, n_)),
        storage_(size_of(config.run.precision)),
        real_(size_of(accum_of(config.run.precision))) {}

  TrafficPlan plan() {
    for (int m = 0; m < config_.microbatches_of_rank(); ++m) {
      for (const Chunk& each : config_.pipeline.chunks_of(0)) {
        chunk(each);
      }
    }
    for (std::size_t g = 0; g < table_.groups().size(); ++g) {
      if (!table_.groups()[g].frozen) {
        gradients_and_weights(static_cast<int>(g));
      }
    }
    losses();
    return std::move(plan_);
  }

 private:
  enum class Pass { forward, backward };

  void send(const std::string& group, std::int64_t bytes, std::int64_t calls = 1) {
    auto& lines = plan_.lines;
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const TrafficPlan::Line& each) { return each.group == group; });
    if (line == lines.end()) {
      line = lines.insert(lines.end(), {group});
    }
    line->bytes += bytes;
    line->calls += calls;
  }

  // --- Rows of tensor ranks: parallel/row_split.hpp

  void gather(int size) {
    if (n_ > 1) {
      send("tensor", rows_ * (n_ - 1) * model_.width * size);
    }
  }
  void sum(int size) {
    if (n_ > 1) {
      send("tensor", (T_ - rows_) * model_.width * size);
    }
  }
  // Around a layer that tensor ranks divide by columns: layers/shared_rows.hpp.
  void shared_rows(Pass pass) {
    gather(storage_);
    if (pass == Pass::backward) {
      gather(storage_);
    }
    sum(storage_);
  }

  // The gate of the shared expert, a number for each token, and its gradient.
  void shared_factors(Pass pass) {
    if (n_ > 1) {
      send("tensor", rows_ * (n_ - 1) * real_);
    }
    if (n_ > 1 && pass == Pass::backward) {
      send("tensor", (T_ - rows_) * real_);
    }
  }

  // --- Layers

  void delta_net(Pass pass) {
    shared_rows(pass);
    if (C_ == 1) {
      return;
    }
    const auto& c = model_.layer.delta_net;
    const std::int64_t channels =
        (2ll * c.key_heads * c.key_width + 1ll * c.value_heads * c.value_width) / n_;
    const std::int64_t state = 1ll * c.value_heads / n_ * c.key_width * c.value_width;
    if (pass == Pass::forward) {  // the first rank has nobody to send anything back to
      send("context", S_ * ((c.conv_taps - 1) * channels * storage_ + state * real_), 2);
    }
  }

  // parallel/half_swap.hpp, rows of so many numbers
  void swap(std::int64_t width, int size) {
    send("context", std::int64_t{S_} * (piece_ - first_half(piece_)) * width * size);
  }
  void attention(Pass pass) {
    shared_rows(pass);
    if (C_ == 1) {
      return;
    }
    const auto& c = model_.layer.attention;
    const std::int64_t H = c.heads / n_, G = std::max(1, c.key_value_heads / n_), W = c.head_width;
    const std::int64_t visitors = 2 * T_ * G * W;
    swap(G * W, storage_);
    swap(G * W, storage_);
    swap(H * W, storage_);
    send("context", (C_ - 1) * visitors * storage_, C_ - 1);
    if (pass == Pass::forward) {
      swap(H * W, real_);
      swap(H, real_);
      return;
    }
    swap(H, real_);
    swap(H, real_);
    swap(H * W, storage_);
    send("context", C_ * visitors * real_, C_);
    swap(G * W, storage_);
    swap(G * W, storage_);
    swap(H * W, storage_);
  }

  void experts(Pass pass, const std::string& layer) {
    const auto& c = model_.layer.experts;
    if (c.shared_width > 0) {
      shared_rows(pass);
      shared_factors(pass);
    }
    const int N = config_.degrees.expert;
    if (N == 1) {
      return;
    }
    const std::int64_t leave = rows_ * c.experts_per_token * (N - 1) / N;
    const std::int64_t row = std::int64_t{model_.width} * storage_;
    if (pass == Pass::forward) {
      send("expert",
           (N - 1) * (c.experts + 1) * std::int64_t{sizeof(int)} + leave * (row + real_) +
               leave * row,
           3);
      return;
    }
    // The rows of x go for the gradients of W_gate and W_up, or of their adapters.
    const bool frozen = model_.adapters.any() &&
                        !model_.adapters.targets_weight(layer + ".mlp.experts.gate_up_proj");
    send("expert", leave * (row + real_) + (frozen ? 0 : leave * row) + leave * (row + real_),
         frozen ? 2 : 3);
  }

  void mixer(Mixer kind, Pass pass) {
    kind == Mixer::delta_net ? delta_net(pass) : attention(pass);
  }
  void mlp(Mlp kind, Pass pass, const std::string& layer) {
    kind == Mlp::dense ? shared_rows(pass) : experts(pass, layer);
  }

  void embedding(Pass pass) {
    if (pass == Pass::forward) {
      sum(storage_);
    } else if (!model_.adapters.any()) {
      gather(real_);
    }
  }

  void head() {
    shared_rows(Pass::forward);
    if (n_ > 1) {  // largest logit, sum of exponentials and logit of the label of each token
      send("tensor", T_ * 3 * (n_ - 1) * real_);
    }
  }

  // Counts, probabilities and squares of the routers of all layers: layers/balance_loss.hpp.
  void balance(std::int64_t layers) {
    const std::int64_t counts = layers * S_ * model_.layer.experts.experts, squares = layers * S_;
    const auto over = [&](const char* group, int ranks) {
      if (ranks == 1 || layers == 0) {
        return;
      }
      const std::int64_t room = ordered_sum_room(std::max(n_, C_), counts);
      send(group, ordered_sum_sent(ranks, 0, counts, room) * std::int64_t{sizeof(int)}, 2);
      send(group, ordered_sum_sent(ranks, 0, counts, room) * real_, 2);
      send(group, ordered_sum_sent(ranks, 0, squares, room) * real_, 2);
    };
    over("tensor", n_);
    over("context", C_);
  }

  // Of the stage in front: the residual stream to the next one, its gradient to the one before.
  void stages(const Chunk& chunk, Pass pass) {
    if (pass == Pass::forward ? chunk.last() : chunk.first()) {
      return;
    }
    const bool couples = model_.balance.form == BalanceLossConfig::Form::huggingface;
    const std::int64_t shares = couples ? model_.layer.experts.experts * real_ : 0;
    const std::int64_t loss = pass == Pass::forward ? 0 : sizeof(double);
    send("stages", rows_ * model_.width * real_ + shares + loss);
  }

  void chunk(const Chunk& chunk) {
    const int modules = chunk.last() ? model_.mtp_modules : 0;
    for (const Pass pass : {Pass::forward, Pass::backward}) {
      stages(chunk, pass);
      for (int i = chunk.begin; i < chunk.end; ++i) {
        const std::string layer = "model.layers." + std::to_string(i);
        mixer(model_.mixers[i], pass);
        mlp(model_.mlps[i], pass, layer);
        if (pass == Pass::backward && model_.recompute != Recompute::none) {
          mixer(model_.mixers[i], Pass::forward);
        }
        if (pass == Pass::backward && model_.recompute == Recompute::block) {
          mlp(model_.mlps[i], Pass::forward, layer);
        }
      }
      for (int module = 0; module < modules; ++module) {
        mixer(Mixer::attention, pass);
        mlp(Mlp::experts, pass, "mtp.layers.0");
        embedding(pass);
      }
      if (chunk.first()) {
        embedding(pass);
      }
    }
    for (int i = 0; chunk.last() && i < 1 + modules; ++i) {
      head();
    }
    balance(static_cast<int>(std::count(model_.mlps.begin() + chunk.begin,
                                        model_.mlps.begin() + chunk.end, Mlp::experts)) +
            modules);
  }

  // --- Once a step: parallel/tree_sum.hpp, weight_gather.hpp, replica_sum.hpp, layers/adamw.hpp

  void gradients_and_weights(int g) {
    const auto& group = table_.groups()[g];
    const int ranks = grid_.ranks_over(group.reduce_over), wide = size_of(accum_of(group.type));
    const PartBorders borders = part_borders(table_, g, ranks);
    const std::int64_t mine = borders.elements[1], blocks = borders.blocks[1];
    const bool of_experts = group.reduce_over == ReduceOver::data_beside_experts;
    const std::string of = of_experts ? " of experts" : "";
    if (ranks > 1) {
      const std::int64_t part = largest_part(table_, g, ranks) * wide;
      const int sums = config_.zero == 2 ? config_.microbatches_of_rank() : 1;
      send("gradients" + of, sums * (group.elements - mine) * wide,
           sums * TreeSum::pieces(ranks, part, config_.bucket));
      send("weights" + of, mine * (ranks - 1) * size_of(group.type));
      send(of_experts ? "beside experts" : "copies",
           blocks * (ranks - 1) * std::int64_t{sizeof(double)});
    }
    const int replicas = ReplicaSum::replicas(grid_, group);
    if (replicas > 1) {
      const std::int64_t room = ReplicaSum::workspace_bytes(grid_, table_) / wide;
      send("replicas", ordered_sum_sent(replicas, 0, mine, room) * wide, 2);
    }
  }

  // Three of each microbatch, and how many there are.
  void losses() {
    const int ranks = C_ * config_.degrees.data;
    if (ranks > 1) {
      const std::int64_t mine = 3 * sizeof(double) * config_.microbatches_of_rank();
      send("copies", mine * (ranks - 1) + std::int64_t{sizeof(std::int64_t)}, 2);
    }
  }

  const RunConfig& config_;
  const ModelConfig& model_;
  const ParameterTable& table_;
  ProcessGrid grid_;
  int n_, C_, S_, piece_;
  std::int64_t T_, rows_;
  int storage_, real_;
  TrafficPlan plan_;
};

}  // namespace

std::int64_t TrafficPlan::bytes() const {
  std::int64_t sum = 0;
  for (const Line& line : lines) {
    sum += line.bytes;
  }
  return sum;
}

std::int64_t TrafficPlan::calls() const {
  std::int64_t sum = 0;
  for (const Line& line : lines) {
    sum += line.calls;
  }
  return sum;
}

TrafficPlan plan_traffic(const RunConfig& config, const ParameterTable& table) {
  return Planner(config, table).plan();
}

}  // namespace qnext
