// Requests for metrics and health, from any client of the port or the socket.
//
// - A stream of whole requests, cut anywhere, gets the same responses as the whole; if the whole
//   is refused, so is the cut one.
// - A page is given only for its own path, for one Host that is a loopback name, for GET and HEAD.
// - No response contains a line of the caller's.
#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/verb.hpp>
#include <boost/beast/http/write.hpp>
#include <sstream>

#include "daemon/http/http_answer.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace latchkey;
namespace beast = boost::beast;
namespace http = beast::http;

constexpr const char* kPage = "the page of metrics\n";

HttpHooks hooks(bool loopback_only) {
  const auto none = [] { return std::vector<std::string>(); };
  return {[] { return std::string(kPage); }, none, none, none, loopback_only};
}

void check_page(const HttpRequest& request, const HttpResponse& response, bool loopback_only) {
  if (response.result() != http::status::ok) return;
  FUZZ_CHECK(request.method() == http::verb::get || request.method() == http::verb::head);
  FUZZ_CHECK(request.count(http::field::host) <= 1);
  const std::string_view target = request.target();
  const auto names = [&](const char* path) { return target.find(path) != target.npos; };
  FUZZ_CHECK(names("/metrics") || names("/livez") || names("/readyz"));
  if (!loopback_only || request.count(http::field::host) == 0) return;
  const std::string_view host = request[http::field::host];
  const bool looks_local = host.find("127.") != host.npos || host.find("::1") != host.npos ||
                           host.find(":0") != host.npos ||
                           beast::iequals(host.substr(0, 9), "localhost");
  // The Host of an absolute target is its own authority (RFC 9112 section 3.2.2).
  FUZZ_CHECK(looks_local || beast::iequals(target.substr(0, 7), "http://"));
}

std::string text_of(const HttpResponse& response) {
  std::ostringstream text;
  text << response;
  return text.str();
}

// All responses, until one of them announces the end of the connection.
std::string hear(std::string_view bytes, const std::vector<std::size_t>& pieces,
                 bool loopback_only) {
  std::string waiting, said;
  std::size_t requests = 0;
  auto parser = std::make_unique<HttpParser>();
  for (std::size_t piece = 0; !bytes.empty(); ++piece) {
    std::size_t count = bytes.size();
    if (piece < pieces.size()) count = std::min(count, pieces[piece]);
    waiting += bytes.substr(0, count);
    bytes.remove_prefix(count);
    // The same steps as http::async_read_header().
    while (!waiting.empty()) {
      beast::error_code error;
      const std::size_t used = parser->put(boost::asio::buffer(waiting), error);
      waiting.erase(0, used);
      if (error == http::error::need_more) break;
      if (error) {
        FUZZ_CHECK(is_http_error(error));
        const HttpResponse refusal = http_refusal(error);
        FUZZ_CHECK(refusal.result() == http::status::bad_request && !refusal.keep_alive());
        // The choice among several reasons depends on the number of bytes seen at once.
        return said + "refused";
      }
      if (!parser->is_header_done()) {
        if (used == 0) break;
        continue;
      }
      const HttpResponse response = http_answer(*parser, hooks(loopback_only));
      FUZZ_CHECK(parser->is_done() || !response.keep_alive());
      check_page(parser->get(), response, loopback_only);
      said += text_of(response);
      if (!response.keep_alive() || ++requests == 8) return said;
      parser = std::make_unique<HttpParser>();
    }
  }
  return said;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  const bool loopback_only = input.ConsumeBool();
  const std::vector<std::size_t> pieces = fuzz::pieces_from(input);
  // The end of a head is appended: the parser reports an error in a line only after the whole
  // head, unless it got all of it at once.
  const std::string bytes = input.ConsumeRemainingBytesAsString() + "\r\n\r\n";
  const std::string whole = hear(bytes, {}, loopback_only);
  FUZZ_CHECK(hear(bytes, pieces, loopback_only) == whole);
  FUZZ_CHECK(whole.find("\r\nX-") == whole.npos);
  return 0;
}
