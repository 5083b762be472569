// Converts text of a database that is not encoded as UTF-8 to UTF-8, value by value.
//
// PostgreSQL converts for its clients, and fails the whole statement if a single value cannot be
// converted (PostgreSQL manual, "Character Set Support"): a writer of one row could block its whole
// table. So this text is read as it is stored, and converted here with the tables of iconv(3).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

class TextConverter {
 public:
  // `encoding`: as getdatabaseencoding() names it. In an unknown encoding only ASCII converts.
  // SQL_ASCII is no encoding: only valid UTF-8 converts there.
  explicit TextConverter(std::string_view encoding);

  // nullopt if `text` is invalid in that encoding, or has no Unicode counterpart. `text` has no NUL
  // bytes, as text of PostgreSQL has none.
  [[nodiscard]] std::optional<std::string> to_utf8(std::string_view text);
  // For names and texts that are only shown or compared: '?' replaces each byte that is not
  // converted.
  [[nodiscard]] std::string to_utf8_or_marks(std::string_view text);
  // Makes an id that does not convert invalid UTF-8, and so different from every id that converts.
  [[nodiscard]] std::string id(std::string_view stored);

 private:
  // Returns the number of converted bytes of `text`; the result is in `converted`.
  std::size_t convert(std::string_view text, std::string& converted);

  struct Close {
    void operator()(void* handle) const;
  };
  bool is_utf8_;
  // For single-byte encodings: the character of each byte from 0x80 on; empty: none. (iconv would
  // combine some with their neighbours, which PostgreSQL does not.)
  std::vector<std::string> characters_;
  std::unique_ptr<void, Close> handle_;  // iconv_t; for multi-byte encodings
};

[[nodiscard]] bool is_ascii(std::string_view text);
// True if text of a database with this encoding must be read as it is stored. (All of LATIN1 is in
// Unicode.)
[[nodiscard]] bool is_read_as_stored(std::string_view encoding);

}  // namespace latchkey
