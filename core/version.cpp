// SPDX-License-Identifier: Apache-2.0
#include "core/version.hpp"

#include "core/version_values.hpp"

namespace qnext {

Version version() {
  using namespace version_values;
  return {.version = version_values::version,
          .commit = commit,
          .backend = backend,
          .compiler = compiler,
          .flags = flags};
}

}  // namespace qnext
