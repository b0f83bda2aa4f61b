// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qnext {

/// How the next token is drawn. In this order, which is that of transformers:
///
///     repetition  l = l / r for l > 0, else l r, of every token of prompt and text  (transformers)
///     presence    l = l - a of every token of the text                              (vLLM)
///     temperature p = softmax(l / T); 0: the most probable token, the lowest of equals
///     top_k       the k most probable tokens, the lower number first of equals; 0: all
///     top_p       the smallest set of most probable tokens that holds this share of what is left
///     min_p       tokens with at least this share of the largest probability
struct Sampling {
  double temperature = 1.0;
  int top_k = 0;
  double top_p = 1.0;
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  double presence_penalty = 0.0;
  std::uint64_t seed = 1;

  bool greedy() const { return temperature == 0.0; }
};

/// The logits behind the penalties. A token counts once, however often it came.
void penalise(std::span<double> logits, std::span<const int> prompt, std::span<const int> written,
              const Sampling& sampling);

/// The probabilities that penalised logits give: what is drawn from. Throws BadNumberError where a
/// logit is not finite.
std::vector<double> probabilities(std::span<const double> logits, const Sampling& sampling);

/// The token that a uniform number in [0, 1) falls on. Never one of probability zero.
int draw(std::span<const double> probabilities, double uniform);

/// What uniform numbers of one text are for.
enum class Draw { token, draft, acceptance };

/// Number `place` of the stream of that purpose which the seed names.
double uniform_of(const Sampling& sampling, Draw purpose, std::uint64_t place);

/// Speculative sampling: a draft d, drawn from q, stays with probability min(1, p_d / q_d), and the
/// token in its place is drawn from max(p - q, 0) / sum: what is written has the probabilities p.
bool stays(std::span<const double> p, std::span<const double> q, int draft, double uniform);
std::vector<double> without_draft(std::span<const double> p, std::span<const double> q);

/// Draws the token at a place of a text. Throws as `probabilities`.
int sample(std::span<const double> logits, const Sampling& sampling, std::uint64_t place);

}  // namespace qnext
