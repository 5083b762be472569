// Metrics and health of the running daemon over HTTP: [metrics].
#pragma once

#include <boost/asio/io_context.hpp>
#include <memory>

#include "daemon/http/http_server.h"
#include "daemon/running.h"

namespace latchkey {

// Returns null if [metrics] is not configured. Throws std::runtime_error for the operator.
[[nodiscard]] std::unique_ptr<HttpServer> start_monitoring(boost::asio::io_context& io,
                                                           Running& running);

}  // namespace latchkey
