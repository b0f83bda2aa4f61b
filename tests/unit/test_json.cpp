// SPDX-License-Identifier: Apache-2.0
#include "io/json.hpp"
#include "tests/temporary_folder.hpp"

#include <gtest/gtest.h>

namespace qnext {
namespace {

using test::message_of;

TEST(Json, KeepsKindsAndOrder) {
  const Json json = Json::parse(
      R"({"b": [1, -2.5, true, null, "é\n"], "a": {}, "large": 9223372036854775807})", "x");
  const auto& object = json.object("x");
  ASSERT_EQ(object.size(), 3u);
  EXPECT_EQ(object[0].first, "b");
  const auto& list = json.find("b")->list("b");
  EXPECT_EQ(list[0].integer(""), 1);
  EXPECT_EQ(list[0].real(""), 1.0);
  EXPECT_EQ(list[1].real(""), -2.5);
  EXPECT_TRUE(list[2].boolean(""));
  EXPECT_TRUE(list[3].is_null());
  EXPECT_EQ(list[4].text(""), "\xc3\xa9\n");
  EXPECT_TRUE(json.find("a")->is_object());
  EXPECT_EQ(json.find("large")->integer(""), 9223372036854775807);
  EXPECT_EQ(json.find("c"), nullptr);
  EXPECT_EQ(list.front().find("c"), nullptr);
  EXPECT_EQ(json.find("b")->to_string(), "[1,-2.5,true,null,\"\xc3\xa9\\n\"]");
}

TEST(Json, NamesTheByteWhereItEnds) {
  for (const auto& [text, byte] : {std::pair("{\"a\": 1,}", 9),
                                   {"", 1},
                                   {"[1] 2", 5},
                                   {"{\"a\" 1}", 6},
                                   {"[NaN]", 2},
                                   {"[\"\xff\"]", 3},
                                   {"// no\n1", 1}}) {
    const std::string message = message_of([&, t = text] { Json::parse(t, "file.json"); });
    EXPECT_EQ(message.find("file.json: byte " + std::to_string(byte) + ": is not JSON: "), 0u)
        << text << ": " << message;
  }
}

TEST(Json, RefusesWhatIsTwiceTooDeepOrTooLarge) {
  EXPECT_EQ(message_of([] { Json::parse(R"({"a": 1, "b": {"a": 2}, "a": 3})", "x"); }),
            "x: \"a\" stands twice in one object");
  EXPECT_EQ(message_of([] {
              Json::parse("[[[1]]]", "x", {100, 2});
            }),
            "x: nests deeper than 2 levels");
  EXPECT_EQ(message_of([] { Json::parse(std::string(1'000'000, '['), "x"); }),
            "x: nests deeper than 32 levels");
  EXPECT_EQ(message_of([] {
              Json::parse("[1, 2]", "x", {5, 2});
            }),
            "x: has 6 bytes, at most 5 are read");
  EXPECT_EQ(message_of([] { Json::parse("[18446744073709551615]", "x"); }),
            "x: the integer 18446744073709551615 does not fit into 64 bits");
}

TEST(Json, NamesTheKindFoundAndWanted) {
  const Json json = Json::parse(R"({"a": "word", "b": 1.5})", "x");
  EXPECT_EQ(message_of([&] { json.find("a")->integer("x: a"); }),
            "x: a = \"word\": is text, wanted is an integer");
  EXPECT_EQ(message_of([&] { json.find("b")->integer("x: b"); }),
            "x: b = 1.5: is a number, wanted is an integer");
  EXPECT_EQ(message_of([&] { json.find("b")->list("x: b"); }),
            "x: b = 1.5: is a number, wanted is a list");
}

TEST(Json, ReadsFiles) {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "a.json", "[1]");
  EXPECT_EQ(Json::read(folder / "a.json").to_string(), "[1]");
  EXPECT_EQ(message_of([&] {
              Json::read(folder / "a.json", {2, 2});
            }),
            folder / "a.json" + ": has 3 bytes, at most 2 are read");
  EXPECT_EQ(message_of([&] { Json::read(folder / "b.json"); }),
            folder / "b.json" + ": cannot be read: No such file or directory");
}

}  // namespace
}  // namespace qnext
