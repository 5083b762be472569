#include "daemon/http/http_answer.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>

#include "base/loopback.h"
#include "base/printable.h"

namespace latchkey {
namespace beast = boost::beast;
namespace http = beast::http;
namespace {

std::string lines(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& line : list) text += printable(line) + "\n";
  return text;
}

HttpResponse respond(const HttpRequest& request, http::status status, std::string body,
                     const char* type = "text/plain; charset=utf-8") {
  HttpResponse response(status, request.version());
  response.set(http::field::server, "latchkeyd/" LATCHKEY_VERSION_TEXT);
  response.set(http::field::content_type, type);
  response.set(http::field::cache_control, "no-store");
  response.keep_alive(request.keep_alive());
  response.body() = std::move(body);
  response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();  // Content-Length stays
  return response;
}

HttpResponse health(const HttpRequest& request, const std::vector<std::string>& trouble,
                    const std::vector<std::string>& remarks = {}) {
  return trouble.empty()
             ? respond(request, http::status::ok, "ok\n" + lines(remarks))
             : respond(request, http::status::service_unavailable, lines(trouble) + lines(remarks));
}

// Compares ASCII text. (beast::iequals() of Boost 1.81 reads a byte past the end of texts that
// differ in case.)
bool equal_but_for_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

// True for a loopback address or name, with or without a port. A web page can reach this server
// under a name of its own that resolves to 127.0.0.1 (DNS rebinding); the authority is that name
// then.
bool is_loopback(std::string_view authority) {
  const bool bracketed = authority.starts_with('[');
  const std::size_t end = bracketed ? authority.find(']') : authority.find(':');
  if (bracketed && end == authority.npos) return false;
  const std::string_view host = bracketed ? authority.substr(1, end - 1) : authority.substr(0, end);
  // Nothing but a port may follow (RFC 3986 section 3.2).
  const std::string_view rest =
      authority.substr(std::min(end + (bracketed ? 1 : 0), authority.size()));
  if (!rest.empty() && (rest[0] != ':' || rest.find_first_not_of("0123456789", 1) != rest.npos)) {
    return false;
  }
  if (bracketed != (host.find(':') != host.npos)) return false;  // brackets are for IPv6
  if (equal_but_for_case(host, "localhost") || equal_but_for_case(host, "localhost.")) return true;
  return is_loopback_address(std::string(host)).value_or(false);
}

// RFC 9112 section 3.2. target_of() returns nullopt if the request must be refused.
struct Target {
  std::string_view path;
  std::optional<std::string_view> authority;  // nullopt: HTTP/1.0 does not require one
};
std::optional<Target> target_of(const HttpRequest& request) {
  const auto hosts = request.equal_range(http::field::host);
  const auto count = std::distance(hosts.first, hosts.second);
  if (count > 1 || (count == 0 && request.version() >= 11)) return std::nullopt;
  Target target{request.target(), std::nullopt};
  if (count == 1) target.authority = hosts.first->value();
  constexpr std::string_view kScheme = "http://";
  if (equal_but_for_case(target.path.substr(0, kScheme.size()), kScheme)) {  // absolute-form
    const std::string_view rest = target.path.substr(kScheme.size());
    const std::size_t slash = std::min(rest.find_first_of("/?"), rest.size());
    target.authority = rest.substr(0, slash);  // takes precedence over Host
    target.path = slash < rest.size() && rest[slash] == '/' ? rest.substr(slash) : "/";
  }
  target.path = target.path.substr(0, target.path.find('?'));
  return target;
}

}  // namespace

HttpResponse http_answer(const HttpParser& head, const HttpHooks& hooks) {
  const HttpRequest& request = head.get();
  if (!head.is_done()) {
    HttpResponse response = respond(request, http::status::bad_request, "no body, please\n");
    response.keep_alive(false);  // the end of the body is unknown
    return response;
  }
  const auto target = target_of(request);
  if (!target) return respond(request, http::status::bad_request, "one Host, please\n");
  if (hooks.loopback_only && target->authority && !is_loopback(*target->authority)) {
    return respond(request, http::status::misdirected_request,
                   "Host is not this host's loopback address\n");
  }
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    HttpResponse response =
        respond(request, http::status::method_not_allowed, "GET or HEAD only\n");
    response.set(http::field::allow, "GET, HEAD");
    return response;
  }
  const std::string_view path = target->path;
  if (path == "/metrics") {
    return respond(request, http::status::ok, hooks.metrics(),
                   "text/plain; version=0.0.4; charset=utf-8");
  }
  if (path == "/livez") return health(request, hooks.stuck());
  if (path == "/readyz") return health(request, hooks.unready(), hooks.remarks());
  return respond(request, http::status::not_found, "/metrics, /livez or /readyz\n");
}

bool is_http_error(const beast::error_code& error) {
  return error.category() == http::make_error_code(http::error::bad_method).category();
}

HttpResponse http_refusal(const beast::error_code& error) {
  HttpRequest nothing;  // the response is an HTTP/1.1 response to an empty request
  nothing.keep_alive(false);
  return respond(nothing, http::status::bad_request, error.message() + "\n");
}

}  // namespace latchkey
