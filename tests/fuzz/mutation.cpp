// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/mutation.hpp"

#include "core/random.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>

namespace qnext::fuzz {
namespace {

constexpr std::size_t longest = 1 << 16;

class Dice {
 public:
  explicit Dice(std::uint64_t index) : key_(random_key(index, "fuzz")) {}

  /// From 0 to below `count`.
  std::size_t below(std::size_t count) {
    return count == 0 ? 0
                      : std::min(count - 1, static_cast<std::size_t>(random_uniform(key_, next_++) *
                                                                     static_cast<double>(count)));
  }

 private:
  std::uint64_t key_, next_ = 0;
};

/// A number that readers stumble over.
std::int64_t edge(Dice& dice) {
  constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t numbers[] = {
      0,          1,        -1,       2,     7,      8,           127,
      128,        255,      256,      65535, 65536,  0x7fffffff,  1l << 31,
      0xffffffff, 1l << 32, 1l << 62, least, ~least, 100'000'000, 1'000'000'000'000};
  const auto number = static_cast<std::uint64_t>(numbers[dice.below(std::size(numbers))]);
  return static_cast<std::int64_t>(number + dice.below(2));  // the largest one wraps around
}

std::string piece_of(const std::string& text, Dice& dice) {
  const std::size_t begin = dice.below(text.size());
  return text.substr(begin, 1 + dice.below(std::min<std::size_t>(text.size() - begin, 64)));
}

void write_number(std::string& text, Dice& dice) {
  const std::int64_t number = edge(dice);
  const std::size_t bytes = std::size_t{1} << dice.below(4);
  if (text.size() >= bytes) {
    std::memcpy(text.data() + dice.below(text.size() - bytes + 1), &number, bytes);
  }
}

/// Another number where the text has digits.
void write_digits(std::string& text, Dice& dice) {
  const std::size_t begin = text.find_first_of("0123456789", dice.below(text.size()));
  if (begin != text.npos) {
    const std::size_t end = text.find_first_not_of("0123456789", begin);
    text.replace(begin, std::min(end, text.size()) - begin, std::to_string(edge(dice)));
  }
}

void change(std::string& text, const std::vector<std::string>& seeds,
            const std::vector<std::string>& words, Dice& dice) {
  const std::size_t at = dice.below(text.size());
  switch (dice.below(9)) {
    case 0:
      if (!text.empty()) {
        text[at] = static_cast<char>(text[at] ^ (1 << dice.below(8)));
      }
      return;
    case 1:
      if (!text.empty()) {
        text[at] = static_cast<char>(dice.below(256));
      }
      return;
    case 2:
      return write_number(text, dice);
    case 3:
      return write_digits(text, dice);
    case 4:
      text.erase(at, 1 + dice.below(dice.below(4) == 0 ? text.size() : 8));
      return;
    case 5:
      text.insert(at, piece_of(text, dice));
      return;
    case 6:
      text.insert(at, piece_of(seeds[dice.below(seeds.size())], dice));
      return;
    case 7:
      if (!words.empty()) {
        text.insert(at, words[dice.below(words.size())]);
      }
      return;
    default:
      text.resize(dice.below(4) == 0 ? at : text.size());
  }
}

}  // namespace

std::string mutated(const std::vector<std::string>& seeds, const std::vector<std::string>& words,
                    std::uint64_t index) {
  Dice dice(index);
  std::string text = seeds[index % seeds.size()];
  for (std::size_t changes = 1 + dice.below(8); changes > 0; --changes) {
    change(text, seeds, words, dice);
  }
  text.resize(std::min(text.size(), longest));
  return text;
}

}  // namespace qnext::fuzz
