// SPDX-License-Identifier: Apache-2.0
#include "io/text/regular_expression.hpp"

#include "core/require.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <new>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace qnext {
namespace {

constexpr std::size_t first_stack = 32 << 10, largest_stack = 8 << 20;  // bytes, of a matcher

std::string sentence_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

const PCRE2_UCHAR* units(std::string_view text) {
  return reinterpret_cast<const PCRE2_UCHAR*>(text.data());
}

}  // namespace

struct RegularExpression::Code {
  pcre2_code* compiled;
};

void RegularExpression::Free::operator()(Code* code) const {
  pcre2_code_free(code->compiled);
  delete code;
}

RegularExpression::RegularExpression(const std::string& pattern, const std::string& where)
    : where_(where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(new Code{pcre2_compile(units(pattern), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error,
                                     &offset, nullptr)});
  if (code_->compiled == nullptr) {
    throw InputError(fmt::format("{}: the expression is wrong at byte {}: {}", where, offset,
                                 sentence_of(error)));
  }
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(code_->compiled, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw InputError(where + ": the expression can match nothing, expected at least one character");
  }
  pcre2_jit_compile(code_->compiled, PCRE2_JIT_COMPLETE);  // where it cannot, matching interprets
}

struct RegularExpression::Matcher::State {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
};

void RegularExpression::Matcher::Free::operator()(State* state) const {
  pcre2_match_data_free(state->data);
  pcre2_match_context_free(state->context);
  pcre2_jit_stack_free(state->stack);
  delete state;
}

RegularExpression::Matcher::Matcher(const RegularExpression& expression)
    : expression_(&expression), state_(new State) {
  state_->data = pcre2_match_data_create_from_pattern(expression.code_->compiled, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(first_stack, largest_stack, nullptr);
  if (state_->data == nullptr || state_->context == nullptr) {
    throw std::bad_alloc();
  }
  if (state_->stack != nullptr) {
    pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
  }
}

bool RegularExpression::Matcher::find(std::string_view text, std::size_t from, Match& match) {
  const int found = pcre2_match(expression_->code_->compiled, units(text), text.size(), from,
                                PCRE2_NO_UTF_CHECK, state_->data, state_->context);
  if (found == PCRE2_ERROR_NOMATCH) {
    return false;
  }
  if (found < 0) {
    throw InputError(fmt::format("{}: the expression gives up at byte {} of a text: {}",
                                 expression_->where_, from, sentence_of(found)));
  }
  const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(state_->data);
  match = {bounds[0], bounds[1]};
  return true;
}

namespace {

// The general categories: one class, or all whose names begin with the letter.
bool is_category(std::string_view name) {
  constexpr std::array<std::string_view, 37> names{
      "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
      "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
      "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cn", "Co", "Cs"};
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Walks over the pattern once and copies what both libraries read alike.
class Translation {
 public:
  Translation(const std::string& pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string result() {
    while (at_ < pattern_.size()) {
      step();
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw InputError(fmt::format(
        "{}: {} at byte {} of the expression is not supported; known are groups, classes, "
        "repetitions, looking ahead and behind, \\s \\d \\r \\n \\t and \\p of a general category",
        where_, what, at_));
  }

  void step() {
    const char letter = pattern_[at_];
    if (letter == '\\') {
      return escape();
    }
    if (in_class_ && (letter == '[' || pattern_.compare(at_, 2, "&&") == 0)) {
      refuse(letter == '[' ? "a class within a class" : "&& in a class");
    }
    if (!in_class_ && (letter == '^' || letter == '$')) {
      refuse(letter == '^' ? "^" : "$");  // of a line for one, of the text for the other
    }
    if (!in_class_ && letter == '{' && pattern_.compare(at_, 2, "{,") == 0) {
      refuse("{,");
    }
    if (!in_class_ && pattern_.compare(at_, 2, "(?") == 0) {
      return group();
    }
    if (!in_class_ && pattern_.compare(at_, 2, "(*") == 0) {
      refuse("(*");
    }
    if (letter == '[') {
      in_class_ = true;
      copy(pattern_.compare(at_, 2, "[^") == 0 ? 2 : 1);
      return;
    }
    in_class_ = in_class_ && letter != ']';
    copy(1);
  }

  void group() {
    for (const std::string_view kind : {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"}) {
      if (pattern_.compare(at_, kind.size(), kind) == 0) {
        return copy(kind.size());
      }
    }
    refuse("a group of another kind");
  }

  // \s is the property White_Space for tokenizers, while PCRE2 adds U+180E.
  void escape() {
    if (at_ + 1 == pattern_.size()) {
      refuse("a backslash");
    }
    const char letter = pattern_[at_ + 1];
    if (letter == 's' || letter == 'S') {
      out_ += letter == 's' ? "\\p{White_Space}" : "\\P{White_Space}";
      at_ += 2;
    } else if (letter == 'p' || letter == 'P') {
      const std::size_t end = pattern_.find('}', at_);
      if (pattern_.compare(at_ + 2, 1, "{") != 0 || end == std::string::npos ||
          !is_category(std::string_view(pattern_).substr(at_ + 3, end - at_ - 3))) {
        refuse("a property that is no general category");
      }
      copy(end + 1 - at_);
    } else if (std::isalnum(static_cast<unsigned char>(letter)) != 0 &&
               std::string_view("drnt").find(letter) == std::string_view::npos) {
      refuse(fmt::format("\\{}", letter));
    } else {
      copy(2);
    }
  }

  void copy(std::size_t count) {
    out_.append(pattern_, at_, count);
    at_ += count;
  }

  const std::string& pattern_;
  const std::string& where_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace

std::string translated_expression(const std::string& pattern, const std::string& where) {
  return Translation(pattern, where).result();
}

}  // namespace qnext
