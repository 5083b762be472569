#include "daemon/monitoring.h"

#include <spdlog/spdlog.h>
#include <string>
#include <utility>
#include <vector>

#include "daemon/observe/metrics.h"
#include "daemon/observe/status.h"
#include "daemon/watch.h"

namespace latchkey {
namespace {

constexpr const char* kSocketGone = "the socket's file is gone: no new caller finds latchkeyd";

}  // namespace

std::unique_ptr<HttpServer> start_monitoring(boost::asio::io_context& io, Running& running) {
  if (!running.options.metrics.enabled()) return nullptr;
  HttpHooks hooks;
  hooks.metrics = [&running] {
    std::shared_ptr<const Policy> held;
    ProcessFacts facts = read_process_facts();
    facts.started_unix_s = running.started_unix_s;
    return metrics_text(running.status(held), facts,
                        running.options.metrics.is_protected() ? MetricsReaders::kTrusted
                                                               : MetricsReaders::kAnybody);
  };
  hooks.stuck = [&running] { return stuck(running, kWorkerPatienceNs); };
  hooks.unready = [&running] {
    std::shared_ptr<const Policy> held;
    const StatusInputs inputs = running.status(held);
    auto trouble = unanswered_sources(inputs);
    if (!inputs.socket_in_place) trouble.emplace_back(kSocketGone);
    return trouble;
  };
  hooks.remarks = [&running] {
    std::vector<std::string> remarks;
    if (running.last_reload_failed()) {
      remarks.emplace_back("the last reload failed: what runs is the configuration before it");
    }
    return remarks;
  };
  auto http = std::make_unique<HttpServer>(io, running.options.metrics, std::move(hooks));
  spdlog::info(
      "metrics on {}{}", http->address(),
      running.options.metrics.is_protected()
          ? ""
          : ", which anybody on this host may read: without verdicts by reason and source");
  return http;
}

}  // namespace latchkey
