// SPDX-License-Identifier: Apache-2.0
#include "app/memory_plan.hpp"

#include "app/activations.hpp"
#include "app/gradient_window.hpp"
#include "app/precision.hpp"
#include "core/matmul.hpp"
#include "parallel/replica_sum.hpp"
#include "parallel/shards.hpp"
#include "parallel/tree_sum.hpp"

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
  std::int64_t gradients = 0;  // all of them
  std::int64_t part = 0;       // of them, of the rank that has most
  std::int64_t moments = 0;    // each of both, of the rank that has most
  std::int64_t masters = 0;
};

ParameterBytes parameter_bytes(const ParameterTable& table, const ProcessGrid& grid) {
  ParameterBytes bytes;
  for (std::size_t g = 0; g < table.groups().size(); ++g) {
    const auto& group = table.groups()[g];
    const int wide = size_of(accum_of(group.type));
    const std::int64_t part =
        largest_part(table, static_cast<int>(g), grid.ranks_over(group.reduce_over)) * wide;
    bytes.weights += group.elements * size_of(group.type);
    if (group.frozen) {
      continue;
    }
    bytes.gradients += group.elements * wide;
    bytes.part += part;
    bytes.moments += part;
    bytes.masters += group.type == DataType::bf16 ? part : 0;
  }
  return bytes;
}

template <class Storage>
void add_stage(const RunConfig& config, int documents, int stage, ModelPlan& plan) {
  ParameterTable table(config.bucket);
  ProcessGrid grid{config.degrees};
  grid.place.pipeline = stage;
  const Model<Storage> model(config.model, grid, table, config.pipeline.chunks_of(stage));
  const auto slots =
      most_in_flight(pipeline_schedule(config.pipeline_of_step(), stage), config.pipeline.chunks);
  const Arena measure = ActivationMemory<Storage>::plan(model, config.shape(documents), slots);
  for (const Parameter& row : table.rows()) {
    if (row.alias_of.empty() && (row.owner || !row.on_two_stages)) {
      const std::int64_t elements = row.shard.global_elements();
      plan.parameters += elements;
      plan.trained += row.frozen ? 0 : elements;
      plan.mtp_parameters += row.name.rfind("mtp.", 0) == 0 ? elements : 0;
    }
  }
  const ParameterBytes bytes = parameter_bytes(table, grid);
  const int levels = GradientSum::levels(config.run.gradient_order, config.microbatches_of_rank());
  const bool parts = config.zero == 2;
  const std::int64_t window =
      parts ? GradientWindow(table, model.backward_pieces()).bytes : bytes.gradients;
  MemoryPlan& memory = plan.stages.emplace_back();
  memory.lines = {
      {"weights", bytes.weights},
      {"gradients", window + (parts ? bytes.part : 0)},
      {"gradient stack", levels * (parts ? bytes.part : bytes.gradients)},
      {"master weights", bytes.masters},
      {"moments", 2 * bytes.moments},
      {"parts of gradients from other ranks", TreeSum::workspace_bytes(grid, table, config.bucket)},
      {"activations", measure.peak()},
      {"gradients of replicas", ReplicaSum::workspace_bytes(grid, table)},
      {"vendor workspace", matmul_planned_workspace_bytes(config.run.precision)}};
  memory.activations = by_name(measure.at_peak());
  plan.local_elements = std::max(plan.local_elements, table.local_elements());
  if (stage == 0) {
    plan.traffic = plan_traffic(config, table);
  }
}

struct PlanOf {
  const RunConfig& config;
  int documents;

  template <class Storage>
  ModelPlan operator()() const {
    ModelPlan plan;
    for (int stage = 0; stage < config.degrees.pipeline; ++stage) {
      add_stage<Storage>(config, documents, stage, plan);
    }
    return plan;
  }
};

}  // namespace

std::int64_t MemoryPlan::total() const {
  return std::accumulate(lines.begin(), lines.end(), std::int64_t{0},
                         [](std::int64_t sum, const Line& line) { return sum + line.bytes; });
}

const MemoryPlan& ModelPlan::largest() const {
  return *std::max_element(
      stages.begin(), stages.end(),
      [](const MemoryPlan& a, const MemoryPlan& b) { return a.total() < b.total(); });
}

ModelPlan plan_model(const RunConfig& config, int documents) {
  return with_storage(config.run.precision, PlanOf{config, documents});
}

}  // namespace qnext
