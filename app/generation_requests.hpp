// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/commands.hpp"
#include "app/generation.hpp"
#include "app/model_source.hpp"
#include "app/token_text.hpp"

#include <string>
#include <vector>

namespace qnext {

/// What the command line asks for, with the prompt that it gives and the end tokens of the model.
/// Refuses settings that are none, by the name of their option.
GenerationRequest request_of(const GenerateOptions& options, const TokenText& text,
                             const ModelSource& source);

/// Refuses a prompt without tokens, or with one that the model does not know.
void check_prompt(const std::vector<int>& prompt, int vocabulary);

/// One request for each line of a JSONL file. A line has `prompt` or `tokens` and may have
/// `length`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`,
/// `seed`, `stop` and `stop_tokens` instead of those of `usual`.
std::vector<GenerationRequest> read_requests(const std::string& path,
                                             const GenerationRequest& usual, const TokenText& text,
                                             int vocabulary);

/// The line of an answer: {"tokens": [...], "text": "...", "ending": "length"}.
std::string line_of(const GenerationAnswer& answer);

/// The tokens that end a text according to the Hugging Face folder that a model is or was in: those
/// of generation_config.json or, without one, of config.json.
std::vector<int> end_tokens(const ModelSource& source);

}  // namespace qnext
