// Metrics and health over HTTP, for monitoring and orchestration: GET /metrics, /livez, /readyz.
//
// It listens on a Unix socket or a loopback port and runs on its caller's io_context, apart from
// the workers. Each connection has a deadline, and the number of connections is bounded.
#pragma once

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <string>

#include "config/options.h"
#include "daemon/http/http_answer.h"
#include "daemon/server/socket_path.h"

namespace latchkey {

class HttpServer {
 public:
  // Listens immediately; answers while `io` runs. Throws std::runtime_error for the operator.
  HttpServer(boost::asio::io_context& io, const MetricsOptions& options, HttpHooks hooks);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // The address as a user types it: a URL, or the path of the socket.
  [[nodiscard]] const std::string& address() const { return address_; }
  // Cancels all pending operations, so that `io` can end.
  void stop();

 private:
  class Connections;

  std::unique_ptr<SocketPath> path_;
  std::string address_;
  std::shared_ptr<Connections> connections_;
};

}  // namespace latchkey
