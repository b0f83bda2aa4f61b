// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_folder.hpp"
#include "io/hdf5_file.hpp"
#include "tests/checkpoint_case.hpp"
#include "tests/file_size_limit.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

namespace qnext {
namespace {

using test::bytes_of;
using test::content_at;
using test::message_of;
using test::names_in;
using test::write_bytes;
using Names = std::vector<std::string>;

class CheckpointFolderTest : public testing::Test {
 protected:
  void write(const CheckpointFolder& checkpoints, std::int64_t step) {
    checkpoints.write(content_at(step), model.table, model.families);
  }
  void damage(const std::string& path, std::int64_t place) {
    std::string bytes = bytes_of(path);
    bytes[place] ^= 1;
    write_bytes(path, bytes);
  }

  test::CheckpointModel<float> model;
  test::TemporaryFolder parent;
  const std::string folder = parent / "checkpoints";
};

TEST_F(CheckpointFolderTest, KeepsTheNewestAndTheBest) {
  const CheckpointFolder checkpoints(folder, 2);
  EXPECT_EQ(checkpoints.find_newest().path, "");
  for (const int step : {9, 10, 100}) {
    write(checkpoints, step);
    if (step == 9) {
      checkpoints.keep_as_best(9);
      checkpoints.keep_as_best(9);
    }
  }
  EXPECT_EQ(names_in(folder), (Names{"best.h5", "step_10.h5", "step_100.h5"}));
  EXPECT_EQ(read_checkpoint_content(checkpoints.best()).step, 9);
  checkpoints.keep_as_best(10);
  EXPECT_EQ(read_checkpoint_content(checkpoints.best()).step, 10);
  const auto found = checkpoints.find_newest();
  EXPECT_EQ(found.path, folder + "/step_100.h5");
  EXPECT_EQ(found.step, 100);
  EXPECT_TRUE(found.refused.empty());
}

TEST_F(CheckpointFolderTest, OffersTheNextOlderAndSaysWhy) {
  const CheckpointFolder checkpoints(folder, 9);
  for (const int step : {1, 2, 3, 4}) {
    write(checkpoints, step);
  }
  write_bytes(folder + "/step_5.h5", "something else");
  write_bytes(folder + "/step_6.txt", "not looked at");
  write_bytes(folder + "/step_07.h5", "not looked at");
  damage(folder + "/step_4.h5", 1100);
  damage(folder + "/step_3.h5",
         Hdf5File(folder + "/step_3.h5").place_of("/parameters/model.norm.weight"));
  const auto found = checkpoints.find_newest();
  EXPECT_EQ(found.path, folder + "/step_2.h5");
  EXPECT_EQ(found.step, 2);
  ASSERT_EQ(found.refused.size(), 3u);
  EXPECT_EQ(found.refused[0].path, folder + "/step_5.h5");
  EXPECT_NE(found.refused[0].reason.find("is not a checkpoint of qnext"), std::string::npos);
  EXPECT_NE(found.refused[1].reason.find("the hash of its metadata is"), std::string::npos);
  EXPECT_NE(found.refused[2].reason.find("/parameters/model.norm.weight: is damaged"),
            std::string::npos);
}

TEST_F(CheckpointFolderTest, FallsBackToTheBest) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 1);
  checkpoints.keep_as_best(1);
  write(checkpoints, 2);
  damage(folder + "/step_2.h5", 1100);
  EXPECT_EQ(checkpoints.find_newest().path, folder + "/best.h5");
  EXPECT_EQ(checkpoints.find_newest().step, 1);
}

// A run that went on from an older checkpoint never removes what it has just written.
TEST_F(CheckpointFolderTest, NeverRemovesTheOneJustWritten) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 20);
  write(checkpoints, 10);
  EXPECT_EQ(names_in(folder), (Names{"step_10.h5", "step_20.h5"}));
}

TEST_F(CheckpointFolderTest, RemovesWhatAKilledRunLeft) {
  const CheckpointFolder checkpoints(folder, 2);
  write(checkpoints, 1);
  write_bytes(folder + "/step_2.h5.part", "half");
  EXPECT_EQ(checkpoints.find_newest().step, 1);
  EXPECT_EQ(checkpoints.remove_leftovers(), Names{folder + "/step_2.h5.part"});
  EXPECT_EQ(names_in(folder), Names{"step_1.h5"});
}

TEST_F(CheckpointFolderTest, AFullDiskRemovesNothing) {
  const CheckpointFolder checkpoints(folder, 1);
  write(checkpoints, 1);
  {
    const test::FileSizeLimit limit(5000);
    EXPECT_THROW(write(checkpoints, 2), EnvironmentError);
  }
  EXPECT_EQ(names_in(folder), Names{"step_1.h5"});
  EXPECT_EQ(checkpoints.find_newest().step, 1);
}

TEST_F(CheckpointFolderTest, AFolderThatIsNotThereIsEmpty) {
  const CheckpointFolder checkpoints(folder, 1);
  EXPECT_TRUE(checkpoints.remove_leftovers().empty());
  EXPECT_EQ(checkpoints.find_newest().path, "");
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(CheckpointFolderTest, AFolderThatCannotBeMadeIsNamed) {
  write_bytes(parent / "file", "x");
  const CheckpointFolder checkpoints(parent / "file/checkpoints", 1);
  EXPECT_EQ(message_of([&] { write(checkpoints, 1); }),
            parent / "file/checkpoints" + ": cannot be made: Not a directory");
}

// A folder with something in it where a file is expected: even root cannot remove it like a file.
TEST_F(CheckpointFolderTest, NamesWhatCannotBeRemoved) {
  const CheckpointFolder checkpoints(folder, 1);
  const std::string part = folder + "/step_9.h5.part", old = folder + "/step_1.h5";
  std::filesystem::create_directories(part + "/full");
  EXPECT_EQ(message_of([&] { checkpoints.remove_leftovers(); }),
            part + ": cannot be removed: Directory not empty");
  std::filesystem::remove_all(part);
  std::filesystem::create_directories(old + "/full");
  EXPECT_EQ(message_of([&] { write(checkpoints, 2); }),
            old + ": cannot be removed: Directory not empty");
}

TEST_F(CheckpointFolderTest, NamesABestThatIsNotThere) {
  const CheckpointFolder checkpoints(folder, 1);
  EXPECT_EQ(message_of([&] { checkpoints.keep_as_best(3); }),
            checkpoints.best() + ": cannot be made: No such file or directory");
}

}  // namespace
}  // namespace qnext
