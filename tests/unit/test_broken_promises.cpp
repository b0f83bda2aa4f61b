// SPDX-License-Identifier: Apache-2.0
//
// Calls that break what a header asks for, in core, layers, parallel and io: each is answered by a
// sentence with the object, the value found and the value wanted.
#include "core/documents.hpp"
#include "core/matmul.hpp"
#include "core/matmul_onednn.hpp"
#include "core/parameter.hpp"
#include "core/tile_product_bf16.hpp"
#include "io/data_stream.hpp"
#include "io/posix_file.hpp"
#include "layers/dense_mlp.hpp"
#include "layers/experts_over_ranks.hpp"
#include "layers/gated_attention.hpp"
#include "layers/gated_delta_net.hpp"
#include "layers/head_loss.hpp"
#include "layers/kernels/capacity.hpp"
#include "layers/linear.hpp"
#include "layers/mixture_of_experts.hpp"
#include "layers/model.hpp"
#include "parallel/communicator.hpp"
#include "parallel/process_grid.hpp"
#include "parallel/row_exchange.hpp"
#include "tests/model_support.hpp"
#include "tests/support.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sys/stat.h>
#include <vector>

namespace qnext {
namespace {

void expect_sentence(const std::string& sentence, const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find(sentence), std::string::npos) << error.what();
    return;
  }
  ADD_FAILURE() << "nothing was refused; wanted: " << sentence;
}

ProcessGrid tensor_ranks(int ranks) {
  return ProcessGrid(Degrees{.tensor = ranks});
}

TEST(BrokenPromises, OfParameters) {
  ParameterTable table;
  Weight<float, 2> matrix, other;
  Weight<float, 1> vector;
  table.add({.name = "w", .shard = Shard::whole({3, 5}), .init = Init::zeros()}, matrix);
  expect_sentence("w is registered twice", [&] {
    table.add({.name = "w", .shard = Shard::whole({3, 5}), .init = Init::zeros()}, other);
  });
  expect_sentence("v: rank of shard and weight differ", [&] {
    table.add({.name = "v", .shard = Shard::whole({3, 5}), .init = Init::zeros()}, vector);
  });
  Parameter tied{.name = "head", .shard = Shard::whole({3, 5}), .init = Init::zeros()};
  tied.alias_of = "absent";
  expect_sentence("head: is an alias of absent, which is not there in that type", [&] {
    table.add(tied, other);
    table.lay_out();
  });
}

TEST(BrokenPromises, OfTypes) {
  ParameterTable table;
  Weight<float, 2> matrix;
  table.add({.name = "w", .shard = Shard::whole({3, 5}), .init = Init::zeros()}, matrix);
  table.lay_out();
  expect_sentence("w: asked for as another type",
                  [&] { table.values<double>(table.rows().front()); });
  expect_sentence("w: asked for as another type",
                  [&] { table.gradients<double>(table.rows().front()); });
}

TEST(BrokenPromises, OfProducts) {
  const Tensor<float, 2> a("a", 3, 5), b("b", 4, 2);
  const Tensor<float, 2> c("c", 3, 2);
  expect_sentence("matmul: extents do not fit: A (3 x 5) B (4 x 2) into C (3 x 2)",
                  [&] { matmul<float, float>(Exec{}, Op::none, a, Op::none, b, c); });
  const Tensor<float, 3> experts("experts", 2, 4, 2);
  const Tensor<float, 3> gradients("gradients", 2, 4, 2);
  const Tensor<int, 1> offset("offset", 3);
  expect_sentence("matmul_grouped: extents do not fit: A (3 x 5) 2 of B (4 x 2) into C (3 x 2)",
                  [&] { matmul_grouped<float, float>(Exec{}, offset, a, Op::none, experts, c); });
  expect_sentence(
      "matmul_grouped_gradient: extents do not fit: A (3 x 5)^T C (3 x 2) into 2 of B (4 x 2)",
      [&] { matmul_grouped_gradient<float, float>(Exec{}, offset, a, c, gradients); });
}

TEST(BrokenPromises, OfAdapters) {
  ParameterTable table, other;
  table.begin_adapters({.rank = 2, .targets = {"a"}});
  const Linear<float> linear(table, {}, {.name = "a.weight", .shard = Shard::whole({3, 5})});
  expect_sentence("adapters come before the first of 3 rows of the table",
                  [&] { table.begin_adapters({}); });
  table.lay_out();
  const Tensor<float, 2> x("x", 2, 5), y("y", 2, 3), low("low", 1, 2);
  expect_sentence("adapter: memory for 1 tokens, wanted for 2",
                  [&] { linear.forward<float>(Exec{}, x, y, low); });
  other.begin_adapters({.rank = 2, .targets = {"b"}});
  Shard boxes = Shard::whole({4, 5});
  boxes.boxes = {{{}, {1, 5, 1, 1}}, {{2}, {1, 5, 1, 1}}};
  expect_sentence("b.weight: an adapter is beside a matrix of which a rank holds one box",
                  [&] { Linear<float>(other, {}, {.name = "b.weight", .shard = boxes}); });
}

TEST(BrokenPromises, OfDocuments) {
  expect_sentence("one first position for each document", [] { make_documents({3, 2}, 1, {0}); });
  expect_sentence("document 1 is empty", [] { make_documents({3, 0}); });
}

TEST(BrokenPromises, OfAttention) {
  const auto attention = [](const GatedAttentionConfig& config, int ranks) {
    ParameterTable table;
    GatedAttention<float>(config, tensor_ranks(ranks), table, "a");
  };
  const GatedAttentionConfig good{
      .model_width = 8, .heads = 6, .key_value_heads = 3, .head_width = 4, .rotary_width = 2};
  GatedAttentionConfig config = good;
  config.key_value_heads = 4;
  expect_sentence("heads = 6, wanted a multiple of key_value_heads = 4",
                  [&] { attention(config, 1); });
  config = good;
  config.rotary_width = 3;
  expect_sentence("rotary_width = 3, wanted an even number up to head_width = 4",
                  [&] { attention(config, 1); });
  expect_sentence("heads = 6, wanted a multiple of the tensor degree 4",
                  [&] { attention(good, 4); });
  expect_sentence("key_value_heads = 3, wanted a multiple or a divisor of the tensor degree 2",
                  [&] { attention(good, 2); });
  ParameterTable table;
  const GatedAttention<float> layer(good, {}, table, "a");
  GatedAttention<float>::State cached;
  const Tensor<float, 2> dy("dy", 3, 8), dx("dx", 3, 8);
  expect_sentence("attention: gradients of cached keys and values are not there", [&] {
    layer.backward(Exec{}, make_documents({3}), dy, &cached, {}, dx, nullptr, {});
  });
}

TEST(BrokenPromises, OfTheDeltaNet) {
  const auto delta_net = [](const GatedDeltaNetConfig& config, int ranks) {
    ParameterTable table;
    GatedDeltaNet<float>(config, tensor_ranks(ranks), table, "d");
  };
  GatedDeltaNetConfig config{
      .model_width = 8, .key_heads = 2, .value_heads = 3, .key_width = 4, .value_width = 4};
  expect_sentence("value_heads = 3, wanted a multiple of key_heads = 2",
                  [&] { delta_net(config, 1); });
  config.value_heads = 4;
  expect_sentence("key_heads = 2, wanted a multiple of the tensor degree 4",
                  [&] { delta_net(config, 4); });
  config.conv_taps = 7;
  expect_sentence("causal convolution: taps = 7, wanted 2 to 6", [&] { delta_net(config, 1); });
}

TEST(BrokenPromises, OfTheWidthsThatRanksDivide) {
  ParameterTable table;
  expect_sentence("m: width = 3, wanted at least the tensor degree 4", [&] {
    DenseMlp<float>({.model_width = 8, .width = 3}, tensor_ranks(4), table, "m");
  });
  expect_sentence("h: vocabulary = 3, wanted at least the tensor degree 4",
                  [&] { HeadLoss<float>(table, "h", 3, 8, 0.02, "", tensor_ranks(4)); });
}

TEST(BrokenPromises, OfExperts) {
  const auto experts = [](const MixtureOfExpertsConfig& config, int ranks) {
    ParameterTable table;
    MixtureOfExperts<float>(config, tensor_ranks(ranks), table, "e");
  };
  MixtureOfExpertsConfig config{
      .model_width = 8, .experts = 4, .experts_per_token = 5, .expert_width = 4};
  expect_sentence("e: 5 experts per token of 4", [&] { experts(config, 1); });
  config.experts_per_token = 2;
  expect_sentence("5 experts over 4 ranks, receive_factor 2",
                  [] { ExpertsOverRanks<float>(Communicator(), 4, 5, 2.0); });
  expect_sentence("capacity: unknown rule",
                  [] { Capacity{static_cast<Capacity::Rule>(9)}.limit(4, 2, 1); });

  config.capacity.rule = Capacity::Rule::dropless;
  ParameterTable table;
  const MixtureOfExperts<float> layer(config, {}, table, "e");
  MixtureOfExperts<float>::Saved saved;
  const Tensor<float, 2> x("x", 5, 8), y("y", 5, 8);
  expect_sentence("5 tokens in 2 sequences of equal length", [&] {
    layer.forward(Exec{}, make_documents({3, 2}, 2), x, y, saved, {});
  });
}

TEST(BrokenPromises, OfRanks) {
  const Communicator alone;
  expect_sentence("the grid has 2 places, the job 1 ranks",
                  [&] { ProcessGrid(Degrees{.data = 2}, alone); });
  const Tensor<int, 1> from("from", 3), to("to", 3);
  expect_sentence("all_to_all: the counts are more than the buffer holds",
                  [&] { alone.all_to_all(from, {4}, to, {3}); });
  expect_sentence("all_gather_parts: a part for each rank", [&] {
    alone.all_gather_parts(to, {0, 1, 3});
  });
  expect_sentence("a rank alone sends 1 messages and receives 0", [&] {
    alone.exchange({{0, buffer_of(from)}}, {});
  });
  const Tensor<int, 1> shorter("shorter", 2);
  expect_sentence("a rank alone is sent 12 bytes and receives 8", [&] {
    alone.exchange({{0, buffer_of(from)}}, {{0, buffer_of(shorter)}});
  });
  const Tensor<int, 2> rows("rows", 3, 4);
  const auto column = Kokkos::subview(rows, Kokkos::ALL, 1);
  expect_sentence("a message is contiguous", [&] { buffer_of(column); });
  expect_sentence("row exchange: 1 groups over 1 ranks, 0 rows a round",
                  [&] { RowExchange(alone, {3}, 0); });
  const RowExchange exchange(alone, {3}, 3);
  expect_sentence("row exchange: 3 rows in a buffer of 2", [&] {
    exchange.to_owners(0, {{buffer_of(shorter), buffer_of(to), sizeof(int)}});
  });
}

TEST(BrokenPromises, OfFiles) {
  const test::TemporaryFolder folder;
  const std::string path = folder / "short";
  std::ofstream(path) << "12345";
  char room[8];
  expect_sentence("short: ends at byte 5, 3 bytes more are wanted",
                  [&] { PosixFile::open_for_reading(path).read(0, room, 8); });
  expect_sentence("absent: cannot be opened: No such file or directory",
                  [&] { PosixFile::open_for_reading(folder / "absent"); });
  expect_sentence(folder.path() + ": cannot be read at byte 0: Is a directory",
                  [&] { PosixFile::open_for_reading(folder.path()).read(0, room, 8); });
  // A device that is always full and cannot be flushed; a pipe, which has no end.
  const auto full = PosixFile::open_for_writing("/dev/full");
  expect_sentence("/dev/full: cannot be written at byte 4: No space left on device",
                  [&] { full.write(4, room, 8); });
  expect_sentence("/dev/full: cannot be flushed to the disk: Invalid argument",
                  [&] { full.flush(); });
  expect_sentence("absent: cannot be flushed to the disk: No such file or directory",
                  [&] { flush_folder(folder / "absent"); });
  const std::string pipe = folder / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  expect_sentence("pipe: has no length: Illegal seek",
                  [&] { PosixFile::open_for_writing(pipe).bytes(); });
}

TEST(BrokenPromises, OfStreams) {
  expect_sentence("the stream needs sequence and vocabulary", [] { TokenStream(StreamConfig{}); });
  expect_sentence("held_out must lie in [0, 1)", [] {
    TokenStream(StreamConfig{.sequence = 4, .vocabulary = 4, .held_out = 1.0});
  });
}

#if !defined(KOKKOS_ENABLE_CUDA) && !defined(KOKKOS_ENABLE_HIP)

// What only the library can refuse: extents below zero, rows that lie closer than they are long.
TEST(BrokenPromises, OfOneDnn) {
  const std::vector<bf16> narrow(64);
  const std::vector<float> wide(64);
  std::vector<float> c(64);
  expect_sentence("oneDNN: product of -2 x 4 and 4 x 4: ", [&] {
    onednn::multiply(-2, 4, 4, {narrow.data(), 4, 1}, {narrow.data(), 4, 1}, DataType::float32,
                     c.data(), 4, false);
  });
  expect_sentence("oneDNN: dnnl_sgemm of 2 x 4 and 4 x 4: status ", [&] {
    onednn::multiply(2, 4, 4, {wide.data(), 4, 1}, {wide.data(), 4, 1}, c.data(), 3, false);
  });
}

TEST(BrokenPromises, OfUnitsForBf16) {
  for (const tile::Unit unit : {tile::Unit::amx, tile::Unit::dot}) {
    if (!tile::available(unit)) {
      const std::vector<bf16> a(32), b(512);
      std::vector<float> c(16);
      expect_sentence("bf16 product: this build or processor lacks the unit asked for", [&] {
        tile::multiply_bf16_on_cpu(unit, 1, 16, 32, a.data(), 32, b.data(), 32, c.data(), 16,
                                   false);
      });
      return;
    }
  }
  GTEST_SKIP() << "this build and processor have all units";
}

#endif

}  // namespace
}  // namespace qnext
