#include "base/printable.h"

#include <cstdint>

#include "base/code_points.h"

namespace latchkey {
namespace {

constexpr std::size_t kWaitingMax = 8192;
constexpr std::size_t kCodePointBytesMax = 4;
constexpr std::uint32_t kReplacement = 0xFFFD;

std::size_t code_point(std::string_view text, std::uint32_t& code) {
  return latchkey_code_point(reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                             &code);
}

// Copies visible code points and calls `hidden` for each other one (kReplacement for an invalid
// byte).
template <typename Hidden>
std::string filtered(std::string_view text, bool keep_lines, Hidden hidden) {
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    std::uint32_t code = 0;
    const std::size_t length = code_point(text, code);
    if (length == 0) {
      hidden(shown, kReplacement);
      text.remove_prefix(1);
      continue;
    }
    if (latchkey_is_hidden(code) && !(keep_lines && code == '\n')) {
      hidden(shown, code);
    } else {
      shown.append(text.substr(0, length));
    }
    text.remove_prefix(length);
  }
  return shown;
}

void mark(std::string& shown, std::uint32_t) { shown += '?'; }

// RFC 8259, section 7: code points beyond the first plane become two UTF-16 units.
void escape(std::string& shown, std::uint32_t code) {
  constexpr const char* kDigits = "0123456789abcdef";
  const auto unit = [&](std::uint32_t value) {
    shown += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) shown += kDigits[value >> shift & 15];
  };
  if (code < 0x10000) return unit(code);
  unit(0xD800 + ((code - 0x10000) >> 10));
  unit(0xDC00 + ((code - 0x10000) & 0x3FF));
}

// Number of bytes at the end that may be an incomplete code point.
std::size_t unfinished(std::string_view text) {
  for (std::size_t back = 1; back < kCodePointBytesMax && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string printable(std::string_view text) { return filtered(text, false, mark); }

std::string printable_json(std::string_view json) { return filtered(json, true, escape); }

PrintableStream::~PrintableStream() {
  pass_on(true);
  below_->pubsync();
  stream_.rdbuf(below_);
}

void PrintableStream::set_kind(Kind kind) {
  pass_on(true);
  kind_ = kind;
}

PrintableStream::int_type PrintableStream::overflow(int_type c) {
  if (traits_type::eq_int_type(c, traits_type::eof())) return traits_type::not_eof(c);
  const char byte = traits_type::to_char_type(c);
  return xsputn(&byte, 1) == 1 ? c : traits_type::eof();
}

std::streamsize PrintableStream::xsputn(const char* text, std::streamsize size) {
  waiting_.append(text, static_cast<std::size_t>(size));
  if (waiting_.size() >= kWaitingMax && !pass_on(false)) return 0;
  return size;
}

int PrintableStream::sync() { return pass_on(false) && below_->pubsync() == 0 ? 0 : -1; }

bool PrintableStream::pass_on(bool all) {
  const std::size_t kept = all ? 0 : unfinished(waiting_);
  const auto ready = std::string_view(waiting_).substr(0, waiting_.size() - kept);
  const std::string shown =
      kind_ == Kind::kJson ? printable_json(ready) : filtered(ready, true, mark);
  waiting_.erase(0, ready.size());
  return below_->sputn(shown.data(), static_cast<std::streamsize>(shown.size())) ==
         static_cast<std::streamsize>(shown.size());
}

}  // namespace latchkey
