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

  /// "SIGTERM", or null as long as none came.
  const char* received() const;
};

}  // namespace qnext
