// SPDX-License-Identifier: Apache-2.0
//
//   fuzz_NAME [--runs N] [--seconds S] [--from I]
//
// Gives the seeds and then mutated inputs I, I + 1, ... to a target, until there were N or S
// seconds are over. What ends the program is named by its number, which `--from I --runs 1` gives
// again.
#include "tests/fuzz/mutation.hpp"
#include "tests/fuzz/target.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

extern "C" void __sanitizer_set_death_callback(void (*)()) __attribute__((weak));

namespace {

volatile std::uint64_t current = 0;

void tell() {
  std::fprintf(stderr, "fuzz: input %llu: --from %llu --runs 1\n",
               static_cast<unsigned long long>(current), static_cast<unsigned long long>(current));
}

void tell_and_abort(int signal) {
  tell();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::uint64_t option(int argc, char** argv, const char* name, std::uint64_t otherwise) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (std::strcmp(argv[i], name) == 0) {
      return std::strtoull(argv[i + 1], nullptr, 10);
    }
  }
  return otherwise;
}

void run(const std::string& input) {
  // Memory of exactly this size, so that a sanitizer sees one byte too many.
  const std::vector<std::uint8_t> bytes(input.begin(), input.end());
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t runs = option(argc, argv, "--runs", ~std::uint64_t{0});
  const std::uint64_t seconds = option(argc, argv, "--seconds", 60 * 60 * 24);
  const std::uint64_t from = option(argc, argv, "--from", 0);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(tell);
  } else {
    std::signal(SIGSEGV, tell_and_abort);
  }
  std::signal(SIGABRT, tell_and_abort);
  const auto seeds = qnext::fuzz::seeds(), words = qnext::fuzz::words();
  for (const std::string& seed : seeds) {
    run(seed);
  }
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  std::uint64_t done = 0, slowest = 0;
  double longest = 0.0;  // seconds: who is hostile may also waste time
  for (; done < runs && std::chrono::steady_clock::now() < end; ++done) {
    current = from + done;
    const std::string input = qnext::fuzz::mutated(seeds, words, current);
    const auto begin = std::chrono::steady_clock::now();
    run(input);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (taken.count() > longest) {
      longest = taken.count();
      slowest = current;
    }
  }
  std::printf("fuzz: %zu seeds and %llu inputs without a report; %.3f seconds for input %llu\n",
              seeds.size(), static_cast<unsigned long long>(done), longest,
              static_cast<unsigned long long>(slowest));
}
