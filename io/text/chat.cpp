// SPDX-License-Identifier: Apache-2.0
#include "io/text/chat.hpp"

#include "core/require.hpp"
#include "io/posix_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

namespace qnext {
namespace {

constexpr std::string_view begin_turn = "<|im_start|>", end_turn = "<|im_end|>";
constexpr std::string_view begin_thoughts = "<think>", end_thoughts = "</think>";

std::string_view without_front_breaks(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  return text;
}

std::string_view without_back_breaks(std::string_view text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

std::string_view behind_last(std::string_view text, std::string_view mark) {
  const std::size_t at = text.rfind(mark);
  return at == text.npos ? text : text.substr(at + mark.size());
}

struct Answer {
  std::string_view thoughts, words;
};

// Thoughts stand in a field of their own, or in the content before the first </think>.
Answer answer_of(const ChatMessage& message) {
  const std::string_view content = message.content;
  if (message.reasoning) {
    return {*message.reasoning, content};
  }
  const std::size_t end = content.find(end_thoughts);
  if (end == content.npos) {
    return {{}, content};
  }
  return {without_front_breaks(
              behind_last(without_back_breaks(content.substr(0, end)), begin_thoughts)),
          without_front_breaks(behind_last(content, end_thoughts))};
}

bool is_question(const ChatMessage& message) {
  return message.role == "user" && !(message.content.starts_with("<tool_response>") &&
                                     message.content.ends_with("</tool_response>"));
}

// Of the last question, or of the last message where there is none.
std::size_t last_question(const std::vector<ChatMessage>& messages) {
  for (std::size_t i = messages.size(); i > 0; --i) {
    if (is_question(messages[i - 1])) {
      return i - 1;
    }
  }
  return messages.size() - 1;
}

ChatTurn turn_of(const std::string& role, std::string_view given, std::string_view body) {
  ChatTurn turn;
  turn.text = fmt::format("{}{}\n{}{}{}\n", begin_turn, role, given, body, end_turn);
  turn.given =
      role == "assistant" ? begin_turn.size() + role.size() + 1 + given.size() : turn.text.size();
  return turn;
}

}  // namespace

ChatStyle chat_style_named(const std::string& name) {
  if (name == "instruct") {
    return ChatStyle::instruct;
  }
  if (name == "thinking") {
    return ChatStyle::thinking;
  }
  throw InputError("--chat " + name + ": wanted is instruct or thinking");
}

std::string name_of(ChatStyle style) {
  return style == ChatStyle::thinking ? "thinking" : "instruct";
}

ChatStyle chat_style_of(const std::optional<std::string>& chat_template,
                        const std::optional<std::string>& tokenizer_config,
                        const std::string& name_of_config) {
  std::string found = chat_template.value_or("");
  if (!chat_template && tokenizer_config) {
    const Json json = Json::parse(*tokenizer_config, name_of_config);
    const Json* const key = json.find("chat_template");
    found = key != nullptr && key->is_text() ? key->text("") : "";
  }
  return found.find(begin_thoughts) != std::string::npos ? ChatStyle::thinking
                                                         : ChatStyle::instruct;
}

ChatStyle chat_style_of(const std::string& tokenizer) {
  namespace fs = std::filesystem;
  const auto text_of = [](const fs::path& path) -> std::optional<std::string> {
    std::ifstream in(path, std::ios::binary);
    return in ? std::optional(std::string(std::istreambuf_iterator<char>(in), {})) : std::nullopt;
  };
  const fs::path folder(fs::is_directory(tokenizer) ? tokenizer : folder_of(tokenizer));
  const fs::path config = folder / "tokenizer_config.json";
  return chat_style_of(text_of(folder / "chat_template.jinja"), text_of(config), config.string());
}

std::vector<ChatMessage> chat_messages(const Json& list, const std::string& where) {
  std::vector<ChatMessage> messages;
  for (const Json& json : list.list(where)) {
    const std::string name = fmt::format("{}[{}]", where, messages.size());
    ChatMessage message;
    for (const auto& [key, value] : json.object(name)) {
      const std::string key_name = name + "." + key;
      if (key == "role") {
        message.role = value.text(key_name);
      } else if (key == "content") {
        message.content = value.text(key_name);
      } else if (key == "reasoning_content") {
        if (!value.is_null()) {
          message.reasoning = value.text(key_name);
        }
      } else if (!value.is_null()) {
        throw InputError(key_name +
                         ": is not supported, expected role, content and reasoning_content");
      }
    }
    if (message.role != "system" && message.role != "user" && message.role != "assistant") {
      throw InputError(fmt::format(
          "{}.role: \"{}\" is not supported, expected system, user or assistant; tools are not",
          name, message.role));
    }
    messages.push_back(message);
  }
  if (messages.empty()) {
    throw InputError(where + ": is empty, expected at least one message");
  }
  return messages;
}

std::vector<ChatTurn> chat_turns(const std::vector<ChatMessage>& messages, ChatStyle style) {
  std::vector<ChatTurn> turns;
  const std::size_t question = messages.empty() ? 0 : last_question(messages);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    if (message.role != "assistant" || style == ChatStyle::instruct) {
      turns.push_back(turn_of(message.role, "", message.content));
      continue;
    }
    const Answer answer = answer_of(message);
    if (i > question && (i + 1 == messages.size() || !answer.thoughts.empty())) {
      const std::string body =
          fmt::format("{}\n{}\n\n{}", without_front_breaks(without_back_breaks(answer.thoughts)),
                      end_thoughts, without_front_breaks(answer.words));
      turns.push_back(turn_of(message.role, fmt::format("{}\n", begin_thoughts), body));
    } else {
      turns.push_back(turn_of(message.role, "", answer.words));
    }
  }
  return turns;
}

std::string generation_prompt(ChatStyle style) {
  std::string prompt = fmt::format("{}assistant\n", begin_turn);
  if (style == ChatStyle::thinking) {
    prompt += fmt::format("{}\n", begin_thoughts);
  }
  return prompt;
}

std::string render_chat(const std::vector<ChatMessage>& messages, ChatStyle style,
                        bool add_generation_prompt) {
  std::string text;
  for (const ChatTurn& turn : chat_turns(messages, style)) {
    text += turn.text;
  }
  return add_generation_prompt ? text + generation_prompt(style) : text;
}

// Turn by turn, which is the same as all at once: each begins and ends at a special token, where
// the text is cut before anything else. What is given is ASCII, which the normal form leaves alone,
// so the bytes of the tokens count up to it.
void encode_chat(const std::vector<ChatTurn>& turns, const Tokenizer& tokenizer, Encoder& encoder,
                 std::vector<int>& ids, std::vector<std::uint8_t>& mask) {
  const std::optional<int> begin = tokenizer.added_token(begin_turn);
  const std::optional<int> end = tokenizer.added_token(end_turn);
  if (!begin || !end) {
    throw InputError(fmt::format("{}: has no token {}, which chats need", tokenizer.path(),
                                 begin ? end_turn : begin_turn));
  }
  for (const ChatTurn& turn : turns) {
    const std::size_t first = ids.size();
    encoder.encode(turn.text, ids);
    mask.resize(ids.size(), 0);
    if (turn.given == turn.text.size()) {
      continue;
    }
    std::size_t last = ids.size() - 1;
    while (ids[last] != *end) {
      --last;
    }
    std::size_t bytes = 0;  // in front of the token
    for (std::size_t i = first; i <= last; ++i) {
      mask[i] = bytes >= turn.given ? 1 : 0;
      bytes += tokenizer.bytes(ids[i]).size();
    }
  }
}

}  // namespace qnext
