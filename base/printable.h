// Makes untrusted text safe to display on a terminal, in a log or in an error message. All such
// text passes through these functions. A row, a peer, a file name or a command line may contain
// terminal escape sequences (also as C1 controls), bidirectional overrides, invisible characters,
// or bytes that are not UTF-8. code_points.h defines the hidden code points.
#pragma once

#include <ostream>
#include <streambuf>
#include <string>
#include <string_view>

namespace latchkey {

// For text on one line: replaces each hidden code point and each invalid UTF-8 byte by '?'. The
// result is UTF-8 and no longer than `text`; applying the function twice changes nothing more.
[[nodiscard]] std::string printable(std::string_view text);

// For several lines of JSON (RFC 8259): escapes hidden code points as \uXXXX, so the values do not
// change, and replaces each invalid UTF-8 byte by \ufffd. Line breaks stay: JSON allows them only
// between tokens.
[[nodiscard]] std::string printable_json(std::string_view json);

// Filters everything written to the stream during this object's lifetime, including output of
// libraries. Line breaks stay; code that prints untrusted text within a line must pass it through
// printable() first.
class PrintableStream : public std::streambuf {
 public:
  enum class Kind { kLines, kJson };

  explicit PrintableStream(std::ostream& stream, Kind kind = Kind::kLines)
      : stream_(stream), below_(stream.rdbuf(this)), kind_(kind) {}
  ~PrintableStream() override;
  PrintableStream(const PrintableStream&) = delete;
  PrintableStream& operator=(const PrintableStream&) = delete;

  // Takes effect from the next write.
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
  std::string waiting_;  // written, not yet passed on; after a flush, at most part of a code point
};

}  // namespace latchkey
