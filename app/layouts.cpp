// SPDX-License-Identifier: Apache-2.0
#include "app/layouts.hpp"

#include "app/bytes.hpp"
#include "app/degrees.hpp"

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

bool better(const Layout& a, const Layout& b) {
  if (a.fits != b.fits) {
    return a.fits;
  }
  return a.fits ? a.step.seconds() < b.step.seconds() : a.memory < b.memory;
}

}  // namespace

PipelineCut cut_of(const RunConfig& config, int stages) {
  return {stages, 1, balanced_cut(config.model, stages, 1, config.data.sequence)};
}

std::int64_t memory_of_rank(const RunConfig& config, const Machine& machine) {
  return config.run.memory_limit > 0 ? config.run.memory_limit : machine.memory;
}

std::vector<Layout> find_layouts(const RunConfig& config, int ranks, const Machine& machine,
                                 std::int64_t memory, int documents) {
  std::vector<Layout> layouts;
  for (const Degrees& degrees : candidates(ranks, config.model.layer.experts.experts)) {
    if (!fits(degrees, config.model,
              {config.data.sequence, config.data.batch, config.data.microbatch})) {
      continue;
    }
    RunConfig tried = config;
    tried.degrees = degrees;
    tried.pipeline = cut_of(config, degrees.pipeline);
    const ModelPlan plan = plan_model(tried, documents);
    Layout layout{degrees, predict_step(tried, plan, machine), plan.largest().total()};
    layout.fits = memory == 0 || layout.memory <= memory;
    layouts.push_back(layout);
  }
  std::stable_sort(layouts.begin(), layouts.end(), better);
  return layouts;
}

std::string layout_table(const std::vector<Layout>& layouts, int count) {
  std::string text = fmt::format(
      "{} layouts divide it, the best first\n"
      "  tensor context pipeline expert data   step, s    tokens/s  messages  bubble  "
      "memory of a rank\n",
      layouts.size());
  for (const Layout& each : layouts) {
    if (count-- == 0) {
      break;
    }
    const Degrees& d = each.degrees;
    const double seconds = each.step.seconds();
    text += fmt::format(
        "  {:>6} {:>7} {:>8} {:>6} {:>4} {:>9.4g} {:>11.0f} {:>8.1f}% {:>6.1f}%  {}{}\n", d.tensor,
        d.context, d.pipeline, d.expert, d.data, seconds, each.step.tokens_per_second(),
        100.0 * each.step.messages / seconds, 100.0 * each.step.bubble / seconds,
        format_bytes(each.memory), each.fits ? "" : "  too much");
  }
  return text;
}

}  // namespace qnext
