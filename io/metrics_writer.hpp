// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qnext {

/// One number of a record: name and value.
using Metric = std::pair<std::string_view, double>;

/// The numbers of each step, as `metrics.jsonl` and `metrics.csv` in the folder of a run:
///
///     {"step": 10, "loss": 2.25, "evaluation_loss": null}
///
/// A number that is not finite is null there and nan, inf or -inf in the table. A metric that a
/// record lacks is absent there and an empty cell in the table.
class MetricsWriter {
 public:
  /// `columns` are all names that a record may have, without the step. What the folder holds of
  /// steps after `last_step` (0: a run from the start) or of a line that was cut off is removed, so
  /// that steps only rise; the table is written again from the lines.
  MetricsWriter(std::string folder, std::vector<std::string> columns, std::int64_t last_step);

  void write(std::int64_t step, const std::vector<Metric>& metrics);

  /// Hands everything to the system; throws EnvironmentError when it does not take it.
  void flush();

 private:
  void write_row(std::int64_t step, const std::vector<Metric>& metrics);
  void resume(std::int64_t last_step);

  std::string lines_path_, table_path_;
  std::vector<std::string> columns_;
  std::ofstream lines_, table_;
};

}  // namespace qnext
