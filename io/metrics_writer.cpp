// SPDX-License-Identifier: Apache-2.0
#include "io/metrics_writer.hpp"

#include "core/require.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>

namespace qnext {
namespace {

std::string json_line(std::int64_t step, const std::vector<Metric>& metrics) {
  std::string line = fmt::format("{{\"step\": {}", step);
  for (const auto& [name, value] : metrics) {
    line += std::isfinite(value) ? fmt::format(", \"{}\": {}", name, value)
                                 : fmt::format(", \"{}\": null", name);
  }
  return line + "}\n";
}

[[noreturn]] void cannot_write(const std::string& path) {
  // A buffer that failed to empty before has kept no reason.
  throw EnvironmentError(
      fmt::format("{}: cannot be written: {}", path,
                  errno != 0 ? std::strerror(errno) : "an earlier write failed"));
}

void open(std::ofstream& file, const std::string& path, std::ios::openmode mode) {
  errno = 0;
  file.open(path, mode);
  if (!file) {
    cannot_write(path);
  }
}

}  // namespace

MetricsWriter::MetricsWriter(std::string folder, std::vector<std::string> columns,
                             std::int64_t last_step)
    : lines_path_(folder + "/metrics.jsonl"),
      table_path_(folder + "/metrics.csv"),
      columns_(std::move(columns)) {
  open(table_, table_path_, std::ios::trunc);
  table_ << "step," << fmt::format("{}\n", fmt::join(columns_, ","));
  resume(last_step);
  open(lines_, lines_path_, std::ios::app);
  flush();
}

// Keeps the lines up to `last_step`; steps rise, so that the first one behind it ends them. They
// are copied aside and renamed, because a run may be killed here as well.
void MetricsWriter::resume(std::int64_t last_step) {
  std::ifstream old(lines_path_);
  if (!old) {
    return;
  }
  const std::string aside = lines_path_ + ".part";
  std::ofstream kept;
  open(kept, aside, std::ios::trunc);
  for (std::string line; std::getline(old, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer() ||
        record["step"].get<std::int64_t>() > last_step) {
      break;
    }
    kept << line << "\n";
    std::vector<Metric> metrics;
    for (const std::string& name : columns_) {
      if (record.contains(name)) {
        const auto& value = record[name];
        metrics.emplace_back(name, value.is_number() ? value.get<double>() : std::nan(""));
      }
    }
    write_row(record["step"].get<std::int64_t>(), metrics);
  }
  kept.close();
  if (!kept) {
    cannot_write(aside);
  }
  std::filesystem::rename(aside, lines_path_);
}

void MetricsWriter::write_row(std::int64_t step, const std::vector<Metric>& metrics) {
  std::string row = std::to_string(step);
  for (const std::string& column : columns_) {
    const auto found = std::find_if(metrics.begin(), metrics.end(),
                                    [&](const Metric& metric) { return metric.first == column; });
    row += found == metrics.end() ? "," : fmt::format(",{}", found->second);
  }
  table_ << row << "\n";
}

void MetricsWriter::write(std::int64_t step, const std::vector<Metric>& metrics) {
  for (const auto& [name, value] : metrics) {
    require(std::find(columns_.begin(), columns_.end(), name) != columns_.end(),
            fmt::format("the metric {} is not among the columns", name));
  }
  lines_ << json_line(step, metrics);
  write_row(step, metrics);
}

void MetricsWriter::flush() {
  errno = 0;
  if (!lines_.flush()) {
    cannot_write(lines_path_);
  }
  if (!table_.flush()) {
    cannot_write(table_path_);
  }
}

}  // namespace qnext
