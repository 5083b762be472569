#include "loader/postgres/text_converter.h"

#include <iconv.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>
#include <utility>

#include "base/code_points.h"

namespace latchkey {
namespace {

// A byte of these encodings becomes at most three bytes of UTF-8. (EUC_JIS_2004 has characters of
// two bytes that are two code points.)
constexpr std::size_t kGrowth = 4;
constexpr std::size_t kAscii = 0x80;

// PostgreSQL manual, "Character Set Support", and iconv -l. MULE_INTERNAL has no counterpart. All
// single-byte encodings convert as in PostgreSQL; so do the others, except for three characters and
// for user-defined ones, which PostgreSQL does not convert.
constexpr std::array<std::pair<std::string_view, const char*>, 32> kNames{{
    {"EUC_CN", "EUC-CN"},         {"EUC_JP", "EUC-JP-MS"},      {"EUC_JIS_2004", "EUC-JISX0213"},
    {"EUC_KR", "EUC-KR"},         {"EUC_TW", "EUC-TW"},         {"ISO_8859_5", "ISO-8859-5"},
    {"ISO_8859_6", "ISO-8859-6"}, {"ISO_8859_7", "ISO-8859-7"}, {"ISO_8859_8", "ISO-8859-8"},
    {"KOI8R", "KOI8-R"},          {"KOI8U", "KOI8-U"},          {"LATIN1", "ISO-8859-1"},
    {"LATIN2", "ISO-8859-2"},     {"LATIN3", "ISO-8859-3"},     {"LATIN4", "ISO-8859-4"},
    {"LATIN5", "ISO-8859-9"},     {"LATIN6", "ISO-8859-10"},    {"LATIN7", "ISO-8859-13"},
    {"LATIN8", "ISO-8859-14"},    {"LATIN9", "ISO-8859-15"},    {"LATIN10", "ISO-8859-16"},
    {"WIN866", "CP866"},          {"WIN874", "CP874"},          {"WIN1250", "CP1250"},
    {"WIN1251", "CP1251"},        {"WIN1252", "CP1252"},        {"WIN1253", "CP1253"},
    {"WIN1254", "CP1254"},        {"WIN1255", "CP1255"},        {"WIN1256", "CP1256"},
    {"WIN1257", "CP1257"},        {"WIN1258", "CP1258"},
}};

// All others are single-byte encodings.
bool has_several_bytes(std::string_view encoding) { return encoding.starts_with("EUC_"); }

const iconv_t kNone = reinterpret_cast<iconv_t>(-1);  // NOLINT: iconv_open(3) says so

const char* name_of(std::string_view encoding) {
  const auto found =
      std::ranges::find(kNames, encoding, &std::pair<std::string_view, const char*>::first);
  return found == kNames.end() ? nullptr : found->second;
}

// The length of the UTF-8 prefix of `text`; its first `known` bytes are known to be UTF-8.
std::size_t utf8_prefix(std::string_view text, std::size_t known) {
  for (;;) {
    std::uint32_t code = 0;
    const std::size_t length = latchkey_code_point(
        reinterpret_cast<const unsigned char*>(text.data()) + known, text.size() - known, &code);
    if (length == 0) return known;
    known += length;
  }
}

bool is_ascii_byte(char c) { return static_cast<unsigned char>(c) < kAscii; }

// Appends to `converted` and returns the number of converted bytes of `text`.
std::size_t run(iconv_t handle, std::string_view text, std::string& converted) {
  const std::size_t before = converted.size();
  converted.resize(before + text.size() * kGrowth);
  iconv(handle, nullptr, nullptr, nullptr, nullptr);  // reset to the initial state
  char* from = const_cast<char*>(text.data());        // NOLINT: it only reads (iconv(3))
  std::size_t from_left = text.size();
  char* to = converted.data() + before;
  std::size_t to_left = converted.size() - before;
  if (iconv(handle, &from, &from_left, &to, &to_left) != static_cast<std::size_t>(-1)) {
    // Some encodings hold back a character that may combine with the next one.
    iconv(handle, nullptr, nullptr, &to, &to_left);
  }
  converted.resize(static_cast<std::size_t>(to - converted.data()));
  return text.size() - from_left;
}

}  // namespace

bool is_ascii(std::string_view text) { return std::ranges::all_of(text, is_ascii_byte); }

void TextConverter::Close::operator()(void* handle) const { iconv_close(handle); }

TextConverter::TextConverter(std::string_view encoding)
    : is_utf8_(encoding == "UTF8" || encoding == "SQL_ASCII") {
  const char* name = name_of(encoding);
  if (name == nullptr) return;
  const iconv_t opened = iconv_open("UTF-8", name);
  if (opened == kNone) {
    if (errno == EINVAL) return;  // this system has no tables for it
    throw std::system_error(errno, std::generic_category(), "iconv_open");
  }
  handle_.reset(opened);
  if (has_several_bytes(encoding)) return;
  characters_.resize(kAscii);
  for (std::size_t i = 0; i < characters_.size(); ++i) {
    const char byte = static_cast<char>(kAscii + i);
    run(opened, {&byte, 1}, characters_[i]);
  }
  handle_.reset();
}

std::size_t TextConverter::convert(std::string_view text, std::string& converted) {
  const auto ascii =
      static_cast<std::size_t>(std::ranges::find_if_not(text, is_ascii_byte) - text.begin());
  if (is_utf8_) {  // glibc's converter would accept code points beyond Unicode
    const std::size_t good = utf8_prefix(text, ascii);
    converted.assign(text.substr(0, good));
    return good;
  }
  converted.assign(text.substr(0, ascii));
  if (handle_ != nullptr) return ascii + run(handle_.get(), text.substr(ascii), converted);
  for (std::size_t i = ascii; i < text.size(); ++i) {
    if (is_ascii_byte(text[i])) {
      converted += text[i];
      continue;
    }
    if (characters_.empty()) return i;
    const std::string& character = characters_[static_cast<unsigned char>(text[i]) - kAscii];
    if (character.empty()) return i;
    converted += character;
  }
  return text.size();
}

std::optional<std::string> TextConverter::to_utf8(std::string_view text) {
  std::string converted;
  if (convert(text, converted) != text.size()) return std::nullopt;
  return converted;
}

std::string TextConverter::to_utf8_or_marks(std::string_view text) {
  std::string all, converted;
  for (;;) {
    text.remove_prefix(convert(text, converted));
    all += converted;
    if (text.empty()) return all;
    all += '?';
    text.remove_prefix(1);
  }
}

std::string TextConverter::id(std::string_view stored) {
  if (auto converted = to_utf8(stored)) return *std::move(converted);
  return "\xFF" + std::string(stored);
}

bool is_read_as_stored(std::string_view encoding) {
  return encoding != "UTF8" && encoding != "LATIN1";
}

}  // namespace latchkey
