// SPDX-License-Identifier: Apache-2.0
#include "io/text/document.hpp"

#include "core/require.hpp"
#include "io/json.hpp"

namespace qnext {

void DocumentEncoder::add(const std::string& text, std::uint8_t learnt, Document& document) {
  encoder_.encode(text, document.ids);
  document.mask.resize(document.ids.size(), learnt);
}

void DocumentEncoder::finish(Document& document) const {
  if (end_) {
    document.ids.push_back(*end_);
    document.mask.push_back(1);
  }
}

Document DocumentEncoder::encode(const std::string& record, bool json, const std::string& where) {
  Document document;
  try {
    if (!json) {
      add(record, 1, document);
      finish(document);
      return document;
    }
    const Json root = Json::parse(record, "JSON");
    root.object("the record");
    if (const Json* const tools = root.find("tools"); tools != nullptr && !tools->is_null()) {
      throw InputError("tools: are not supported");
    }
    if (const Json* const messages = root.find("messages")) {
      encode_chat(chat_turns(chat_messages(*messages, "messages"), style_), tokenizer_, encoder_,
                  document.ids, document.mask);
    } else if (const Json* const text = root.find("text")) {
      add(text->text("text"), 1, document);
      finish(document);
    } else if (root.find("prompt") != nullptr && root.find("completion") != nullptr) {
      add(root.find("prompt")->text("prompt"), 0, document);
      add(root.find("completion")->text("completion"), 1, document);
      finish(document);
    } else {
      throw InputError("has neither text, nor messages, nor prompt and completion");
    }
  } catch (const InputError& error) {
    throw InputError(where + ": " + error.what());
  }
  return document;
}

}  // namespace qnext
