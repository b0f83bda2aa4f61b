// SPDX-License-Identifier: Apache-2.0
#include "app/layouts.hpp"

#include "app/bytes.hpp"
#include "app/degrees.hpp"
#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace qnext {
namespace {

std::vector<int> divisors(int n) {
  std::vector<int> found;
  for (int d = 1; d <= n; ++d) {
    if (n % d == 0) {
      found.push_back(d);
    }
  }
  return found;
}

// Every way to write the ranks as tensor x context x pipeline x data, with every expert degree.
std::vector<Degrees> candidates(int ranks, int experts) {
  std::vector<Degrees> all;
  for (const int tensor : divisors(ranks)) {
    for (const int context : divisors(ranks / tensor)) {
      for (const int pipeline : divisors(ranks / tensor / context)) {
        const int data = ranks / tensor / context / pipeline;
        for (const int expert : divisors(std::gcd(experts, tensor * context * data))) {
          all.push_back({tensor, context, pipeline, expert, data});
        }
      }
    }
  }
  return all;
}

// Every piece but the last has a layer, and several chunks want a microbatch for each stage.
int most_chunks(const RunConfig& config, const Degrees& degrees) {
  const int stages = degrees.pipeline, microbatches = config.data.microbatches() / degrees.data;
  return stages == 1 || microbatches < stages ? 1 : (config.model.layers() + 1) / stages;
}

PipelineCut cut_of(const RunConfig& config, int stages, int chunks) {
  return {stages, chunks, balanced_cut(config.model, stages, chunks, config.data.sequence)};
}

bool better(const Layout& a, const Layout& b) {
  if (a.fits != b.fits) {
    return a.fits;
  }
  return a.fits ? a.step.seconds() < b.step.seconds() : a.memory < b.memory;
}

}  // namespace

std::int64_t memory_of_rank(const RunConfig& config, const Machine& machine) {
  return config.run.memory_limit > 0 ? config.run.memory_limit : machine.memory;
}

std::vector<Layout> find_layouts(const RunConfig& config, int ranks, const Machine& machine,
                                 std::int64_t memory, int documents) {
  const auto layout_of = [&](const Degrees& degrees, int chunks) {
    RunConfig tried = config;
    tried.degrees = degrees;
    tried.pipeline = cut_of(config, degrees.pipeline, chunks);
    const ModelPlan plan = plan_model(tried, documents);
    Layout layout{degrees, chunks, predict_step(tried, plan, machine), plan.largest().total()};
    layout.fits = memory == 0 || layout.memory <= memory;
    return layout;
  };
  std::vector<Layout> layouts;
  for (const Degrees& degrees : candidates(ranks, config.model.layer.experts.experts)) {
    if (fits(degrees, config.model,
             {config.data.sequence, config.data.batch, config.data.microbatch})) {
      layouts.push_back(layout_of(degrees, 1));
    }
  }
  std::stable_sort(layouts.begin(), layouts.end(), better);
  // More chunks save some of the bubble and cost messages and memory.
  for (std::size_t i = 0, ways = layouts.size(); i < ways; ++i) {
    const Degrees degrees = layouts[i].degrees;
    Layout last = layouts[i];
    for (int chunks = 2; chunks <= most_chunks(config, degrees) && last.fits &&
                         last.step.seconds() - last.step.bubble < layouts[0].step.seconds();
         chunks *= 2) {
      last = layout_of(degrees, chunks);
      layouts.push_back(last);
    }
  }
  std::stable_sort(layouts.begin(), layouts.end(), better);
  return layouts;
}

std::vector<Layout> choose_layout(RunConfig& config, int ranks, int documents) {
  const Machine machine = machine_of(config);
  auto layouts = find_layouts(config, ranks, machine, memory_of_rank(config, machine), documents);
  if (layouts.empty()) {
    throw InputError(
        fmt::format("no way to share out {} ranks divides this model and its data", ranks));
  }
  const Layout& best = layouts.front();
  config.degrees = best.degrees;
  config.pipeline = cut_of(config, best.degrees.pipeline, best.chunks);
  return layouts;
}

std::string layout_table(const std::vector<Layout>& layouts, int count) {
  std::string text = fmt::format(
      "{} layouts divide it, the best first\n"
      "  tensor context pipeline expert data chunks   step, s    tokens/s  messages  bubble  "
      "memory of a rank\n",
      layouts.size());
  for (const Layout& each : layouts) {
    if (count-- == 0) {
      break;
    }
    const Degrees& d = each.degrees;
    const double seconds = each.step.seconds();
    text += fmt::format(
        "  {:>6} {:>7} {:>8} {:>6} {:>4} {:>6} {:>9.4g} {:>11.0f} {:>8.1f}% {:>6.1f}%  {}{}\n",
        d.tensor, d.context, d.pipeline, d.expert, d.data, each.chunks, seconds,
        each.step.tokens_per_second(), 100.0 * each.step.messages / seconds,
        100.0 * each.step.bubble / seconds, format_bytes(each.memory),
        each.fits ? "" : "  too much");
  }
  return text;
}

}  // namespace qnext
