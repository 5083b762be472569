// What `verify` and `why` ask with: keys from standard input, terms from the command line.
#pragma once

#include <string_view>
#include <vector>

#include "client/commands.h"
#include "protocol/codec.h"

namespace latchkey {

// The terms as the protocol has them; throws UsageError where they break a limit of it.
[[nodiscard]] VerifyTerms terms_of(const VerifySettings& settings);

// Lines as they come: a key typed at a terminal is answered at once, a file in full batches.
class KeyReader {
 public:
  KeyReader() = default;
  ~KeyReader();
  KeyReader(const KeyReader&) = delete;
  KeyReader& operator=(const KeyReader&) = delete;

  // Whole lines that are at hand now, at most a batch; empty at the end. Views until the next call.
  std::vector<std::string_view> next(std::size_t bytes_max);

 private:
  std::vector<std::string_view> take(std::size_t bytes_max);
  void read_more();

  static constexpr std::size_t kChunk = 65536;
  static constexpr std::size_t kLineMax = 1 << 20;
  std::vector<char> bytes_ = std::vector<char>(kChunk * 2);
  std::size_t at_ = 0;
  std::size_t size_ = 0;
  bool ended_ = false;
};

}  // namespace latchkey
