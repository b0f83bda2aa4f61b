// SPDX-License-Identifier: Apache-2.0
#include "app/conversation.hpp"

#include "core/require.hpp"
#include "parallel/communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <string_view>

namespace qnext {
namespace {

constexpr std::string_view begin_turn = "<|im_start|>", end_turn = "<|im_end|>";
constexpr std::string_view end_thoughts = "</think>";

int token_of(const TokenText& text, std::string_view content) {
  const std::optional<int> token = text.added_token(content);
  if (!token) {
    throw InputError(
        fmt::format("--chat: the tokenizer has no token {}, which chats need", content));
  }
  return *token;
}

void append(std::vector<int>& tokens, const std::vector<int>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}

}  // namespace

Conversation::Conversation(const TokenText& text, ChatStyle style, const std::string& system)
    : text_(text), style_(style), end_(token_of(text, end_turn)) {
  token_of(text, begin_turn);
  if (!system.empty()) {
    messages_.push_back({.role = "system", .content = system});
    written_.emplace_back();
  }
}

// Turn by turn, which is the same as all at once (io/text/chat.cpp). Text that the model wrote may
// have other tokens when it is read, so an answer that stays whole keeps those that it was written
// with.
void Conversation::ask(const std::string& words, GenerationRequest& request) {
  messages_.push_back({.role = "user", .content = words});
  written_.emplace_back();
  const std::vector<int> begin = text_.tokens_of(generation_prompt(style_));
  const std::vector<int> line_break = text_.tokens_of("\n");
  const auto turns = chat_turns(messages_, style_);
  request.prompt.clear();
  for (std::size_t i = 0; i < turns.size(); ++i) {
    if (messages_[i].role == "assistant" && style_ == ChatStyle::instruct) {
      append(request.prompt, begin);
      append(request.prompt, written_[i]);
      request.prompt.push_back(end_);
      append(request.prompt, line_break);
    } else {
      append(request.prompt, text_.tokens_of(turns[i].text));
    }
  }
  request.mark = static_cast<int>(request.prompt.size());
  append(request.prompt, begin);
}

// An answer that ended while the model thought has no words.
void Conversation::answer(const GenerationAnswer& answer) {
  ChatMessage message{.role = "assistant", .content = answer.text};
  if (style_ == ChatStyle::thinking && answer.text.find(end_thoughts) == std::string::npos) {
    message.reasoning = answer.text;
    message.content.clear();
  }
  std::vector<int> written = answer.tokens;
  if (answer.ending == Ending::stop_token) {
    written.pop_back();
  }
  messages_.push_back(message);
  written_.push_back(written);
}

std::optional<std::string> next_line(const Communicator& world) {
  std::string line;
  bool there = false;
  if (world.first()) {
    there = static_cast<bool>(std::getline(std::cin, line));
  }
  std::string sent = there ? "." + line : "";
  world.broadcast(sent, 0);
  return sent.empty() ? std::nullopt : std::optional(sent.substr(1));
}

}  // namespace qnext
