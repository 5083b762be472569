#include "tool/question.h"

#include <openssl/crypto.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace latchkey {

VerifyQuestion::VerifyQuestion(const VerifySettings& settings) {
  for (const std::string& scope : settings.scopes) all_scopes_.push_back(scope.c_str());
  for (const std::string& scope : settings.any_scopes) any_scopes_.push_back(scope.c_str());
  question_.all_scopes = all_scopes_.data();
  question_.all_scopes_count = all_scopes_.size();
  question_.any_scopes = any_scopes_.data();
  question_.any_scopes_count = any_scopes_.size();
  if (settings.source) question_.source = settings.source->c_str();
  if (settings.metadata) question_.flags |= LATCHKEY_WANT_METADATA;
  if (settings.max_age) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(*settings.max_age);
    question_.max_age_ms =
        static_cast<std::uint32_t>(std::min<std::int64_t>(ms.count(), LATCHKEY_MAX_AGE_ANY - 1));
  }
}

KeyReader::~KeyReader() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

std::vector<std::string_view> KeyReader::next() {
  for (;;) {
    std::vector<std::string_view> keys = take();
    if (!keys.empty() || (ended_ && at_ == size_)) return keys;
    read_more();
  }
}

std::vector<std::string_view> KeyReader::take() {
  std::vector<std::string_view> keys;
  while (keys.size() < LATCHKEY_BATCH_KEYS_MAX) {
    const std::string_view rest(bytes_.data() + at_, size_ - at_);
    std::size_t length = rest.find('\n');
    if (length == std::string_view::npos) {
      if (!ended_ || rest.empty()) break;
      length = rest.size();
    }
    std::string_view key = rest.substr(0, length);
    if (key.ends_with('\r')) key.remove_suffix(1);
    // One byte over the limit is enough for the daemon to answer `malformed`.
    key = key.substr(0, LATCHKEY_KEY_BYTES_MAX + 1);
    keys.push_back(key);
    at_ = std::min(size_, at_ + length + 1);
  }
  return keys;
}

void KeyReader::read_more() {
  std::copy(bytes_.begin() + static_cast<std::ptrdiff_t>(at_),
            bytes_.begin() + static_cast<std::ptrdiff_t>(size_), bytes_.begin());
  size_ -= at_;
  at_ = 0;
  if (bytes_.size() - size_ < kChunk) {
    // A longer line is no key: the bytes after its first ones do not change the answer.
    if (size_ >= kLineMax) size_ = LATCHKEY_KEY_BYTES_MAX + 1;
    std::vector<char> larger(std::max(bytes_.size() * 2, size_ + kChunk));
    std::copy_n(bytes_.begin(), size_, larger.begin());
    OPENSSL_cleanse(bytes_.data(), bytes_.size());
    bytes_.swap(larger);
  }
  const ssize_t got = ::read(STDIN_FILENO, bytes_.data() + size_, kChunk);
  if (got < 0 && errno == EINTR) return;
  if (got < 0) throw UsageError{"cannot read standard input"};
  if (got == 0) ended_ = true;
  size_ += static_cast<std::size_t>(got);
}

}  // namespace latchkey
