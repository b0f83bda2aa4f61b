// SPDX-License-Identifier: Apache-2.0
#include "io/safetensors.hpp"
#include "tests/safetensors_files.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace qnext {
namespace {

using test::message_of;
using test::raw;
using test::safetensors;
using test::SafetensorsText;
using test::TemporaryFolder;
using test::write_bytes;

using Extents = std::vector<std::int64_t>;

template <class T>
std::vector<T> converted(const SafeTensor& tensor) {
  std::vector<T> values(tensor.elements());
  convert_elements(tensor, "x", 0, tensor.elements(), values.data());
  return values;
}

TEST(Safetensors, ReadsTypesShapesAndMetadata) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  SafetensorsText text;
  text.add<float>("b", "F32", "[2, 3]", {1, 2, 3, 4, 5, 6});
  text.add<std::uint16_t>("odd", "BF16", "[1]", {0x3f80});
  text.add<double>("a", "F64", "[]", {0.1});
  text.add<float>("none", "F32", "[0, 5]", {});
  write_bytes(path, text.bytes());
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.tensors().at("b").extents, (Extents{2, 3}));
  EXPECT_EQ(file.tensors().at("b").type, "F32");
  EXPECT_EQ(converted<float>(file.tensors().at("b")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(converted<double>(file.tensors().at("a")), (std::vector<double>{0.1}));
  EXPECT_EQ(converted<bf16>(file.tensors().at("odd"))[0].bits, 0x3f80);
  EXPECT_EQ(file.tensors().at("none").elements(), 0);

  write_bytes(path, safetensors(R"({"__metadata__": {"format": "pt"}}   )", ""));
  EXPECT_EQ(SafetensorsFile(path).metadata().at("format"), "pt");
}

TEST(Safetensors, ConvertsBetweenAllRealTypes) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  SafetensorsText text;
  // One, the smallest subnormal, the largest, minus infinity, minus zero, NaN of IEEE half.
  text.add<std::uint16_t>("half", "F16", "[6]", {0x3c00, 1, 0x7bff, 0xfc00, 0x8000, 0x7e01});
  text.add<double>("wide", "F64", "[3]", {0.1, 1.00390625, 1e-300});
  text.add<std::uint16_t>("short", "BF16", "[2]", {0xc0a0, 0x7f80});
  text.add<std::int32_t>("integer", "I32", "[1]", {1});
  write_bytes(path, text.bytes());
  const SafetensorsFile file(path);
  const auto half = converted<double>(file.tensors().at("half"));
  EXPECT_EQ(half[0], 1.0);
  EXPECT_EQ(half[1], 0x1.0p-24);
  EXPECT_EQ(half[2], 65504.0);
  EXPECT_EQ(half[3], -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(half[4] == 0.0 && std::signbit(half[4]));
  EXPECT_TRUE(std::isnan(half[5]));
  EXPECT_EQ(converted<float>(file.tensors().at("wide")),
            (std::vector<float>{0.1f, 1.00390625f, 0}));
  EXPECT_EQ(converted<bf16>(file.tensors().at("wide"))[1].bits, 0x3f80);  // a tie goes to even
  EXPECT_EQ(converted<float>(file.tensors().at("short"))[0], -5.0f);
  EXPECT_TRUE(std::isinf(converted<double>(file.tensors().at("short"))[1]));
  EXPECT_EQ(message_of([&] { converted<float>(file.tensors().at("integer")); }),
            "x: has the dtype I32, wanted is BF16, F16, F32 or F64");
}

struct Hostile {
  std::string what;
  std::string header;
  std::string data;
  std::string message;  // behind "PATH: "
};

class HostileSafetensors : public testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsRefused) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  write_bytes(path, safetensors(GetParam().header, GetParam().data));
  const std::string message = message_of([&] { SafetensorsFile file(path); });
  EXPECT_EQ(message.find(path + ": " + GetParam().message), 0u) << message;
}

const std::string eight(8, 'x');
INSTANTIATE_TEST_SUITE_P(
    Files, HostileSafetensors,
    testing::Values(
        Hostile{"NoJson", "{\"a\": ", "", "header: byte "},
        Hostile{"NoObject", "[]", "", "its header does not begin with {"},
        Hostile{"Twice",
                R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                eight, "header: \"a\" stands twice in one object"},
        Hostile{"Type", R"({"a":{"dtype":"F128","shape":[1],"data_offsets":[0,8]}})", eight,
                "a: has the dtype \"F128\", wanted is one of the format"},
        Hostile{"NoType", R"({"a":{"shape":[1],"data_offsets":[0,8]}})", eight, "a: has no dtype"},
        Hostile{"Unknown", R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8],"x":1}})", eight,
                "a: has \"x\", which the format does not know"},
        Hostile{"Negative", R"({"a":{"dtype":"F64","shape":[-1],"data_offsets":[0,8]}})", eight,
                "a: has the extent -1, which is no possible one"},
        Hostile{"Overflow",
                R"({"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,8]}})",
                eight, "a: has the extent 4294967296, which is no possible one"},
        Hostile{"ShapeText", R"({"a":{"dtype":"F64","shape":["1"],"data_offsets":[0,8]}})", eight,
                "a: shape = \"1\": is text, wanted is an integer"},
        Hostile{"Product", R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight,
                "a: has 8 bytes, F32 of 3 wants 12"},
        Hostile{"Outside", R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", eight,
                "a: lies at bytes 0 to 16 of 8"},
        Hostile{"Backwards", R"({"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}})", eight,
                "a: lies at bytes 8 to 0 of 8"},
        Hostile{"Three", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}})", eight,
                "a: has 3 data_offsets, wanted are 2"},
        Hostile{"Overlap",
                R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"F16","shape":[3],"data_offsets":[2,8]}})",
                eight, "b: overlaps another: it begins at byte 2, the one before ends at 4"},
        Hostile{"Gap",
                R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                R"("b":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}})",
                eight, "b: leaves a gap: it begins at byte 6, the one before ends at 4"},
        Hostile{"Behind", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight,
                "has 4 bytes behind the last tensor, wanted are none"},
        Hostile{"Metadata", R"({"__metadata__":{"a":1}})", "",
                "__metadata__: a = 1: is an integer, wanted is text"},
        Hostile{"Deep", R"({"a":{"dtype":[[[[]]]]}})", "", "header: nests deeper than 4 levels"}),
    [](const auto& info) { return info.param.what; });

TEST(Safetensors, RefusesAWrongLength) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  write_bytes(path, "1234567");
  EXPECT_EQ(message_of([&] { SafetensorsFile file(path); }),
            path + ": has 7 bytes, which is too short for safetensors");
  for (const std::uint64_t length : {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
    write_bytes(path, raw<std::uint64_t>({length}) + "{}");
    EXPECT_EQ(message_of([&] { SafetensorsFile file(path); }),
              path + ": says its header has " + std::to_string(length) +
                  " bytes; the file has 10, a header at most 100000000");
  }
  write_bytes(path, "");
  EXPECT_NE(message_of([&] { SafetensorsFile file(path); }), "no error");
  EXPECT_NE(message_of([&] { SafetensorsFile file(folder / "none"); }), "no error");
}

// Cut anywhere, with a bit flipped anywhere in the header: refused or harmless, and never read
// outside of the file (the sanitizers watch).
TEST(Safetensors, SurvivesDamage) {
  const TemporaryFolder folder;
  const std::string path = folder / "model.safetensors";
  SafetensorsText text;
  text.add<float>("weight", "F32", "[2, 3]", {1, 2, 3, 4, 5, 6});
  text.add<std::uint16_t>("other", "BF16", "[4]", {1, 2, 3, 4});
  const std::string good = text.bytes();
  for (std::size_t length = 0; length < good.size(); ++length) {
    write_bytes(path, good.substr(0, length));
    EXPECT_THROW(SafetensorsFile file(path), InputError) << length;
  }
  for (std::size_t place = 0; place + 32 < good.size(); ++place) {
    for (const int bit : {0, 3, 6}) {
      std::string bytes = good;
      bytes[place] ^= static_cast<char>(1 << bit);
      write_bytes(path, bytes);
      try {
        const SafetensorsFile file(path);
        for (const auto& [name, tensor] : file.tensors()) {
          if (tensor.type.find('F') != std::string::npos && tensor.type[0] != 'U') {
            converted<float>(tensor);
          }
        }
      } catch (const InputError&) {
      }
    }
  }
}

class Shards : public testing::Test {
 protected:
  Shards() {
    SafetensorsText first, second;
    first.add<float>("a", "F32", "[1]", {1});
    first.add<float>("b", "F32", "[1]", {2});
    second.add<float>("c", "F32", "[1]", {3});
    write_bytes(folder / "one.safetensors", first.bytes());
    write_bytes(folder / "two.safetensors", second.bytes());
  }
  std::string with_index(const std::string& weight_map) {
    write_bytes(index, "{\"metadata\": {\"total_size\": 12}, \"weight_map\": " + weight_map + "}");
    return message_of([&] { SafetensorsFolder weights(folder.path()); });
  }

  TemporaryFolder folder;
  const std::string index = folder / "model.safetensors.index.json";
};

TEST_F(Shards, AreOneFolder) {
  EXPECT_EQ(with_index(R"({"a": "one.safetensors", "b": "one.safetensors",
                           "c": "two.safetensors"})"),
            "no error");
  const SafetensorsFolder weights(folder.path());
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_NE(weights.find("c"), nullptr);
  EXPECT_EQ(converted<float>(*weights.find("c"))[0], 3.0f);
  EXPECT_EQ(weights.find("d"), nullptr);
}

TEST_F(Shards, MustBeWhatTheIndexSays) {
  EXPECT_EQ(with_index(R"({"a": "one.safetensors", "c": "two.safetensors"})"),
            folder / "one.safetensors" + ": holds b, which the index does not list there");
  EXPECT_EQ(with_index(R"({"a": "one.safetensors", "b": "two.safetensors",
                           "c": "two.safetensors"})"),
            folder / "one.safetensors" + ": holds b, which the index does not list there");
  EXPECT_EQ(with_index(R"({"a": "one.safetensors", "b": "one.safetensors",
                           "c": "two.safetensors", "d": "two.safetensors"})"),
            folder / "two.safetensors" + ": does not hold d, which the index lists there");
  EXPECT_EQ(with_index(R"({"a": "three.safetensors"})"),
            index + ": the shard three.safetensors is missing");
  EXPECT_EQ(with_index(R"({"a": "../one.safetensors"})"),
            index +
                ": names the shard \"../one.safetensors\", wanted is a .safetensors file of "
                "the same folder");
  EXPECT_EQ(with_index(R"({"a": 1})"), index + ": a = 1: is an integer, wanted is text");
  write_bytes(index, "{}");
  EXPECT_EQ(message_of([&] { SafetensorsFolder weights(folder.path()); }),
            index + ": has no weight_map");
}

TEST(SafetensorsFolderOf, NothingIsNamed) {
  const TemporaryFolder folder;
  EXPECT_EQ(message_of([&] { SafetensorsFolder weights(folder.path()); }),
            folder.path() + ": has neither model.safetensors nor model.safetensors.index.json");
}

}  // namespace
}  // namespace qnext
