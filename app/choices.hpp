// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/evaluate.hpp"

#include <string>
#include <vector>

namespace qnext {

/// A question with answers of which one is right.
struct Choice {
  std::string context = {};
  std::vector<std::string> choices = {};  // continuations of the context
  int answer = 0;
};

/// What a model chooses: the most probable continuation, and the one that is most probable for its
/// length in bytes; of equals the first.
struct Chosen {
  int by_sum = 0, by_byte = 0;
  std::vector<double> sums = {};  // log-probabilities, nats
  bool cut = false;               // the context lost its beginning
};

/// Notes the sums of a question, called `place`, that are not finite.
void note(const Chosen& chosen, const std::string& place, NotFinite& not_finite);

std::vector<Chosen> choose(const EvaluationInputs& inputs, const std::vector<Choice>& choices);

}  // namespace qnext
