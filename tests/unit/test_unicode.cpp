// SPDX-License-Identifier: Apache-2.0
#include "io/text/byte_level.hpp"
#include "io/text/regular_expression.hpp"
#include "io/text/unicode_normal_form.hpp"
#include "io/text/utf8.hpp"
#include "tests/tokenizer_case.hpp"

#include <gtest/gtest.h>

#include <set>

namespace qnext {
namespace {

using test::message_of;
using Kind = Utf8Front::Kind;

TEST(Utf8, KnowsWholeBrokenAndUnfinished) {
  struct Case {
    const char* bytes;
    Kind kind;
    std::size_t length;
  };
  for (const Case& c : {Case{"", Kind::unfinished, 0},
                        {"a\xff", Kind::whole, 1},
                        {"\xc2\x80", Kind::whole, 2},
                        {"\xc1\xbf", Kind::broken, 1},  // not the shortest form
                        {"\xc2", Kind::unfinished, 1},
                        {"\xc2z", Kind::broken, 1},
                        {"\xe0\x9f\xbf", Kind::broken, 1},
                        {"\xe0\xa0\x80", Kind::whole, 3},
                        {"\xed\x9f\xbf", Kind::whole, 3},
                        {"\xed\xa0\x80", Kind::broken, 1},  // a surrogate
                        {"\xef\xbf", Kind::unfinished, 2},
                        {"\xef\xbf.", Kind::broken, 2},
                        {"\xf0\x8f\xbf\xbf", Kind::broken, 1},
                        {"\xf0\x90\x80\x80", Kind::whole, 4},
                        {"\xf4\x8f\xbf\xbf", Kind::whole, 4},
                        {"\xf4\x90\x80\x80", Kind::broken, 1},  // behind U+10FFFF
                        {"\xf0\x9f\x99", Kind::unfinished, 3},
                        {"\xf0\x9f\x99\xff", Kind::broken, 3},
                        {"\xf5\x80", Kind::broken, 1},
                        {"\x80", Kind::broken, 1}}) {
    const Utf8Front front = utf8_front(c.bytes);
    EXPECT_EQ(front.kind, c.kind) << c.bytes;
    EXPECT_EQ(front.length, c.length) << c.bytes;
  }
}

TEST(Utf8, EveryCharacterComesBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c == 0xD800) {
      c = 0xE000;
    }
    std::string text;
    append_utf8(c, text);
    const Utf8Front front = utf8_front(text);
    ASSERT_EQ(front.kind, Kind::whole) << static_cast<std::uint32_t>(c);
    ASSERT_EQ(front.character, c);
    ASSERT_EQ(front.length, text.size());
  }
}

TEST(Utf8, FindsTheFirstBrokenByte) {
  const std::string ascii(100, 'a');
  EXPECT_EQ(first_broken_utf8(ascii + "\xc3\xa9" + ascii), 202u);
  EXPECT_EQ(first_broken_utf8(ascii + "\xc3" + ascii), 100u);
  EXPECT_EQ(first_broken_utf8(ascii + "\xe2\x82"), 100u);
  EXPECT_TRUE(is_ascii(ascii));
  EXPECT_FALSE(is_ascii(ascii + "\x80"));
}

TEST(ByteLevel, EveryByteHasACharacterOfItsOwn) {
  std::set<std::string> spellings;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string spelling = test::spelling_of_byte(byte);
    spellings.insert(spelling);
    EXPECT_EQ(bytes_of_spelling(spelling), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(spellings.size(), 256u);
  EXPECT_EQ(bytes_of_spelling("\xc4\xa0the"), " the");  // U+0120 is the blank
  EXPECT_EQ(bytes_of_spelling("a b"), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("\xc5\x84"), std::nullopt);  // U+0144 is behind the last
  EXPECT_EQ(bytes_of_spelling("\xff"), std::nullopt);
}

std::string composed(const std::string& text) {
  std::string buffer;
  return std::string(composed_form(text, buffer));
}

TEST(ComposedForm, FollowsTheStandard) {
  EXPECT_EQ(composed("cafe\u0301."), "caf\u00e9.");
  EXPECT_EQ(composed("\u212b"), "\u00c5");               // the sign of the unit
  EXPECT_EQ(composed("e\u0323\u0302"), "\u1ec7");        // both marks go in
  EXPECT_EQ(composed("e\u0302\u0323"), "\u1ec7");        // also in the other order
  EXPECT_EQ(composed("a\u0315\u0300"), "\u00e0\u0315");  // past a mark of another class
  EXPECT_EQ(composed("a\u0301\u0301"), "\u00e1\u0301");  // but not past one of its own
  EXPECT_EQ(composed("\u1112\u1161\u11ab"), "\ud55c");   // Hangul from its letters
  EXPECT_EQ(composed("\ud558\u11ab"), "\ud55c");
  EXPECT_EQ(composed("\u0958"), "\u0915\u093c");  // excluded from composition
  EXPECT_EQ(composed("\u0344"), "\u0308\u0301");
  EXPECT_EQ(composed("\u0301a"), "\u0301a");  // a mark with nothing before it
  EXPECT_EQ(composed("x\u0301 y\u0301z"), "x\u0301 \u00fdz");
  EXPECT_EQ(composed("\U0002f800."), "\u4e3d.");  // ideographs that are another one
}

TEST(ComposedForm, LeavesAloneWhatHasIt) {
  std::string buffer;
  for (const std::string text : {"plain", "d\u00e9j\u00e0 vu \u4f60\u597d \uac00 \U0001f600", ""}) {
    EXPECT_EQ(composed_form(text, buffer).data(), text.data());
  }
}

// Marks of two classes in turns: an exchange of neighbours would take 10^10 steps.
TEST(ComposedForm, TakesManyMarksInItsStride) {
  std::string text = "q", sorted = "q";
  for (int i = 0; i < 100000; ++i) {
    text += "\u0315\u0316";
    sorted += "\u0316";
  }
  for (int i = 0; i < 100000; ++i) {
    sorted += "\u0315";
  }
  EXPECT_EQ(composed(text), sorted);
}

std::vector<std::string> words(const std::string& pattern, const std::string& text) {
  const RegularExpression expression(translated_expression(pattern, "x"), "x");
  RegularExpression::Matcher matcher(expression);
  RegularExpression::Match match;
  std::vector<std::string> found;
  for (std::size_t at = 0; matcher.find(text, at, match); at = match.end) {
    found.push_back(text.substr(match.begin, match.end - match.begin));
  }
  return found;
}

TEST(RegularExpression, MeansWhatTokenizersMeans) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(words(R"(\p{L}+|\p{N}|\s+(?!\S)|\s+)", "ab\u00e9 12  c"),
            (Words{"ab\u00e9", " ", "1", "2", " ", " ", "c"}));
  // U+0085 and U+00A0 are white space, U+180E is not.
  EXPECT_EQ(words(R"(\s)", "\u0085\u00a0\u180e\u3000"), (Words{"\u0085", "\u00a0", "\u3000"}));
  EXPECT_EQ(words(R"([^\s])", "a\u180e\t"), (Words{"a", "\u180e"}));
  EXPECT_EQ(words(R"((?i:'s))", "'S's'\u017f"), (Words{"'S", "'s", "'\u017f"}));
}

TEST(RegularExpression, RefusesWhatTheTwoLibrariesReadDifferently) {
  for (const auto& [pattern, what] :
       {std::pair(R"(a\h)", "\\h at byte 1 of the expression is not supported"),
        {R"(\w+)", "\\w at byte 0 of the expression is not supported"},
        {R"(\p{Han})", "a property that is no general category at byte 0"},
        {R"(^a)", "^ at byte 0"},
        {R"(a$)", "$ at byte 1"},
        {R"([a&&b])", "&& in a class at byte 2"},
        {R"([a[b]])", "a class within a class at byte 2"},
        {R"(a{,3})", "{, at byte 1"},
        {R"((?x:a))", "a group of another kind at byte 0"},
        {R"((*UCP)a)", "(* at byte 0"},
        {"a\\", "a backslash at byte 1"}}) {
    const std::string message =
        message_of([p = pattern] { translated_expression(p, "file: key"); });
    EXPECT_EQ(message.find(std::string("file: key: ") + what), 0u) << message;
  }
  EXPECT_EQ(message_of([] { RegularExpression("a(", "file: key"); }),
            "file: key: the expression is wrong at byte 2: missing closing parenthesis");
  EXPECT_EQ(message_of([] { RegularExpression("a*", "file: key"); }),
            "file: key: the expression can match nothing, expected at least one character");
}

// (a+)+ asks 2^n questions of a run of n letters that ends otherwise.
TEST(RegularExpression, GivesUpWhereTheSearchHasNoEnd) {
  const RegularExpression expression("(a+)+$", "file: key");
  RegularExpression::Matcher matcher(expression);
  RegularExpression::Match match;
  const std::string text = std::string(64, 'a').append("b");
  EXPECT_NE(message_of([&] {
              matcher.find(text, 0, match);
            }).find("file: key: the expression gives up at byte 0 of a text: "),
            std::string::npos);
}

}  // namespace
}  // namespace qnext
