// The one way in which text that others wrote comes before people's eyes: on a terminal, in a log,
// in an error message. A row, a peer, a file's name or a command line may hold what a terminal
// obeys (escape sequences, also as C1 controls), what turns text around (bidirectional overrides),
// what nobody sees, or bytes that are no text at all. code_points.h says which.
#pragma once

#include <ostream>
#include <streambuf>
#include <string>
#include <string_view>

namespace latchkey {

// On one line: '?' for each code point that is not shown, and for each byte that is no UTF-8. The
// result is UTF-8, no longer than `text`, and the same when it is made printable again.
[[nodiscard]] std::string printable(std::string_view text);

// Several lines of JSON (RFC 8259): what is not shown becomes \uXXXX, so the values stay what they
// are; a byte that is no UTF-8 becomes \ufffd. Line breaks stay: in JSON they never mean anything.
[[nodiscard]] std::string printable_json(std::string_view json);

// As long as it lives, what is written to the stream passes through it, so that no line of output,
// of ours or of a library's, can forget to. Line breaks stay: who writes somebody's text within a
// line makes it printable() before.
class PrintableStream : public std::streambuf {
 public:
  enum class Kind { kLines, kJson };

  explicit PrintableStream(std::ostream& stream, Kind kind = Kind::kLines)
      : stream_(stream), below_(stream.rdbuf(this)), kind_(kind) {}
  ~PrintableStream() override;
  PrintableStream(const PrintableStream&) = delete;
  PrintableStream& operator=(const PrintableStream&) = delete;

  // From what is written next.
  void set_kind(Kind kind);

 protected:
  int_type overflow(int_type c) override;
  std::streamsize xsputn(const char* text, std::streamsize size) override;
  int sync() override;

 private:
  bool pass_on(bool all);

  std::ostream& stream_;
  std::streambuf* below_;
  Kind kind_;
  std::string waiting_;  // what was written since; after a flush, at most a part of one code point
};

}  // namespace latchkey
