// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "app/generation.hpp"
#include "app/token_text.hpp"
#include "io/text/chat.hpp"

#include <optional>
#include <string>
#include <vector>

namespace qnext {

class Communicator;

/// What was said in a chat, as tokens that a model goes on from.
class Conversation {
 public:
  /// Without a system message if that is empty. Refuses a tokenizer without the tokens of ChatML.
  Conversation(const TokenText& text, ChatStyle style, const std::string& system);

  /// What ends an answer.
  int end_token() const { return end_; }

  /// The prompt behind which the model answers a user's words; its mark is in front of the answer,
  /// which is another text in later prompts where its thoughts are left out.
  void ask(const std::string& words, GenerationRequest& request);

  void answer(const GenerationAnswer& answer);

 private:
  const TokenText& text_;
  ChatStyle style_;
  int end_;
  std::vector<ChatMessage> messages_;
  std::vector<std::vector<int>> written_;  // of each message, where the model wrote it
};

/// The next line of the standard input of the first rank, on all; nothing at its end.
std::optional<std::string> next_line(const Communicator& world);

}  // namespace qnext
