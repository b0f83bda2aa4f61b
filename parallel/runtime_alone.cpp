// SPDX-License-Identifier: Apache-2.0
#include "parallel/runtime.hpp"

#include <cstdio>

namespace qnext {

struct Runtime::Alarm {};

Runtime::Runtime(int&, char**&) {}
Runtime::~Runtime() = default;

int Runtime::fail(Status status, const std::string& message) const {
  std::fprintf(stderr, "qnext: %s\n", message.c_str());
  return static_cast<int>(status);
}

std::string Runtime::library() {
  return "none";
}

}  // namespace qnext
