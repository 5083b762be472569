#include "daemon/http/http_server.h"

#include <algorithm>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <unordered_set>
#include <utility>

namespace latchkey {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace {

using Protocol = asio::generic::stream_protocol;
using Socket = Protocol::socket;

// Enough for one or two scrapers, a probe, and an operator. At the limit, a new connection replaces
// the one that has been waiting for a request longest, so idle connections cannot block others.
constexpr std::size_t kConnectionsMax = 64;
// The deadline for reading a request, and for writing a response.
constexpr auto kPatience = std::chrono::seconds(10);
// The pause after an accept that failed for lack of descriptors or memory: an immediate retry would
// spin.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

// One connection; it handles one request at a time.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Socket socket, const HttpHooks& hooks, std::function<void(Connection*)> ended)
      : stream_(std::move(socket)), hooks_(hooks), ended_(std::move(ended)) {}

  void read() {
    waits_since_ = std::chrono::steady_clock::now();
    parser_.emplace();
    stream_.expires_after(kPatience);
    http::async_read_header(stream_, buffer_, *parser_,
                            beast::bind_front_handler(&Connection::have_read, shared_from_this()));
  }
  void close() { stream_.close(); }
  // Since when this connection has been waiting for a request; time_point::max() while a response
  // is being written.
  [[nodiscard]] std::chrono::steady_clock::time_point waits_since() const { return waits_since_; }

 private:
  void have_read(const beast::error_code& error, std::size_t) {
    if (error == beast::error::timeout || error == http::error::end_of_stream) return end();
    if (is_http_error(error)) return write(http_refusal(error));
    if (error) return end();
    write(http_answer(*parser_, hooks_));
  }
  void write(HttpResponse response) {
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
  beast::flat_buffer buffer_{kHttpHeadBytesMax};
  std::optional<HttpParser> parser_;
  HttpResponse response_;
  std::chrono::steady_clock::time_point waits_since_;
};

}  // namespace

// The acceptor and its open connections. Pending operations hold a shared pointer to this object.
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
