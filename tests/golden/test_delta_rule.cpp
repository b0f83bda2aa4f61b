// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5_file.hpp"
#include "tests/delta_rule_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::DeltaRuleCase;
using test::to_host;
using Numbers = std::vector<double>;

// Bounds of golden/README.md, relative to the largest element of each tensor. Double: a hundred
// times the difference between the two forms. Float: ten times the error of the reference.
constexpr double of_double = 1e-12, of_float_chunked = 2e-5, of_float_recurrent = 2e-6;

void expect_close(const std::string& what, const Numbers& actual, const Numbers& expected,
                  double bound) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double largest = 0.0, worst = 0.0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_TRUE(std::isfinite(actual[i])) << what << ", element " << i;
    largest = std::max(largest, std::abs(expected[i]));
    worst = std::max(worst, std::abs(actual[i] - expected[i]));
  }
  EXPECT_LE(worst, bound * largest) << what;
}

// One group of delta_rule.h5. The file has q before its scale, and but in the case `plain` q and k
// before their norm; the layer does both in its convolution.
class Golden : public testing::TestWithParam<std::string> {
 protected:
  const Hdf5File file{std::string(std::getenv("QNEXT_SHARED")) + "/golden/delta_rule.h5"};
  Numbers read(const std::string& name) const {
    return file.read_dataset<double>("/" + GetParam() + "/" + name).values;
  }
  const bool norm = GetParam() != "plain";

  reference::DeltaRuleShape shape() const {
    const auto starts = read("document_starts");
    const auto q = file.describe("/" + GetParam() + "/q").extents;
    const auto v = file.describe("/" + GetParam() + "/v").extents;
    reference::DeltaRuleShape n{{}, int(q[1]), int(v[1]), int(q[2]), int(v[2])};
    for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
      n.lengths.push_back(int(starts[i + 1] - starts[i]));
    }
    return n;
  }

  // 1 / sqrt(|x|^2 + 1e-6) of a row, or 1.
  double inverse_length(const Numbers& x, std::size_t row, int K) const {
    double squares = 1e-6;
    for (int i = 0; i < K; ++i) {
      squares += x[row + i] * x[row + i];
    }
    return norm ? 1.0 / std::sqrt(squares) : 1.0;
  }
  Numbers prepared(Numbers x, int K, double scale) const {
    for (std::size_t row = 0; row < x.size(); row += K) {
      const double factor = scale * inverse_length(x, row, K);
      for (int i = 0; i < K; ++i) {
        x[row + i] *= factor;
      }
    }
    return x;
  }
  // The adjoint of `prepared`.
  Numbers returned(Numbers d, const Numbers& x, int K, double scale) const {
    for (std::size_t row = 0; row < x.size(); row += K) {
      const double r = inverse_length(x, row, K);
      double along = 0.0;
      for (int i = 0; i < K; ++i) {
        along += norm ? d[row + i] * x[row + i] : 0.0;
      }
      for (int i = 0; i < K; ++i) {
        d[row + i] = scale * r * (d[row + i] - x[row + i] * r * r * along);
      }
    }
    return d;
  }

  reference::DeltaRuleOperands operands(int K) const {
    return {prepared(read("q"), K, 1.0 / std::sqrt(K)),
            prepared(read("k"), K, 1.0),
            read("v"),
            read("g"),
            read("beta"),
            read("initial_state")};
  }

  template <class Storage>
  void expect_golden(int chunk, double chunked, double recurrent) {
    const auto n = shape();
    const auto in = operands(n.K);
    DeltaRuleCase<Storage> device(n, in, chunk);
    device.forward();
    expect_close("o", to_host(device.out), read("o"), chunked);
    expect_close("final_state", to_host(device.final), read("final_state"), chunked);

    device.backward(read("do"), read("dfinal_state"));
    const double scale = 1.0 / std::sqrt(n.K);
    expect_close("dq", returned(to_host(device.gradient.q), read("q"), n.K, scale), read("dq"),
                 chunked);
    expect_close("dk", returned(to_host(device.gradient.k), read("k"), n.K, 1.0), read("dk"),
                 chunked);
    expect_close("dv", to_host(device.gradient.v), read("dv"), chunked);
    expect_close("dg", to_host(device.gradient.log_decay), read("dg"), chunked);
    expect_close("dbeta", to_host(device.gradient.beta), read("dbeta"), chunked);
    expect_close("dinitial_state", to_host(device.dinitial), read("dinitial_state"), chunked);

    delta_rule_recurrent<Storage>(Exec{}, device.documents, device.in, device.initial, device.out);
    expect_close("recurrent o", to_host(device.out), read("o"), recurrent);
    expect_close("recurrent final_state", to_host(device.initial), read("final_state"), recurrent);
  }
};

TEST_P(Golden, Double) {
  for (const int chunk : {16, 32, 64}) {
    expect_golden<double>(chunk, of_double, of_double);
  }
}

TEST_P(Golden, Float) {
  for (const int chunk : {16, 32, 64}) {
    expect_golden<float>(chunk, of_float_chunked, of_float_recurrent);
  }
}

INSTANTIATE_TEST_SUITE_P(DeltaRule, Golden, testing::Values("l2norm", "plain", "packed"));

}  // namespace
}  // namespace qnext
