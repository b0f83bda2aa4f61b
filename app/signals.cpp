// SPDX-License-Identifier: Apache-2.0
#include "app/signals.hpp"

#include <csignal>
#include <signal.h>

namespace qnext {
namespace {

constexpr int kinds[] = {SIGTERM, SIGUSR1, SIGINT};

// A handler can reach nothing else.
volatile std::sig_atomic_t last_signal = 0;

extern "C" void remember_signal(int signal) {
  last_signal = signal;
}

}  // namespace

SignalGuard::SignalGuard() {
  last_signal = 0;
  struct sigaction action {};
  action.sa_handler = remember_signal;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  sigemptyset(&action.sa_mask);
  for (const int kind : kinds) {
    sigaction(kind, &action, nullptr);
  }
}

void ignore_file_size_signal() {
  std::signal(SIGXFSZ, SIG_IGN);
}

SignalGuard::~SignalGuard() {
  for (const int kind : kinds) {
    std::signal(kind, SIG_DFL);
  }
}

int SignalGuard::received() const {
  return last_signal;
}

const char* name_of_signal(int signal) {
  return signal == SIGTERM ? "SIGTERM" : signal == SIGUSR1 ? "SIGUSR1" : "SIGINT";
}

}  // namespace qnext
