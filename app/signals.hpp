// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace qnext {

/// While it lives, SIGTERM, SIGUSR1 and SIGINT ask the run to finish its step instead of ending the
/// program. A second signal of the same kind ends it at once.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;

  /// The last one, or 0 as long as none came.
  int received() const;
};

/// From here on a limit on the size of files is an error of the write that meets it, not the end of
/// the program.
void ignore_file_size_signal();

/// "SIGTERM"
const char* name_of_signal(int signal);

}  // namespace qnext
