// SPDX-License-Identifier: Apache-2.0
#include "app/run_log.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <unistd.h>

namespace qnext {

std::string format_seconds(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::lround(seconds));
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string format_progress(const Progress& p) {
  std::string text = fmt::format("step={}/{} loss={:.4f} tokens_per_second={:.0f}", p.step, p.steps,
                                 p.loss, p.tokens_per_second);
  if (p.mfu > 0.0) {
    text += fmt::format(" mfu={:.3f}", p.mfu);
  }
  return text + fmt::format(" memory={:.2f}GiB left={}", static_cast<double>(p.memory) / 0x1p30,
                            format_seconds(p.seconds_left));
}

RunLog::RunLog(const std::filesystem::path& file, const Communicator& world)
    : terminal_(world.ranks() == 1 && isatty(STDOUT_FILENO) != 0) {
  if (!world.first()) {
    return;
  }
  file_.reset(std::fopen(file.c_str(), "a"));
  if (!file_) {
    throw EnvironmentError(file.string() + ": cannot be written: " + std::strerror(errno));
  }
}

void RunLog::line(const std::string& text) {
  if (!file_) {
    return;
  }
  std::fputs((live_line_ ? "\n" + text + "\n" : text + "\n").c_str(), stdout);
  std::fflush(stdout);
  live_line_ = false;
  std::fputs((text + "\n").c_str(), file_.get());
  std::fflush(file_.get());
}

void RunLog::progress(const Progress& progress, bool interval) {
  if (!file_) {
    return;
  }
  const std::string text = format_progress(progress);
  if (terminal_) {
    std::fputs(("\r\033[K" + text).c_str(), stdout);
    std::fflush(stdout);
    live_line_ = true;
  }
  if (!interval) {
    return;
  }
  if (!terminal_) {
    std::fputs((text + "\n").c_str(), stdout);
    std::fflush(stdout);
  }
  std::fputs((text + "\n").c_str(), file_.get());
  std::fflush(file_.get());
}

}  // namespace qnext
