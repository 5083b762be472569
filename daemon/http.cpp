#include "daemon/http.h"

#include <algorithm>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <iterator>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "protocol/printable.h"

namespace latchkey {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace {

using Protocol = asio::generic::stream_protocol;
using Socket = Protocol::socket;
using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

// A scraper or two, a probe, and somebody who looks. For the next one, that goes which has kept us
// waiting longest: those who say nothing keep nobody out.
constexpr std::size_t kConnectionsMax = 64;
// For a whole exchange, and for the next request on a connection that is kept.
constexpr auto kPatience = std::chrono::seconds(10);
constexpr std::uint32_t kHeaderBytesMax = 8192;
// After an accept that failed for want of descriptors or memory: trying at once would only spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

std::string lines(const std::vector<std::string>& list) {
  std::string text;
  for (const std::string& line : list) text += printable(line) + "\n";
  return text;
}

Response respond(const Request& request, http::status status, std::string body,
                 const char* type = "text/plain; charset=utf-8") {
  Response response(status, request.version());
  response.set(http::field::server, "latchkeyd/" LATCHKEY_VERSION_TEXT);
  response.set(http::field::content_type, type);
  response.set(http::field::cache_control, "no-store");
  response.keep_alive(request.keep_alive());
  response.body() = std::move(body);
  response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();  // its length is still told
  return response;
}

Response health(const Request& request, const std::vector<std::string>& trouble,
                const std::vector<std::string>& remarks = {}) {
  return trouble.empty()
             ? respond(request, http::status::ok, "ok\n" + lines(remarks))
             : respond(request, http::status::service_unavailable, lines(trouble) + lines(remarks));
}

// A loopback address or name, with a port or without. A page in somebody's browser may reach us by
// a name of its own that it has turned to 127.0.0.1 (DNS rebinding); then it stands here.
bool is_loopback(std::string_view authority) {
  std::string_view host = authority;
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    if (end == host.npos) return false;
    host = host.substr(1, end - 1);
  } else {
    host = host.substr(0, host.find(':'));
  }
  if (beast::iequals(host, "localhost") || beast::iequals(host, "localhost.")) return true;
  beast::error_code error;
  const auto address = asio::ip::make_address(std::string(host), error);
  return !error && address.is_loopback();
}

// RFC 9112 section 3.2. Nothing: the request is to be refused.
struct Target {
  std::string_view path;
  std::string_view authority;
};
std::optional<Target> target_of(const Request& request) {
  const auto hosts = request.equal_range(http::field::host);
  const auto count = std::distance(hosts.first, hosts.second);
  if (count > 1 || (count == 0 && request.version() >= 11)) return std::nullopt;
  Target target{request.target(), count == 1 ? std::string_view(hosts.first->value()) : ""};
  constexpr std::string_view kScheme = "http://";
  if (beast::iequals(target.path.substr(0, kScheme.size()), kScheme)) {  // absolute-form
    const std::string_view rest = target.path.substr(kScheme.size());
    const std::size_t slash = std::min(rest.find_first_of("/?"), rest.size());
    target.authority = rest.substr(0, slash);  // which goes before Host
    target.path = slash < rest.size() && rest[slash] == '/' ? rest.substr(slash) : "/";
  }
  target.path = target.path.substr(0, target.path.find('?'));
  return target;
}

Response answer(const Request& request, const HttpHooks& hooks) {
  const auto target = target_of(request);
  if (!target) return respond(request, http::status::bad_request, "one Host, please\n");
  if (hooks.loopback_only && !target->authority.empty() && !is_loopback(target->authority)) {
    return respond(request, http::status::misdirected_request,
                   "Host is not this host's loopback address\n");
  }
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    Response response = respond(request, http::status::method_not_allowed, "GET or HEAD only\n");
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

// One caller, one request at a time.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Socket socket, const HttpHooks& hooks, std::function<void(Connection*)> ended)
      : stream_(std::move(socket)), hooks_(hooks), ended_(std::move(ended)) {}

  void read() {
    waits_since_ = std::chrono::steady_clock::now();
    parser_.emplace();
    parser_->header_limit(kHeaderBytesMax);
    parser_->body_limit(0);
    stream_.expires_after(kPatience);
    http::async_read(stream_, buffer_, *parser_,
                     beast::bind_front_handler(&Connection::have_read, shared_from_this()));
  }
  void close() { stream_.close(); }
  // Since when it has owed us a request; the end of time while it is answered.
  [[nodiscard]] std::chrono::steady_clock::time_point waits_since() const { return waits_since_; }

 private:
  void have_read(const beast::error_code& error, std::size_t) {
    if (error == beast::error::timeout || error == http::error::end_of_stream) return end();
    if (error.category() == http::make_error_code(http::error::bad_method).category()) {
      Request nothing;  // of which HTTP/1.1 is told that it was not understood
      nothing.keep_alive(false);
      return write(respond(nothing, http::status::bad_request, error.message() + "\n"));
    }
    if (error) return end();
    write(answer(parser_->get(), hooks_));
  }
  void write(Response response) {
    waits_since_ = std::chrono::steady_clock::time_point::max();
    response_ = std::move(response);
    stream_.expires_after(kPatience);
    http::async_write(stream_, response_,
                      beast::bind_front_handler(&Connection::have_written, shared_from_this()));
  }
  void have_written(const beast::error_code& error, std::size_t) {
    if (error || !response_.keep_alive()) return end();
    read();
  }
  void end() {
    stream_.close();
    ended_(this);
  }

  beast::basic_stream<Protocol> stream_;
  const HttpHooks& hooks_;
  std::function<void(Connection*)> ended_;
  beast::flat_buffer buffer_{kHeaderBytesMax};
  std::optional<http::request_parser<http::empty_body>> parser_;
  Response response_;
  std::chrono::steady_clock::time_point waits_since_;
};

}  // namespace

// The acceptor and those it has accepted. What is under way holds on to it.
class HttpServer::Connections : public std::enable_shared_from_this<Connections> {
 public:
  Connections(asio::io_context& io, const Protocol& protocol, int listening, HttpHooks hooks)
      : hooks_(std::move(hooks)), acceptor_(io, protocol, listening), pause_(io) {}

  void accept() {
    if (accepting_ || !acceptor_.is_open()) return;
    accepting_ = true;
    acceptor_.async_accept(
        [self = shared_from_this()](const beast::error_code& error, Socket socket) {
          self->accepting_ = false;
          if (error == asio::error::operation_aborted) return;
          if (error) return self->accept_later();
          self->open(std::move(socket));
          self->accept();
        });
  }
  void stop() {
    beast::error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
    for (Connection* connection : open_) connection->close();
  }

 private:
  void accept_later() {
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([self = shared_from_this()](const beast::error_code& cancelled) {
      if (!cancelled) self->accept();
    });
  }
  void open(Socket socket) {
    if (open_.size() >= kConnectionsMax) {
      const auto longest = std::ranges::min_element(open_, {}, &Connection::waits_since);
      (*longest)->close();
      open_.erase(longest);
    }
    const auto connection = std::make_shared<Connection>(
        std::move(socket), hooks_,
        [self = shared_from_this()](Connection* ended) { self->open_.erase(ended); });
    open_.insert(connection.get());
    connection->read();
  }

  HttpHooks hooks_;
  asio::basic_socket_acceptor<Protocol> acceptor_;
  asio::steady_timer pause_;
  std::unordered_set<Connection*> open_;
  bool accepting_ = false;
};

HttpServer::HttpServer(asio::io_context& io, const MetricsOptions& options, HttpHooks hooks) {
  if (!options.socket.empty()) {
    path_ = std::make_unique<SocketPath>(options.socket, "listen");
    const int listening = path_->listen(options.mode, options.group);
    address_ = options.socket;
    connections_ = std::make_shared<Connections>(io, asio::local::stream_protocol(), listening,
                                                 std::move(hooks));
  } else {
    hooks.loopback_only = true;
    const asio::ip::tcp::endpoint wanted(asio::ip::make_address(options.address), options.port);
    asio::ip::tcp::acceptor acceptor(io);
    try {
      acceptor.open(wanted.protocol());
      acceptor.set_option(asio::socket_base::reuse_address(true));
      acceptor.bind(wanted);
      acceptor.listen();
    } catch (const boost::system::system_error& error) {
      throw std::runtime_error(
          "cannot listen on " + options.address + ":" + std::to_string(options.port) +
          " for metrics: " + error.code().message() + ". Set another `listen` in [metrics].");
    }
    std::ostringstream text;
    text << "http://" << acceptor.local_endpoint() << "/metrics";
    address_ = text.str();
    const asio::ip::tcp protocol = wanted.protocol();
    connections_ =
        std::make_shared<Connections>(io, protocol, acceptor.release(), std::move(hooks));
  }
  connections_->accept();
}

HttpServer::~HttpServer() { stop(); }

void HttpServer::stop() { connections_->stop(); }

}  // namespace latchkey
