// The input of `verify` and `why`: keys from standard input, terms from the command line.
#pragma once

#include <latchkey/client.h>

#include <string_view>
#include <vector>

#include "tool/commands.h"

namespace latchkey {

// The terms in liblatchkey's form. They refer to the settings, which outlive this object.
class VerifyQuestion {
 public:
  explicit VerifyQuestion(const VerifySettings& settings);
  VerifyQuestion(const VerifyQuestion&) = delete;
  VerifyQuestion& operator=(const VerifyQuestion&) = delete;
  [[nodiscard]] const latchkey_question* get() const { return &question_; }

 private:
  std::vector<const char*> all_scopes_, any_scopes_;
  latchkey_question question_ = LATCHKEY_QUESTION_INIT;
};

// Reads lines as they arrive: a key typed at a terminal is answered at once, a file in full
// batches.
class KeyReader {
 public:
  KeyReader() = default;
  ~KeyReader();
  KeyReader(const KeyReader&) = delete;
  KeyReader& operator=(const KeyReader&) = delete;

  // Returns the complete lines received so far, at most a batch, after waiting for the first one;
  // empty at the end. The views live until the next call.
  std::vector<std::string_view> next();

 private:
  std::vector<std::string_view> take();
  void read_more();

  static constexpr std::size_t kChunk = 65536;
  static constexpr std::size_t kLineMax = 1 << 20;
  std::vector<char> bytes_ = std::vector<char>(kChunk * 2);
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  bool ended_ = false;
};

}  // namespace latchkey
