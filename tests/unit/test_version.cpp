// SPDX-License-Identifier: Apache-2.0
#include "core/version.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

TEST(Version, NamesWhatWasBuilt) {
  const Version v = version();
  EXPECT_EQ(v.version.substr(0, 2), "0.");
  EXPECT_FALSE(v.commit.empty());
  EXPECT_TRUE(v.backend == "serial" || v.backend == "openmp" || v.backend == "cuda" ||
              v.backend == "hip")
      << v.backend;
  EXPECT_NE(v.compiler.find(' '), std::string_view::npos) << v.compiler;
  EXPECT_NE(v.flags.find("-Wall"), std::string_view::npos) << v.flags;
}

}  // namespace
}  // namespace qnext
