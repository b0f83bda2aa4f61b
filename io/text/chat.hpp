// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "io/json.hpp"
#include "io/text/tokenizer.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace qnext {

struct ChatMessage {
  std::string role = {};  // system, user or assistant
  std::string content = {};
  std::optional<std::string> reasoning = {};  // `reasoning_content`
};

/// The two published forms of ChatML: `instruct` renders what is there; `thinking` gives the turns
/// behind the last user's message their thoughts, and takes them from none before.
enum class ChatStyle { instruct, thinking };

ChatStyle chat_style_named(const std::string& name);
std::string name_of(ChatStyle style);

/// What the template beside a tokenizer is (`chat_template.jinja`, or `chat_template` in
/// `tokenizer_config.json`): `thinking` where it writes <think>. `tokenizer`: tokenizer.json or its
/// folder.
ChatStyle chat_style_of(const std::string& tokenizer);
/// The same from the texts of these files, of which one may be there.
ChatStyle chat_style_of(const std::optional<std::string>& chat_template,
                        const std::optional<std::string>& tokenizer_config,
                        const std::string& name_of_config);

/// The list under `messages`. What the forms above do not say, such as tools, is refused.
std::vector<ChatMessage> chat_messages(const Json& list, const std::string& where);

/// One message as text, <|im_start|> and <|im_end|> included.
struct ChatTurn {
  std::string text = {};
  std::size_t given = 0;  // bytes in front that the model is given; of others than it all
};

std::vector<ChatTurn> chat_turns(const std::vector<ChatMessage>& messages, ChatStyle style);

/// What a model is given so that it answers.
std::string generation_prompt(ChatStyle style);

/// All turns, and the generation prompt where it is asked for.
std::string render_chat(const std::vector<ChatMessage>& messages, ChatStyle style,
                        bool add_generation_prompt);

/// Appends the tokens of a chat, and to `mask` 1 for each that the model has to learn to write: an
/// assistant's words and the <|im_end|> behind them. A token that is partly given counts as given.
void encode_chat(const std::vector<ChatTurn>& turns, const Tokenizer& tokenizer, Encoder& encoder,
                 std::vector<int>& ids, std::vector<std::uint8_t>& mask);

}  // namespace qnext
