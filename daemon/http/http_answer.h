// Computes the responses to requests for metrics and health. Uses no socket and no clock.
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
  std::function<std::vector<std::string>()> stuck;    // threads that hang; empty: alive
  std::function<std::vector<std::string>()> unready;  // problems that prevent answers; empty: ready
  std::function<std::vector<std::string>()> remarks;  // additional lines of /readyz
  bool loopback_only = false;  // require a loopback Host; set by a server that listens on a port
};

using HttpRequest = boost::beast::http::request<boost::beast::http::empty_body>;
using HttpResponse = boost::beast::http::response<boost::beast::http::string_body>;

// The maximum size of a request's start line and header fields together.
constexpr std::size_t kHttpHeadBytesMax = 8192;

// Parses the head of a request (RFC 9112), of at most kHttpHeadBytesMax.
//
// Use it with async_read_header() only, not with async_read(): Boost.Beast 1.81 fails an assertion,
// which ends the process, if the last chunk of a body arrives in two parts (basic_parser.ipp,
// parse_chunk_header).
class HttpParser : public boost::beast::http::request_parser<boost::beast::http::empty_body> {
 public:
  HttpParser() {
    header_limit(kHttpHeadBytesMax);
    body_limit(0);
  }
};

// Answers a request with a complete head: GET and HEAD of /metrics, /livez, /readyz. Any other
// request receives an error status; a request with a body also ends the connection. Rethrows the
// exceptions of the hooks.
[[nodiscard]] HttpResponse http_answer(const HttpParser& head, const HttpHooks& hooks);

// True if the parser refused the request; false if the connection failed.
[[nodiscard]] bool is_http_error(const boost::beast::error_code& error);
// The response to a request that the parser refused; the connection ends after it.
[[nodiscard]] HttpResponse http_refusal(const boost::beast::error_code& error);

}  // namespace latchkey
