// SPDX-License-Identifier: Apache-2.0
#include "core/version.hpp"

#include <cstdio>
#include <string>

int main() {
  const qnext::Version v = qnext::version();
  std::printf("qnext %s\n", std::string(v.version).c_str());
  return v.version.empty() ? 1 : 0;
}
