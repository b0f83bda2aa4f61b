// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/commands.hpp"
#include "app/generation.hpp"
#include "app/token_text.hpp"

#include <string>
#include <vector>

namespace qnext {

/// What the command line asks for, with the prompt that it gives and the end tokens of the model.
/// Refuses settings that are none, by the name of their option.
GenerationRequest request_of(const GenerateOptions& options, const TokenText& text, int vocabulary);

/// One request for each line of a JSONL file. A line has `prompt` or `tokens` and may have
/// `length`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`,
/// `seed`, `stop` and `stop_tokens` instead of those of `usual`.
std::vector<GenerationRequest> read_requests(const std::string& path,
                                             const GenerationRequest& usual, const TokenText& text,
                                             int vocabulary);

/// The line of an answer: {"tokens": [...], "text": "...", "ending": "length"}.
std::string line_of(const GenerationAnswer& answer);

/// The tokens that end a text according to a Hugging Face folder: those of generation_config.json
/// or, without one, of config.json.
std::vector<int> end_tokens(const std::string& folder);

}  // namespace qnext
