// SPDX-License-Identifier: Apache-2.0
#include "app/memory_plan.hpp"

#include "app/activations.hpp"
#include "app/precision.hpp"
#include "core/matmul.hpp"
#include "parallel/replica_sum.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace qnext {
namespace {

// "work.layers.3.scores" -> "scores": one line for a tensor of all layers.
std::string last_name(const std::string& name) {
  const auto dot = name.rfind('.');
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

std::vector<MemoryPlan::Line> by_name(const std::vector<Arena::Entry>& entries) {
  std::map<std::string, std::int64_t> sums;
  for (const Arena::Entry& entry : entries) {
    sums[last_name(entry.name)] += entry.bytes;
  }
  std::vector<MemoryPlan::Line> lines;
  for (const auto& [name, bytes] : sums) {
    lines.push_back({name, bytes});
  }
  std::stable_sort(lines.begin(), lines.end(),
                   [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return lines;
}

struct ParameterBytes {
  std::int64_t weights = 0;
  std::int64_t gradients = 0;  // and each moment, and each level of the stack
  std::int64_t masters = 0;
};

ParameterBytes parameter_bytes(const ParameterTable& table) {
  ParameterBytes bytes;
  for (const auto& group : table.groups()) {
    const std::int64_t wide = group.elements * size_of(accum_of(group.type));
    bytes.weights += group.elements * size_of(group.type);
    bytes.gradients += wide;
    bytes.masters += group.type == DataType::bf16 ? wide : 0;
  }
  return bytes;
}

template <class Storage>
ModelPlan plan_of(const RunConfig& config, int documents) {
  ParameterTable table;
  const ProcessGrid grid{config.degrees};
  const Model<Storage> model(config.model, grid, table);
  Arena measure;
  Activations<Storage>::reserve(model, measure, config.shape(documents));

  ModelPlan plan;
  plan.parameters = table.global_elements();
  for (const Parameter& row : table.rows()) {
    plan.mtp_parameters += row.name.rfind("mtp.", 0) == 0 ? row.shard.global_elements() : 0;
  }
  const ParameterBytes bytes = parameter_bytes(table);
  const int levels = GradientSum::levels(config.run.gradient_order, config.data.microbatches());
  plan.memory.lines = {{"weights", bytes.weights},
                       {"gradients", bytes.gradients},
                       {"gradient stack", levels * bytes.gradients},
                       {"master weights", bytes.masters},
                       {"moments", 2 * bytes.gradients},
                       {"activations", measure.peak()},
                       {"gradients of replicas", ReplicaSum::workspace_bytes(grid, table)},
                       {"vendor workspace", matmul_workspace_bytes()}};
  plan.memory.activations = by_name(measure.at_peak());
  return plan;
}

struct PlanOf {
  const RunConfig& config;
  int documents;

  template <class Storage>
  ModelPlan operator()() const {
    return plan_of<Storage>(config, documents);
  }
};

}  // namespace

std::int64_t MemoryPlan::total() const {
  return std::accumulate(lines.begin(), lines.end(), std::int64_t{0},
                         [](std::int64_t sum, const Line& line) { return sum + line.bytes; });
}

ModelPlan plan_model(const RunConfig& config, int documents) {
  return with_storage(config.run.precision, PlanOf{config, documents});
}

}  // namespace qnext
