// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace qnext {

/// A regular expression over whole UTF-8, with the properties of Unicode, compiled for this
/// machine. Threads share it; each has a matcher of its own.
class RegularExpression {
 public:
  /// `where` names the expression in errors. One that can match nothing at all is refused.
  RegularExpression(const std::string& pattern, const std::string& where);

  /// A part of a text, as byte offsets.
  struct Match {
    std::size_t begin = 0, end = 0;
  };

  class Matcher {
   public:
    explicit Matcher(const RegularExpression& expression);

    /// The first match that begins at `from` or later. Throws InputError where the search becomes
    /// too long.
    bool find(std::string_view text, std::size_t from, Match& match);

   private:
    struct State;
    struct Free {
      void operator()(State* state) const;
    };
    const RegularExpression* expression_;
    std::unique_ptr<State, Free> state_;
  };

 private:
  struct Code;
  struct Free {
    void operator()(Code* code) const;
  };
  std::string where_;
  std::unique_ptr<Code, Free> code_;
};

/// Says of an expression as tokenizers writes it (Oniguruma, Ruby's syntax) what PCRE2 calls it, or
/// refuses with InputError what the two understand differently.
std::string translated_expression(const std::string& pattern, const std::string& where);

}  // namespace qnext
