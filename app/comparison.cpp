// SPDX-License-Identifier: Apache-2.0
#include "app/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace qnext {
namespace {

constexpr double unbounded = std::numeric_limits<double>::infinity();

double log_sum_exp(const double* row, int V) {
  const double largest = *std::max_element(row, row + V);
  double sum = 0.0;
  for (int v = 0; v < V; ++v) {
    sum += std::exp(row[v] - largest);
  }
  return largest + std::log(sum);
}

}  // namespace

void Comparison::judge(const std::string& what, double difference, double bound) {
  lines_.push_back({what, difference, bound, difference <= bound});
}

void Comparison::report(const std::string& what, double value) {
  lines_.push_back({what, value, unbounded, true});
}

void Comparison::note(const std::string& sentence) {
  lines_.push_back({sentence, std::numeric_limits<double>::quiet_NaN(), unbounded, true});
}

int Comparison::failures() const {
  return static_cast<int>(
      std::count_if(lines_.begin(), lines_.end(), [](const Line& line) { return !line.passed; }));
}

bool Comparison::passed() const {
  return failures() == 0;
}

std::string Comparison::table() const {
  std::string text = fmt::format("{:<66} {:>11} {:>11}\n", "what", "difference", "bound");
  for (const Line& line : lines_) {
    if (std::isnan(line.difference) && line.passed) {
      text += line.what + "\n";
    } else if (line.bound == unbounded) {
      text += fmt::format("{:<66} {:>11.3g} {:>11}  reported\n", line.what, line.difference, "-");
    } else {
      text += fmt::format("{:<66} {:>11.3g} {:>11.3g}  {}\n", line.what, line.difference,
                          line.bound, line.passed ? "pass" : "FAIL");
    }
  }
  return text;
}

double largest_difference(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) {
    return unbounded;
  }
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (std::isnan(difference)) {
      return difference;
    }
    largest = std::max(largest, difference);
  }
  return largest;
}

double largest_magnitude(const std::vector<double>& a) {
  return largest_difference(a, std::vector<double>(a.size(), 0.0));
}

double largest_divergence(const std::vector<double>& golden, const std::vector<double>& model,
                          int V) {
  if (golden.size() != model.size()) {
    return unbounded;
  }
  double largest = 0.0;
  for (std::size_t row = 0; row < golden.size(); row += V) {
    const double golden_sum = log_sum_exp(&golden[row], V), model_sum = log_sum_exp(&model[row], V);
    double divergence = 0.0;
    for (int v = 0; v < V; ++v) {
      const double log_p = golden[row + v] - golden_sum, log_q = model[row + v] - model_sum;
      divergence += std::exp(log_p) * (log_p - log_q);
    }
    if (std::isnan(divergence)) {
      return divergence;
    }
    largest = std::max(largest, divergence);
  }
  return largest;
}

}  // namespace qnext
