// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "parallel/communicator.hpp"

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

namespace qnext {

/// What the progress of a run is told with.
struct Progress {
  std::int64_t step = 0;
  std::int64_t steps = 0;
  double loss = 0.0;
  double tokens_per_second = 0.0;
  double mfu = 0.0;         // 0: the peak is not known
  std::int64_t memory = 0;  // bytes
  double seconds_left = 0.0;
};

std::string format_progress(const Progress& progress);

/// "1:02:03"
std::string format_seconds(double seconds);

/// The log of a run: lines go to standard output and to a file that is appended to. On a terminal
/// progress is one line that is written over; otherwise it is a line for each interval.
class RunLog {
 public:
  /// Of many ranks the first one speaks; the lines of the others are the same and go nowhere. What
  /// launchers make of standard output looks like a terminal and is none.
  RunLog(const std::filesystem::path& file, const Communicator& world);

  void line(const std::string& text);

  /// `interval`: whether this step belongs into the file.
  void progress(const Progress& progress, bool interval);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::unique_ptr<std::FILE, Close> file_;
  bool terminal_;
  bool live_line_ = false;  // the cursor stands behind a progress line
};

}  // namespace qnext
