// SPDX-License-Identifier: Apache-2.0
#include "io/metrics_writer.hpp"
#include "io/tensorboard.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::bytes_of;
using test::FileSizeLimit;
using test::message_of;
using test::TemporaryFolder;
using test::write_bytes;

const std::vector<std::string> columns = {"loss", "tokens", "evaluation_loss"};

void write_steps(MetricsWriter& writer, std::int64_t first, std::int64_t last) {
  for (std::int64_t step = first; step <= last; ++step) {
    const auto s = static_cast<double>(step);
    if (step % 2 == 0) {
      writer.write(step, {{"loss", 1.0 / s}, {"tokens", 1e12 * s}, {"evaluation_loss", 0.5}});
    } else {
      writer.write(step, {{"tokens", 1e12 * s}, {"loss", 1.0 / s}});
    }
  }
}

TEST(MetricsWriter, WritesARecordAndARowForEachStep) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder.path(), columns, 0);
  write_steps(writer, 1, 2);
  writer.write(3, {{"loss", std::nan("")}, {"tokens", -std::numeric_limits<double>::infinity()}});
  writer.flush();
  EXPECT_EQ(bytes_of(folder / "metrics.jsonl"),
            "{\"step\": 1, \"tokens\": 1000000000000, \"loss\": 1}\n"
            "{\"step\": 2, \"loss\": 0.5, \"tokens\": 2000000000000, \"evaluation_loss\": 0.5}\n"
            "{\"step\": 3, \"loss\": null, \"tokens\": null}\n");
  EXPECT_EQ(bytes_of(folder / "metrics.csv"),
            "step,loss,tokens,evaluation_loss\n"
            "1,1,1000000000000,\n"
            "2,0.5,2000000000000,0.5\n"
            "3,nan,-inf,\n");
}

TEST(MetricsWriter, AResumedRunLeavesTheFilesOfAnUnbrokenOne) {
  const TemporaryFolder unbroken, resumed;
  {
    MetricsWriter writer(unbroken.path(), columns, 0);
    write_steps(writer, 1, 20);
  }
  {
    MetricsWriter writer(resumed.path(), columns, 0);
    write_steps(writer, 1, 13);
  }
  {
    MetricsWriter writer(resumed.path(), columns, 10);
    write_steps(writer, 11, 20);
  }
  for (const char* name : {"metrics.jsonl", "metrics.csv"}) {
    EXPECT_EQ(bytes_of(resumed / name), bytes_of(unbroken / name)) << name;
  }
}

TEST(MetricsWriter, AKilledRunMayLeaveHalfALineAndOtherColumns) {
  const TemporaryFolder folder;
  test::write_bytes(folder / "metrics.jsonl",
                    "{\"step\": 1, \"loss\": 2, \"gone\": 5}\n{\"step\": 2, \"loss\": null}\n"
                    "{\"step\": 3, \"los");
  { const MetricsWriter writer(folder.path(), columns, 100); }
  EXPECT_EQ(bytes_of(folder / "metrics.jsonl"),
            "{\"step\": 1, \"loss\": 2, \"gone\": 5}\n{\"step\": 2, \"loss\": null}\n");
  EXPECT_EQ(bytes_of(folder / "metrics.csv"), "step,loss,tokens,evaluation_loss\n1,2,,\n2,nan,,\n");
  { const MetricsWriter writer(folder.path(), columns, 0); }
  EXPECT_EQ(bytes_of(folder / "metrics.jsonl"), "");
}

TEST(MetricsWriter, RefusesUnknownNamesAndFoldersThatAreNotThere) {
  const TemporaryFolder folder;
  MetricsWriter writer(folder.path(), columns, 0);
  EXPECT_NE(message_of([&] {
              writer.write(1, {{"lost", 1.0}});
            }).find("the metric lost is not among the columns"),
            std::string::npos);
  EXPECT_EQ(message_of([&] { MetricsWriter(folder / "absent", columns, 0); }),
            folder / "absent/metrics.csv: cannot be written: No such file or directory");
}

TEST(MetricsWriter, SaysThatTheDiskIsFull) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "metrics.csv");
  EXPECT_EQ(message_of([&] { MetricsWriter(folder.path(), columns, 0); }),
            folder / "metrics.csv: cannot be written: No space left on device");
}

// --- TensorBoard
// ----------------------------------------------------------------------------------

struct Point {
  std::int64_t step;
  std::string tag;
  float value;
};

// Reads protocol buffers of known form, without any of the writer's code.
struct Reader {
  std::string bytes;
  std::size_t at = 0;

  bool more() const { return at < bytes.size(); }
  template <class T>
  T fixed() {
    T value;
    std::memcpy(&value, bytes.substr(at, sizeof(T)).data(), sizeof(T));
    at += sizeof(T);
    return value;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes.at(at++));
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
  }
  std::string block(std::size_t size) {
    at += size;
    return bytes.substr(at - size, size);
  }
  std::string block() { return block(varint()); }
};

// The value of each field of a message; a number is its bytes.
std::map<int, std::string> fields(const std::string& message) {
  std::map<int, std::string> all;
  for (Reader reader{message}; reader.more();) {
    const std::uint64_t key = reader.varint();
    const int number = static_cast<int>(key >> 3);
    switch (key & 7) {
      case 0:
        all[number] = std::to_string(reader.varint());
        break;
      case 1:
        all[number] = reader.block(8);
        break;
      case 2:
        all[number] = reader.block();
        break;
      case 5:
        all[number] = reader.block(4);
        break;
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
        return all;
    }
  }
  return all;
}

// The check value of the Castagnoli CRC in its catalogue is e3069283 for these nine bytes.
TEST(Tensorboard, TheMaskedCrcIsThatOfTheFormat) {
  const std::uint32_t crc = 0xe3069283u;
  EXPECT_EQ(masked_crc32c("123456789"), ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
  EXPECT_EQ(masked_crc32c(""), 0xa282ead8u);
}

TEST(Tensorboard, TheFileReadsBack) {
  const TemporaryFolder folder;
  TensorboardWriter writer(folder / "events", 7);
  writer.write(7, "loss", 2.5);
  writer.write(300, "gradient_norm", -1e-3);
  writer.write(std::int64_t{1} << 40, "tokens_per_second", 1e6);
  writer.flush();
  EXPECT_NE(writer.path().find("/events/events.out.tfevents."), std::string::npos);

  std::vector<std::map<int, std::string>> events;
  for (Reader reader{bytes_of(writer.path())}; reader.more();) {
    const std::string length = reader.block(8);
    EXPECT_EQ(reader.fixed<std::uint32_t>(), masked_crc32c(length));
    const std::string event = reader.block(Reader{length}.fixed<std::uint64_t>());
    EXPECT_EQ(reader.fixed<std::uint32_t>(), masked_crc32c(event));
    events.push_back(fields(event));
    EXPECT_GT(Reader{events.back()[1]}.fixed<double>(), 1.7e9);  // seconds since 1970
  }
  ASSERT_EQ(events.size(), 5u);
  EXPECT_EQ(events[0][3], "brain.Event:2");
  EXPECT_EQ(events[1][2], "7");
  EXPECT_EQ(fields(events[1][7])[1], "1");
  const std::vector<Point> expected = {{7, "loss", 2.5f},
                                       {300, "gradient_norm", -1e-3f},
                                       {std::int64_t{1} << 40, "tokens_per_second", 1e6f}};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    auto scalar = fields(fields(events[i + 2][5])[1]);
    EXPECT_EQ(events[i + 2][2], std::to_string(expected[i].step));
    EXPECT_EQ(scalar[1], expected[i].tag);
    EXPECT_EQ(Reader{scalar[2]}.fixed<float>(), expected[i].value);
  }
}

TEST(Tensorboard, SaysWhyItCannotWrite) {
  const TemporaryFolder folder;
  test::write_bytes(folder / "file", "");
  const std::string message = message_of([&] { TensorboardWriter(folder / "file/events", 1); });
  EXPECT_NE(message.find("cannot be written: Not a directory"), std::string::npos) << message;
}

// A device that is always full, in the place of a file. Its stream remembers that a write failed
// before, but not why.
TEST(MetricsWriter, NamesAFileThatTakesNoMore) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "metrics.csv");
  EXPECT_EQ(message_of([&] { MetricsWriter(folder.path(), columns, 0); }),
            folder / "metrics.csv" + ": cannot be written: No space left on device");

  const TemporaryFolder other;
  MetricsWriter writer(other.path(), columns, 0);
  const FileSizeLimit limit(4096);
  write_steps(writer, 1, 2000);
  EXPECT_EQ(message_of([&] { writer.flush(); }),
            other / "metrics.jsonl" + ": cannot be written: an earlier write failed");
}

TEST(TensorboardWriter, NamesAFileThatTakesNoMore) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  EXPECT_NE(message_of([&] {
              TensorboardWriter(folder / "file/events", 0);
            }).find("cannot be written: Not a directory"),
            std::string::npos);
  TensorboardWriter writer(folder.path(), 0);
  const FileSizeLimit limit(4096);
  for (int step = 0; step < 2000; ++step) {
    writer.write(step, "loss", 1.0);
  }
  EXPECT_EQ(message_of([&] { writer.flush(); }),
            writer.path() + ": cannot be written: an earlier write failed");
}

}  // namespace
}  // namespace qnext
