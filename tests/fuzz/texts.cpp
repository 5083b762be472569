// Small formats from outside: encodings, names, durations, positions, text of any encoding.
//
// - A decoded text, encoded again, is the original.
// - Text made printable is UTF-8, shows nothing hidden, and is printable.
// - Converted text is UTF-8; an id that cannot be converted is refused.
#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/code_points.h"
#include "base/duration.h"
#include "base/encoding.h"
#include "base/printable.h"
#include "config/source.h"
#include "keys/key_form.h"
#include "loader/postgres/identity.h"
#include "loader/postgres/sql_text.h"
#include "loader/postgres/text_converter.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/support/base64.h"

namespace {

using namespace latchkey;

bool is_utf8(std::string_view text, bool nothing_hidden = false) {
  const auto* at = reinterpret_cast<const unsigned char*>(text.data());
  for (std::size_t left = text.size(); left > 0;) {
    std::uint32_t code = 0;
    const std::size_t length = latchkey_code_point(at, left, &code);
    if (length == 0 || (nothing_hidden && latchkey_is_hidden(code))) return false;
    at += length;
    left -= length;
  }
  return true;
}

void check_encodings(const std::string& text) {
  if (const auto bytes = decode_hex(text)) {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string again;
    for (const char c : *bytes) {
      again += kDigits[static_cast<unsigned char>(c) >> 4];
      again += kDigits[static_cast<unsigned char>(c) & 15];
    }
    std::string lower = text;
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    FUZZ_CHECK(again == lower);
  }
  const auto bytes = decode_base64(text), url = decode_base64url(text);
  if (url) {
    FUZZ_CHECK(bytes == url);
    FUZZ_CHECK(test::base64(*url, true, false) == text);
  }
  if (bytes) {
    std::string digits = text.substr(0, text.find('='));
    std::ranges::replace(digits, '+', '-');
    std::ranges::replace(digits, '/', '_');
    const std::string again = test::base64(*bytes, true, false);
    // Except for the spare bits of the last character.
    FUZZ_CHECK(again.size() == digits.size());
    const std::size_t whole = digits.size() / 4 * 4;
    FUZZ_CHECK(again.substr(0, whole) == digits.substr(0, whole));
  }
  for (const bool for_url : {false, true}) {
    for (const bool padded : {false, true}) {
      FUZZ_CHECK(decode_base64(test::base64(text, for_url, padded)) == text);
    }
  }
}

void check_printable(const std::string& text) {
  const std::string shown = printable(text);
  FUZZ_CHECK(is_utf8(shown, true));
  FUZZ_CHECK(shown.size() <= text.size());
  FUZZ_CHECK(printable(shown) == shown);
  if (is_utf8(text, true)) FUZZ_CHECK(shown == text);
  const std::string json =
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const std::string shown_json = printable_json(json);
  FUZZ_CHECK(is_utf8(shown_json, true));
  FUZZ_CHECK(nlohmann::json::parse(shown_json) == nlohmann::json::parse(json));
}

void check_names(const std::string& text) {
  if (const auto name = TableName::parse(text)) {
    FUZZ_CHECK(!name->schema.empty() && !name->table.empty());
    FUZZ_CHECK(TableName::parse(quoted(*name)) == name);
  }
  if (const auto position = parse_lsn(text)) {
    FUZZ_CHECK(parse_lsn(show_lsn(*position)) == position);
  }
  if (const auto duration = parse_duration(text)) {
    FUZZ_CHECK(duration->count() >= 0 && *duration <= std::chrono::hours(24 * 366));
  }
  if (is_minted_key(text)) FUZZ_CHECK(has_minted_form(text));
  if (is_key_prefix(text)) FUZZ_CHECK(!text.empty() && text.size() <= kKeyPrefixMax);
}

void check_converter(std::string text, TextConverter& converter, bool is_unicode) {
  text.erase(std::remove(text.begin(), text.end(), '\0'), text.end());
  const auto converted = converter.to_utf8(text);
  const std::string id = converter.id(text);
  if (converted) {
    FUZZ_CHECK(is_utf8(*converted));
    FUZZ_CHECK(id == *converted);
    if (is_unicode) FUZZ_CHECK(*converted == text);
  } else {
    FUZZ_CHECK(!is_utf8(id));
    FUZZ_CHECK(!is_ascii(text));
  }
  FUZZ_CHECK(is_utf8(converter.to_utf8_or_marks(text)));
  if (is_ascii(text)) FUZZ_CHECK(converted == text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static TextConverter utf8("UTF8"), latin2("LATIN2"), shift_jis("SJIS"), euc("EUC_JP"),
      win("WIN1252"), ascii("SQL_ASCII"), gb("GB18030"), big5("BIG5"), unknown("KLINGON");
  const std::string text(reinterpret_cast<const char*>(data), size);
  check_encodings(text);
  check_printable(text);
  check_names(text);
  check_converter(text, utf8, true);
  check_converter(text, ascii, true);
  for (TextConverter* one : {&latin2, &shift_jis, &euc, &win, &gb, &big5, &unknown}) {
    check_converter(text, *one, false);
  }
  return 0;
}
