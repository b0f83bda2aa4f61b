// SPDX-License-Identifier: Apache-2.0
#include "core/require.hpp"
#include "io/hdf5_file.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>

namespace qnext {
namespace {

using Extents = std::vector<std::int64_t>;

using test::bytes_of;
using test::message_of;

class Hdf5FileTest : public testing::Test {
 protected:
  std::string path(const std::string& name = "file.h5") const { return folder_ / name; }

 private:
  test::TemporaryFolder folder_;
};

void write_everything(const std::string& path) {
  auto file = Hdf5File::create(path, 1024);
  file.write_dataset<double>("/a/b/real", {1.0, 2.5, -3.0, 1e300, 0.1, 0.0}, {2, 3});
  file.write_dataset<float>("/a/single", {1.5f}, {});
  file.write_dataset<bf16>("/a/half", {bf16(1.0f), bf16(-0.15625f), bf16(3e38f)}, {3, 1});
  file.write_dataset<int>("/numbers", {1, -2, 2147483647}, {3});
  file.write_dataset<std::int64_t>("/large", {std::int64_t{1} << 40}, {1});
  file.write_dataset<double>("/empty", {}, {0, 4});
  file.write_text("/text", "two\nlines, \xc3\xa9");
  file.write_text("/nothing", "");
  file.write_attribute<std::string>("/a", "note", "axes");
  file.write_attribute<std::int64_t>("/a", "count", 7);
  file.write_attribute<double>("/a/b/real", "norm", 0.1);
  file.write_attribute<std::vector<std::int64_t>>("/", "layers", {0, 2, 5});
  file.close();
}

TEST_F(Hdf5FileTest, GivesBackWhatWasWritten) {
  write_everything(path());
  const Hdf5File file(path());
  const auto real = file.read_dataset<double>("/a/b/real");
  EXPECT_EQ(real.values, (std::vector<double>{1.0, 2.5, -3.0, 1e300, 0.1, 0.0}));
  EXPECT_EQ(real.extents, (Extents{2, 3}));
  EXPECT_EQ(file.read_scalar<float>("/a/single"), 1.5f);
  const auto half = file.read_dataset<bf16>("/a/half");
  EXPECT_EQ(half.values[1].bits, bf16(-0.15625f).bits);
  EXPECT_EQ(half.extents, (Extents{3, 1}));
  EXPECT_EQ(file.read_dataset<int>("/numbers").values, (std::vector<int>{1, -2, 2147483647}));
  EXPECT_EQ(file.read_scalar<std::int64_t>("/large"), std::int64_t{1} << 40);
  EXPECT_TRUE(file.read_dataset<double>("/empty").values.empty());
  EXPECT_EQ(file.read_text("/text"), "two\nlines, \xc3\xa9");
  EXPECT_EQ(file.read_text("/nothing"), "");
  EXPECT_EQ(file.read_attribute<std::string>("/a", "note"), "axes");
  EXPECT_EQ(file.read_attribute<std::int64_t>("/a", "count"), 7);
  EXPECT_EQ(file.read_attribute<double>("/a/b/real", "norm"), 0.1);
  EXPECT_EQ(file.read_attribute<std::vector<std::int64_t>>("/", "layers"), (Extents{0, 2, 5}));
  EXPECT_EQ(file.list("/a"), (std::vector<std::string>{"b", "half", "single"}));
  EXPECT_EQ(file.list_datasets("/a"), (std::vector<std::string>{"b/real", "half", "single"}));
  EXPECT_EQ(file.list_attributes("/a"), (std::vector<std::string>{"count", "note"}));
  EXPECT_EQ(file.describe("/a/half").type, ElementType::bf16);
  EXPECT_EQ(file.describe("/text").type, ElementType::text);
}

// The 16-bit type is one that HDF5 itself converts: exactly where it widens.
TEST_F(Hdf5FileTest, ConvertsNumbers) {
  write_everything(path());
  const Hdf5File file(path());
  EXPECT_EQ(file.read_dataset<double>("/a/half").values,
            (std::vector<double>{1.0, -0.15625, static_cast<double>(float(bf16(3e38f)))}));
  EXPECT_EQ(file.read_dataset<float>("/a/half").values[1], -0.15625f);
  EXPECT_EQ(file.read_dataset<float>("/a/b/real").values[4], 0.1f);
  EXPECT_EQ(file.read_dataset<double>("/numbers").values[2], 2147483647.0);
}

TEST_F(Hdf5FileTest, ReadsAndWritesBoxes) {
  {
    auto file = Hdf5File::create(path());
    file.create_dataset("/x", ElementType::float64, {3, 4});
    const std::vector<double> left{0, 1, 4, 5, 8, 9}, right{2, 3, 6, 7, 10, 11};
    file.write_box("/x", DataType::float64, {0, 0}, {3, 2}, left.data());
    file.write_box("/x", DataType::float64, {0, 2}, {3, 2}, right.data());
    file.close();
  }
  const Hdf5File file(path());
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(file.read_dataset<double>("/x").values[i], i);
  }
  std::vector<double> box(4);
  file.read_box("/x", DataType::float64, {1, 1}, {2, 2}, box.data());
  EXPECT_EQ(box, (std::vector<double>{5, 6, 9, 10}));
  EXPECT_EQ(message_of([&] {
              file.read_box("/x", DataType::float64, {2, 1}, {2, 2}, box.data());
            }),
            path() + ": /x: has the extents (3, 4), wanted is a box of (2, 2) at (2, 1)");
}

TEST_F(Hdf5FileTest, LeavesTheUserBlockAndKnowsThePlaceOfADataset) {
  write_everything(path());
  const std::string bytes = bytes_of(path());
  const std::int64_t place = Hdf5File(path()).place_of("/large");
  ASSERT_GE(place, 1024);
  EXPECT_EQ(bytes.substr(place, 8), std::string("\0\0\0\0\0\1\0\0", 8));
  EXPECT_EQ(bytes.substr(1024, 4), "\x89HDF");
}

TEST_F(Hdf5FileTest, WritesTheSameBytesTwice) {
  write_everything(path("one.h5"));
  write_everything(path("two.h5"));
  EXPECT_EQ(bytes_of(path("one.h5")), bytes_of(path("two.h5")));
}

TEST_F(Hdf5FileTest, SaysWhatIsMissingOrOfAnotherKind) {
  write_everything(path());
  test::write_bytes(path("text.h5"), "no HDF5");
  const std::string absent = path("absent.h5");
  EXPECT_EQ(message_of([&] { Hdf5File file(absent); }), absent + ": no such file");
  EXPECT_EQ(message_of([&] { Hdf5File file(path("text.h5")); }),
            path("text.h5") + ": not an HDF5 file");
  const Hdf5File file(path());
  const auto expect = [&](const std::string& message, const std::function<void()>& call) {
    EXPECT_EQ(message_of(call), path() + ": " + message);
  };
  expect("/a/c/x: no such dataset", [&] { file.read_dataset<double>("/a/c/x"); });
  expect("/a: no such dataset", [&] { file.read_dataset<double>("/a"); });
  expect("/numbers: no such group", [&] { file.list("/numbers"); });
  expect("/a/single: holds real numbers, wanted are integers",
         [&] { file.read_dataset<int>("/a/single"); });
  expect("/text: holds text, wanted are numbers", [&] { file.read_dataset<double>("/text"); });
  expect("/numbers: is not a text", [&] { file.read_text("/numbers"); });
  expect("/numbers: has the extents (3), wanted is one element",
         [&] { file.read_scalar<int>("/numbers"); });
  expect("/large: holds 1099511627776, which does not fit into 32 bits",
         [&] { file.read_scalar<int>("/large"); });
  expect("/a: no attribute other", [&] { file.read_attribute<double>("/a", "other"); });
  expect("/a.note: holds text, wanted are numbers",
         [&] { file.read_attribute<double>("/a", "note"); });
  expect("/none: no such object", [&] { file.has_attribute("/none", "x"); });
  expect("/none: no such object", [&] { file.list_attributes("/none"); });
  expect("/a.count: is not a text", [&] { file.read_attribute<std::string>("/a", "count"); });
  expect("/.layers: has 3 elements, wanted is one",
         [&] { file.read_attribute<std::int64_t>("/", "layers"); });
}

TEST_F(Hdf5FileTest, RefusesWhatItsCallerMixedUp) {
  auto file = Hdf5File::create(path());
  const auto refuses = [&](const std::string& sentence, const std::function<void()>& call) {
    EXPECT_NE(message_of(call).find(sentence), std::string::npos) << message_of(call);
  };
  refuses("/x: 2 values for (3)", [&] { file.write_dataset<double>("/x", {1.0, 2.0}, {3}); });
  refuses("no number type", [&] { file.create_dataset("/x", ElementType::text, {3}); });
}

TEST_F(Hdf5FileTest, WritesIntoAnExistingFile) {
  write_everything(path());
  const auto write = [&](std::int64_t count, const std::vector<float>& number) {
    auto file = Hdf5File::open_for_writing(path());
    file.write_attribute<std::int64_t>("/a", "count", count);
    file.write_box("/a/single", DataType::float32, {}, {}, number.data());
    file.close();
  };
  write(7, {1.5f});  // gives back room behind the last object
  const std::string before = bytes_of(path());
  write(8, {2.5f});
  EXPECT_EQ(Hdf5File(path()).read_attribute<std::int64_t>("/a", "count"), 8);
  EXPECT_EQ(Hdf5File(path()).read_scalar<float>("/a/single"), 2.5f);
  write(7, {1.5f});
  EXPECT_TRUE(bytes_of(path()) == before);
  if (!Hdf5File::opens_together()) {
    EXPECT_EQ(message_of([&] { Hdf5File::open_together(path(), {}); }),
              path() + ": this HDF5 was built without MPI: one rank at a time writes");
  }
}

// Groups alone: nothing but what the library keeps in memory until the end.
TEST_F(Hdf5FileTest, AsksForTheRoomOfItsLastBytes) {
  auto file = Hdf5File::create(path());
  for (int i = 0; i < 100; ++i) {
    file.create_group(std::string("/group_").append(std::to_string(i)));
  }
  const test::FileSizeLimit limit(4096);
  const std::string message = message_of([&] { file.close(); });
  EXPECT_EQ(message.find(path() + ": cannot grow to "), 0u) << message;
  EXPECT_NE(message.find(" bytes: file write failed: File too large"), std::string::npos);
}

TEST_F(Hdf5FileTest, PassesOnWhatTheLibrarySays) {
  EXPECT_EQ(message_of([&] { Hdf5File::create(path("no/folder.h5")); }),
            path("no/folder.h5") + ": H5Fcreate: unable to open file: No such file or directory");
  auto file = Hdf5File::create(path());
  file.write_dataset<double>("/x", {1.0}, {1});
  EXPECT_NE(message_of([&] {
              file.write_dataset<double>("/x", {1.0}, {1});
            }).find("/x: H5Dcreate2: name already exists"),
            std::string::npos);
}

TEST(Golden, IsReadWhenItIsThere) {
  const char* const shared = std::getenv("QNEXT_SHARED");
  const std::string path = std::string(shared == nullptr ? "" : shared) + "/golden/tiny/golden.h5";
  if (!std::filesystem::exists(path)) {
    GTEST_SKIP() << "no golden data";
  }
  const Hdf5File file(path);
  EXPECT_EQ(file.list("/runs"), (std::vector<std::string>{"a", "b", "batch2", "packed"}));
  EXPECT_EQ(file.read_dataset<int>("/runs/a/tokens").extents, (Extents{37}));
  EXPECT_EQ(file.read_dataset<double>("/runs/a/logits").extents, (Extents{37, 256}));
  EXPECT_GT(file.read_scalar<double>("/runs/a/loss_ce"), 0.0);
  EXPECT_EQ(file.read_attribute<std::string>("/", "title"),
            "Qwen3-Next goldens of the random model 'tiny'");
  EXPECT_FALSE(
      file.read_attribute<std::vector<std::int64_t>>("/runs/a/routing", "moe_layers").empty());
}

}  // namespace
}  // namespace qnext
