// Requests for metrics and health -> responses. Pure: no socket, no clock.
#pragma once

#include <boost/beast/core/error.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace latchkey {

struct HttpHooks {
  std::function<std::string()> metrics;               // Prometheus' text format 0.0.4
  std::function<std::vector<std::string>()> stuck;    // what does not run any more; empty: alive
  std::function<std::vector<std::string>()> unready;  // what cannot be answered; empty: ready
  std::function<std::vector<std::string>()> remarks;  // what /readyz says besides
  bool loopback_only = false;  // of Host: set by the server that listens on a port
};

using HttpRequest = boost::beast::http::request<boost::beast::http::empty_body>;
using HttpResponse = boost::beast::http::response<boost::beast::http::string_body>;

// Of one request: its start line and header fields together.
constexpr std::size_t kHttpHeadBytesMax = 8192;

// Reads the head of a request, of at most kHttpHeadBytesMax (RFC 9112).
//
// Let it read no further (async_read_header(), not async_read()): Boost.Beast 1.81 asserts, and so
// ends the process, where the last chunk of a body comes in two pieces (basic_parser.ipp,
// parse_chunk_header).
class HttpParser : public boost::beast::http::request_parser<boost::beast::http::empty_body> {
 public:
  HttpParser() {
    header_limit(kHttpHeadBytesMax);
    body_limit(0);
  }
};

// Of a whole head. GET and HEAD of /metrics, /livez, /readyz; anything else is refused by its
// status, and what announces a body ends the connection. Throws what the hooks throw.
[[nodiscard]] HttpResponse http_answer(const HttpParser& head, const HttpHooks& hooks);

// Did the parser refuse what it read? Else the connection has failed.
[[nodiscard]] bool is_http_error(const boost::beast::error_code& error);
// What such a caller is told before the connection ends.
[[nodiscard]] HttpResponse http_refusal(const boost::beast::error_code& error);

}  // namespace latchkey
