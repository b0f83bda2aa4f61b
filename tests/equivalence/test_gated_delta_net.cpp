// SPDX-License-Identifier: Apache-2.0
#include "tests/gated_delta_net_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace qnext {
namespace {

using reference::DeltaRuleShape;
using test::GatedDeltaNetCase;
using test::to_host;
using test::uniform;
using Numbers = std::vector<double>;

constexpr int width = 10, taps = 4;

template <class Storage>
struct Layer {
  GatedDeltaNetCase<Storage> device;

  Layer(std::vector<int> lengths, const Numbers& x, int chunk = 64)
      : device({std::move(lengths), 2, 4, 8, 12}, taps, chunk) {
    device.layer->forward(Exec{}, device.documents, device.input(x), nullptr, device.y,
                          &device.final, device.saved, device.work);
  }
  void backward(const Numbers& dy) {
    device.layer->backward(Exec{}, device.documents, device.input(dy), nullptr, device.saved,
                           device.dx, nullptr, device.work);
  }
};

Numbers slice(const Numbers& values, int first, int last, int row = width) {
  return {values.begin() + first * row, values.begin() + last * row};
}

// Both sides are sums of the same terms in another order: a token adds at most 2 K roundings to
// what it reads, and at most 64 tokens remember them.
void expect_close(const Numbers& actual, const Numbers& expected, double epsilon) {
  ASSERT_EQ(actual.size(), expected.size());
  double largest = 0.0;
  for (const double value : expected) {
    largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], 2 * 64 * 12 * epsilon * largest) << "element " << i;
  }
}

TEST(GatedDeltaNetEquivalence, AnyChunkLength) {
  const std::vector<int> lengths = {150, 1, 33};
  const auto x = uniform(184 * width, -1, 1, 51), dy = uniform(184 * width, -1, 1, 52);
  Layer<double> expected(lengths, x, 64);
  expected.backward(dy);
  for (const int chunk : {16, 32, 48}) {
    Layer<double> other(lengths, x, chunk);
    other.backward(dy);
    expect_close(to_host(other.device.y), to_host(expected.device.y), 0x1.0p-52);
    expect_close(to_host(other.device.dx), to_host(expected.device.dx), 0x1.0p-52);
    expect_close(other.device.gradient("A_log"), expected.device.gradient("A_log"), 0x1.0p-52);
  }
}

// A document does not know its neighbours: other tokens in the documents around it change not one
// bit of its output or gradient.
template <class Storage>
void expect_no_leak() {
  const std::vector<int> lengths = {70, 3, 100};
  const auto x = uniform(173 * width, -1, 1, 53), dy = uniform(173 * width, -1, 1, 54);
  const auto other_x = uniform(173 * width, -1, 1, 57), other_dy = uniform(173 * width, -1, 1, 58);
  Layer<Storage> packed(lengths, x);
  packed.backward(dy);
  int begin = 0;
  for (const int length : lengths) {
    const auto keep = [&](std::vector<double> around, const std::vector<double>& document) {
      std::copy(document.begin() + begin * width, document.begin() + (begin + length) * width,
                around.begin() + begin * width);
      return around;
    };
    Layer<Storage> beside(lengths, keep(other_x, x));
    beside.backward(keep(other_dy, dy));
    const int end = begin + length;
    EXPECT_EQ(slice(to_host(beside.device.y), begin, end),
              slice(to_host(packed.device.y), begin, end));
    EXPECT_EQ(slice(to_host(beside.device.dx), begin, end),
              slice(to_host(packed.device.dx), begin, end));
    begin = end;
  }
}

// Alone or packed, a document gives the same numbers but for the order of sums in the projections,
// whose kernels go by the number of rows.
TEST(GatedDeltaNetEquivalence, PackedIsAlone) {
  const std::vector<int> lengths = {70, 3, 100};
  const auto x = uniform(173 * width, -1, 1, 53), dy = uniform(173 * width, -1, 1, 54);
  Layer<double> packed(lengths, x);
  packed.backward(dy);
  int begin = 0;
  for (const int length : lengths) {
    Layer<double> alone({length}, slice(x, begin, begin + length));
    alone.backward(slice(dy, begin, begin + length));
    expect_close(to_host(alone.device.y), slice(to_host(packed.device.y), begin, begin + length),
                 0x1.0p-52);
    expect_close(to_host(alone.device.dx), slice(to_host(packed.device.dx), begin, begin + length),
                 0x1.0p-52);
    begin += length;
  }
}

TEST(GatedDeltaNetEquivalence, PackedDocumentsDoNotLeak) {
  expect_no_leak<double>();
  expect_no_leak<float>();
  expect_no_leak<bf16>();
}

// Forward over pieces that hand their states on, backward over them in reverse.
void expect_pieces(const std::vector<int>& pieces) {
  const auto x = uniform(150 * width, -1, 1, 55), dy = uniform(150 * width, -1, 1, 56);
  Layer<double> whole({150}, x);
  whole.backward(dy);

  std::vector<std::unique_ptr<GatedDeltaNetCase<double>>> parts;
  std::vector<int> begins;
  int begin = 0;
  for (const int length : pieces) {
    parts.push_back(
        std::make_unique<GatedDeltaNetCase<double>>(DeltaRuleShape{{length}, 2, 4, 8, 12}, taps));
    begins.push_back(begin);
    auto& part = *parts.back();
    auto* const before = parts.size() > 1 ? &parts[parts.size() - 2]->final : nullptr;
    part.layer->forward(Exec{}, part.documents, part.input(slice(x, begin, begin + length)), before,
                        part.y, &part.final, part.saved, part.work);
    expect_close(to_host(part.y), slice(to_host(whole.device.y), begin, begin + length), 0x1.0p-52);
    begin += length;
  }
  expect_close(to_host(parts.back()->final.memory), to_host(whole.device.final.memory), 0x1.0p-52);

  Numbers of_weight(whole.device.gradient("conv1d.weight").size());
  for (std::size_t i = parts.size(); i-- > 0;) {
    auto& part = *parts[i];
    const int last = begins[i] + part.n.T();
    auto* const behind = i + 1 < parts.size() ? &parts[i + 1]->dinitial : nullptr;
    part.layer->backward(Exec{}, part.documents, part.input(slice(dy, begins[i], last)), behind,
                         part.saved, part.dx, &part.dinitial, part.work);
    expect_close(to_host(part.dx), slice(to_host(whole.device.dx), begins[i], last), 0x1.0p-52);
    const auto gradient = part.gradient("conv1d.weight");
    for (std::size_t j = 0; j < of_weight.size(); ++j) {
      of_weight[j] += gradient[j];
    }
  }
  expect_close(of_weight, whole.device.gradient("conv1d.weight"), 0x1.0p-52);
}

TEST(GatedDeltaNetEquivalence, PiecesWithStatesAreTheWhole) {
  expect_pieces({64, 86});
  expect_pieces({1, 2, 147});
  expect_pieces({100, 49, 1});
}

// Decoding after a prefill: any number of tokens a step.
TEST(GatedDeltaNetEquivalence, StepsAfterAPrefillAreForward) {
  const auto x = uniform(60 * width, -1, 1, 57);
  Layer<double> whole({60}, x);
  Layer<double> prefill({40}, slice(x, 0, 40));
  auto state = prefill.device.final;
  int begin = 40;
  for (const int tokens : {1, 1, 3, 15}) {
    GatedDeltaNetCase<double> next({{tokens}, 2, 4, 8, 12}, taps);
    next.layer->step(Exec{}, next.documents, next.input(slice(x, begin, begin + tokens)), state,
                     next.y, next.saved, next.work);
    expect_close(to_host(next.y), slice(to_host(whole.device.y), begin, begin + tokens), 0x1.0p-52);
    begin += tokens;
  }
  expect_close(to_host(state.memory), to_host(whole.device.final.memory), 0x1.0p-52);
  EXPECT_EQ(to_host(state.conv_tail).size(), to_host(whole.device.final.conv_tail).size());
}

}  // namespace
}  // namespace qnext
