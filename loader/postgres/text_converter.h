// Text of a database that is not encoded as UTF-8 -> UTF-8, value by value.
//
// PostgreSQL converts for its clients, and refuses the whole statement for the sake of one value
// that cannot be converted (PostgreSQL manual, "Character Set Support"): whoever writes one row
// would stop its table. So such text is read as it is stored, and converted here by the tables of
// iconv(3).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace latchkey {

class TextConverter {
 public:
  // `encoding`: as getdatabaseencoding() names it. Of one that is not known, ASCII alone converts.
  // SQL_ASCII is no encoding: what is UTF-8 there is taken for that, and nothing else.
  explicit TextConverter(std::string_view encoding);

  // Nothing if `text` is none in that encoding, or has no counterpart. Without NUL bytes, as text
  // of PostgreSQL is.
  [[nodiscard]] std::optional<std::string> to_utf8(std::string_view text);
  // For names and texts that are only shown or compared: '?' for each byte that is not converted.
  [[nodiscard]] std::string to_utf8_or_marks(std::string_view text);
  // An id that does not convert is no UTF-8 afterwards: other than any that does.
  [[nodiscard]] std::string id(std::string_view stored);

 private:
  // How many bytes of `text` were converted, and to what.
  std::size_t convert(std::string_view text, std::string& converted);

  struct Close {
    void operator()(void* handle) const;
  };
  bool is_utf8_;
  // Where a character is one byte: what each from 0x80 on is; empty: nothing. (iconv would combine
  // some with those beside them, which PostgreSQL does not.)
  std::vector<std::string> characters_;
  std::unique_ptr<void, Close> handle_;  // iconv_t; where a character may be several bytes
};

[[nodiscard]] bool is_ascii(std::string_view text);
// Does text of such a database have to be read as it is stored? (Of LATIN1 all is in Unicode.)
[[nodiscard]] bool is_read_as_stored(std::string_view encoding);

}  // namespace latchkey
