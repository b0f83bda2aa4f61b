// SPDX-License-Identifier: Apache-2.0
#include "app/bytes.hpp"
#include "app/commands.hpp"
#include "app/run_log.hpp"
#include "app/signals.hpp"
#include "io/hash.hpp"
#include "io/mapped_file.hpp"
#include "io/text/document.hpp"
#include "io/text/record_input.hpp"
#include "io/token_writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <thread>
#include <unistd.h>
#include <vector>

namespace qnext {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::size_t largest_batch = 8 << 20;  // bytes of text that threads share at once

bool is_input(const std::string& name) {
  const auto ends = [&](const std::string& suffix) {
    return name.ends_with(suffix) || name.ends_with(suffix + ".gz") ||
           name.ends_with(suffix + ".zst");
  };
  return ends(".txt") || ends(".jsonl") || ends(".json");
}

// A folder stands for its texts in the order of their names.
std::vector<std::string> inputs_of(const std::string& from) {
  if (!fs::exists(from)) {
    throw InputError(from + ": there is no such file or folder");
  }
  if (!fs::is_directory(from)) {
    return {from};
  }
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(from)) {
    if (entry.is_regular_file() && is_input(entry.path().filename())) {
      files.push_back(entry.path());
    }
  }
  if (files.empty()) {
    throw InputError(from + ": holds no .txt, .jsonl or .json, packed with gzip or zstd or not");
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::optional<int> end_token(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  if (options.end == "none") {
    return std::nullopt;
  }
  const std::optional<int> end = tokenizer.added_token(options.end);
  if (!end) {
    throw InputError(fmt::format("--end {}: {} has no such added token; none writes none",
                                 options.end, tokenizer.path()));
  }
  return end;
}

/// One line that is written over on a terminal, a line each ten seconds elsewhere.
class Told {
 public:
  explicit Told(std::int64_t bytes) : bytes_(bytes), terminal_(::isatty(STDERR_FILENO) == 1) {}

  void tell(std::int64_t used, const TokenProgress& progress) {
    const double now = std::chrono::duration<double>(Clock::now() - begin_).count();
    if (now - told_ < (terminal_ ? 0.2 : 10.0)) {
      return;
    }
    told_ = now;
    if (first_used_ < 0) {
      first_used_ = used;
      first_seconds_ = now;
    }
    const double rate = now > first_seconds_
                            ? static_cast<double>(used - first_used_) / (now - first_seconds_)
                            : 0.0;
    const std::string left =
        rate > 0.0 ? format_seconds(static_cast<double>(bytes_ - used) / rate) : "?";
    std::fputs(fmt::format("{}{} of {}: documents={} tokens={} left={}{}",
                           terminal_ ? "\r\033[K" : "", format_bytes(used), format_bytes(bytes_),
                           progress.documents, progress.tokens, left, terminal_ ? "" : "\n")
                   .c_str(),
               stderr);
  }

  void end() const {
    if (terminal_ && told_ > 0.0) {
      std::fputs("\r\033[K", stderr);
    }
  }

 private:
  std::int64_t bytes_;
  bool terminal_;
  Clock::time_point begin_ = Clock::now();
  double told_ = 0.0, first_seconds_ = 0.0;
  std::int64_t first_used_ = -1;
};

class Tokenization {
 public:
  explicit Tokenization(const TokenizeOptions& options)
      : options_(options),
        files_(inputs_of(options.from)),
        tokenizer_(Tokenizer::read(options.tokenizer)),
        style_(options.chat.empty() ? chat_style_of(options.tokenizer)
                                    : chat_style_named(options.chat)),
        end_(end_token(options, tokenizer_)),
        writer_(options.to, tokenizer_.size(), settings()) {
    const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
    for (unsigned i = 0; i < (options.threads > 0 ? unsigned(options.threads) : cores); ++i) {
      encoders_.emplace_back(tokenizer_, style_, end_);
    }
  }

  Status run() {
    const TokenProgress start = writer_.progress();
    if (writer_.resumed()) {
      print(fmt::format("goes on behind {} documents", start.documents));
    }
    Told told(total_bytes());
    std::int64_t before = 0;  // bytes of the files before this one
    for (std::int64_t f = 0; f < static_cast<std::int64_t>(files_.size()); ++f) {
      if (f >= start.file && !tokenize_file(f, f == start.file ? start.records : 0, before, told)) {
        told.end();
        print(fmt::format("{}: the same command goes on behind {} documents",
                          name_of_signal(signals_.received()), writer_.progress().documents));
        return Status::interrupted;
      }
      before += static_cast<std::int64_t>(fs::file_size(files_[f]));
    }
    told.end();
    writer_.finish();
    summary();
    return Status::done;
  }

 private:
  static void print(const std::string& text) { std::fputs((text + "\n").c_str(), stdout); }

  // Behind the records that are done. False where a signal ends it.
  bool tokenize_file(std::int64_t f, std::int64_t done, std::int64_t before, Told& told) {
    RecordInput input(files_[f], options_.separator);
    std::int64_t records = skip(input, done);
    while (read(input)) {
      encode(input);
      for (const Document& document : documents_) {
        writer_.add(document);
      }
      records += static_cast<std::int64_t>(records_.size());
      told.tell(before + input.used(), writer_.progress());
      const bool stop = signals_.received() != 0;
      if (stop || unsaved_ >= options_.save_every * 1e6) {
        writer_.save(f, records);
        unsaved_ = 0.0;
      }
      if (stop) {
        return false;
      }
    }
    return true;
  }

  // Of all that decides the bytes.
  std::string settings() const {
    Hash hash;
    const auto add = [&](const std::string& text) {
      const std::string sized = fmt::format("{}:{}", text.size(), text);
      hash.add(sized.data(), sized.size());
    };
    const MappedFile file(tokenizer_.path());
    hash.add(file.data(), static_cast<std::size_t>(file.size()));
    add(name_of(style_));
    add(options_.end);
    add(options_.separator);
    for (const std::string& name : files_) {
      add(name);
      add(std::to_string(fs::file_size(name)));
      add(std::to_string(fs::last_write_time(name).time_since_epoch().count()));
    }
    return hash.digits();
  }

  std::int64_t total_bytes() const {
    std::int64_t bytes = 0;
    for (const std::string& name : files_) {
      bytes += static_cast<std::int64_t>(fs::file_size(name));
    }
    return bytes;
  }

  static std::int64_t skip(RecordInput& input, std::int64_t count) {
    std::string record;
    for (std::int64_t i = 0; i < count; ++i) {
      input.next(record);
    }
    return count;
  }

  // Fills the next batch; false at the end of the file.
  bool read(RecordInput& input) {
    records_.clear();
    lines_.clear();
    const auto most = static_cast<std::size_t>(
        std::min(static_cast<double>(largest_batch), options_.save_every * 1e6));
    std::size_t bytes = 0;
    std::string record;
    while ((bytes == 0 || bytes < most) && input.next(record)) {
      bytes += record.size();
      records_.push_back(std::move(record));
      lines_.push_back(input.line());
    }
    unsaved_ += static_cast<double>(bytes);
    return !records_.empty();
  }

  // Threads take record after record; the documents keep their order. Of several errors the first
  // in the file is told.
  void encode(const RecordInput& input) {
    documents_.assign(records_.size(), {});
    std::vector<std::exception_ptr> errors(records_.size());
    std::atomic<std::size_t> next{0};
    const auto work = [&](DocumentEncoder& encoder) {
      for (std::size_t i = next++; i < records_.size(); i = next++) {
        try {
          documents_[i] = encoder.encode(records_[i], input.jsonl(),
                                         fmt::format("{}:{}", input.path(), lines_[i]));
        } catch (...) {
          errors[i] = std::current_exception();
        }
      }
    };
    std::vector<std::thread> threads;
    for (std::size_t t = 1; t < std::min(encoders_.size(), records_.size()); ++t) {
      threads.emplace_back([&, t] { work(encoders_[t]); });
    }
    work(encoders_.front());
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const std::exception_ptr& error : errors) {
      if (error) {
        std::rethrow_exception(error);
      }
    }
  }

  void summary() const {
    const TokenProgress& progress = writer_.progress();
    const bool masked = progress.learnt < progress.tokens;
    print(fmt::format("{}: documents={} tokens={} learnt={} chat={} end={}", options_.to,
                      progress.documents, progress.tokens, progress.learnt, name_of(style_),
                      options_.end));
    print(fmt::format("{0}.bin {0}.idx{1}", options_.to,
                      masked ? fmt::format(" {}.mask", options_.to) : ""));
  }

  const TokenizeOptions& options_;
  SignalGuard signals_;
  std::vector<std::string> files_;
  Tokenizer tokenizer_;
  ChatStyle style_;
  std::optional<int> end_;
  TokenWriter writer_;
  std::vector<DocumentEncoder> encoders_;  // one for each thread
  std::vector<std::string> records_;       // of this batch
  std::vector<std::int64_t> lines_;        // that they begin with
  std::vector<Document> documents_;
  double unsaved_ = 0.0;  // bytes of text
};

}  // namespace

Status tokenize(const TokenizeOptions& options) {
  if (options.save_every <= 0.0) {
    throw InputError(fmt::format("--save-every {}: must be above 0", options.save_every));
  }
  return Tokenization(options).run();
}

}  // namespace qnext
