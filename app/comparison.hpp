// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace qnext {

/// The outcome of holding computed numbers against known ones: a line for each thing compared.
class Comparison {
 public:
  struct Line {
    std::string what;
    double difference;
    double bound;  // infinite: reported, not judged
    bool passed;
  };

  /// Passes if difference <= bound; NaN never passes.
  void judge(const std::string& what, double difference, double bound);

  /// A number without a bound.
  void report(const std::string& what, double value);

  /// A sentence between the lines.
  void note(const std::string& sentence);

  bool passed() const;
  int failures() const;

  /// A table, with the worst line of each kind last.
  std::string table() const;

 private:
  std::vector<Line> lines_;
};

/// The largest |a_i - b_i|. NaN where one of them is NaN, infinite where the lengths differ.
double largest_difference(const std::vector<double>& a, const std::vector<double>& b);

/// The largest |a_i|.
double largest_magnitude(const std::vector<double>& a);

/// The largest over all rows of the Kullback-Leibler divergence, in nats, of softmax(golden) from
/// softmax(model); both (rows, V).
double largest_divergence(const std::vector<double>& golden, const std::vector<double>& model,
                          int V);

}  // namespace qnext
