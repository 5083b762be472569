// latchkey-bench: the load generator. This file parses the command line.

#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/duration.h"
#include "base/printable.h"
#include "bench/load/bare_server.h"
#include "bench/load/generator.h"
#include "bench/load/processes.h"
#include "bench/load/report.h"
#include "tool/commands.h"
#include "tool/text.h"

namespace latchkey {
namespace {

// The other exit codes are those of `latchkey`.
constexpr int kExitWrongAnswer = 1;

struct RunOptions {
  LoadSettings load;
  std::string warm_up = "1s", duration = "10s";
  std::uint64_t generate = 0;
  std::string key_file, distribution = "uniform", title, json, html;
  bool no_claims = false, quiet = false;
};

std::chrono::milliseconds time_of(const std::string& text, const char* option,
                                  std::chrono::milliseconds min, std::chrono::milliseconds max) {
  const auto parsed = parse_duration(text);
  if (!parsed || *parsed < min || *parsed > max) {
    throw UsageError{std::string(option) + " must be a time such as 500ms, 10s or 5m, of " +
                     std::to_string(min.count()) + "ms to " + std::to_string(max.count() / 1000) +
                     "s"};
  }
  return std::chrono::duration_cast<std::chrono::milliseconds>(*parsed);
}

double exponent_of(const std::string& distribution) {
  if (distribution == "uniform") return 0;
  double exponent = 0;
  if (distribution.starts_with("zipf:")) {
    const char* text = distribution.c_str() + 5;
    char* end = nullptr;
    exponent = std::strtod(text, &end);
    if (*end != '\0') exponent = 0;
  }
  if (!(exponent > 0) || exponent > 5) {
    throw UsageError{
        "--distribution must be uniform, or zipf:EXPONENT with an exponent such as 0.99"};
  }
  return exponent;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  if (!(file << text).flush()) throw std::runtime_error("cannot write " + path);
}

// Raises the limit of descriptors, because each connection needs one.
void raise_descriptors(std::size_t wanted) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min<rlim_t>(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run(RunOptions& options) {
  LoadSettings& load = options.load;
  using std::chrono::hours;
  using std::chrono::milliseconds;
  load.warm_up = time_of(options.warm_up, "--warm-up", milliseconds(0), milliseconds(600'000));
  load.duration = time_of(options.duration, "--duration", milliseconds(100), hours(24));
  load.choice.exponent = exponent_of(options.distribution);
  load.peer.claims = !options.no_claims;
  load.processes = std::min(load.processes, load.connections);
  load.threads = std::min(load.threads, load.connections);
  if ((options.generate == 0) == options.key_file.empty()) {
    throw UsageError{"which keys? Give --generate N or --keys FILE"};
  }
  const bool peer_has_values = load.peer.name != "latchkey" && load.peer.name != "echo";
  if (peer_has_values && options.generate == 0) {
    throw UsageError{"what " + load.peer.name + " holds is known for generated keys only"};
  }
  if (load.batch > make_peer(load.peer)->batch_max()) {
    throw UsageError{"--batch is too large: at most " +
                     std::to_string(make_peer(load.peer)->batch_max()) + " for this protocol"};
  }
  raise_descriptors(load.connections + 64);
  const KeyTable keys = options.generate > 0 ? KeyTable::generated(options.generate)
                                             : KeyTable::from_file(options.key_file);
  load.peer.generated = keys.is_generated();
  if (options.title.empty()) options.title = load.peer.name;

  const bool live = !options.quiet && isatty(STDERR_FILENO) == 1;
  const LoadResult result = run_processes(load, keys, [&](const Interval& interval) {
    if (!live) return;
    const auto within_us = [&](double share) {
      return std::to_string(interval.latencies.quantile_ns(share) / 1000) + " us";
    };
    // std::cerr is not used, because PrintableStream escapes the "\r" that moves the cursor.
    std::clog << "\r" << interval.begin_s
              << " s: " << short_number(static_cast<double>(interval.requests)) << " requests, p50 "
              << within_us(0.5) << ", p99 " << within_us(0.99) << "      " << std::flush;
  });
  if (live) std::clog << std::endl;
  if (result.requests == 0) throw std::runtime_error("no answer came in time");
  const auto report = report_json(load, result, options.title);
  if (!options.json.empty()) write_file(options.json, report.dump(1) + "\n");
  if (!options.html.empty()) write_file(options.html, report_html({report}, options.title));
  if (!options.quiet) std::cout << report_text(report);
  return 0;
}

struct ReportOptions {
  std::vector<std::string> files;
  std::string html, title = "Latchkey, measured";
};

int make_report(const ReportOptions& options) {
  std::vector<nlohmann::ordered_json> reports;
  for (const std::string& path : options.files) {
    std::ifstream file(path);
    auto report = nlohmann::ordered_json::parse(file, nullptr, /*allow_exceptions=*/false);
    if (!report.is_object())
      throw UsageError{path + " is no report of `latchkey-bench run --json`"};
    reports.push_back(std::move(report));
  }
  try {
    write_file(options.html, report_html(reports, options.title));
  } catch (const nlohmann::json::exception&) {
    throw UsageError{"a file is no report of `latchkey-bench run --json`, or of another version"};
  }
  return 0;
}

CLI::App* add_run(CLI::App& app, RunOptions& options) {
  LoadSettings& load = options.load;
  CLI::App* command = app.add_subcommand("run", "Make a load and measure it");
  command->add_option("--socket", load.socket, "Unix socket of the server")->capture_default_str();
  command
      ->add_option("--protocol", load.peer.name,
                   "latchkey, echo, floor, redis, memcached or postgres")
      ->check(CLI::IsMember({"latchkey", "echo", "floor", "redis", "memcached", "postgres"}))
      ->capture_default_str();
  command->add_option("--connections", load.connections, "How many")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--depth", load.depth, "Requests in flight on each connection, at most")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--batch", load.batch, "Keys in each request")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command
      ->add_option("--processes", load.processes,
                   "Processes that ask, as applications are: each has its share of the connections")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command->add_option("--threads", load.threads, "Threads that ask, in each process")
      ->check(CLI::Range(1, 256))
      ->capture_default_str();
  command->add_option("--pin", load.processors, "Processors that threads are bound to, in turn")
      ->delimiter(',');
  command->add_option("--duration", options.duration, "What is measured")->capture_default_str();
  command->add_option("--warm-up", options.warm_up, "Before that")->capture_default_str();
  command
      ->add_option("--rate", load.rate,
                   "Open loop: requests a second, whatever becomes of answers; latency counts"
                   " from when each was to be sent. 0: closed loop")
      ->check(CLI::Range(0.0, 1e9))
      ->capture_default_str();
  command
      ->add_option("--generate", options.generate,
                   "Ask for the first N generated keys (`latchkey-bench keys` prints them)")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{100'000'000}));
  command->add_option("--keys", options.key_file, "Ask for the keys in this file, one a line");
  command->add_option("--hits", load.choice.hits, "Share of known keys, 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--distribution", options.distribution, "uniform, or zipf:EXPONENT")
      ->capture_default_str();
  command->add_option("--seed", load.choice.seed, "Of the choice of keys")->capture_default_str();
  command->add_flag("--no-claims", options.no_claims, "Latchkey: ask for verdicts alone");
  command->add_option("--database", load.peer.database, "PostgreSQL: database");
  command->add_option("--user", load.peer.user, "PostgreSQL: user, who needs no password");
  command->add_option("--title", options.title, "Name of this run in reports");
  command->add_option("--json", options.json, "Write the report as JSON");
  command->add_option("--html", options.html, "Write it as a page with plots");
  command->add_flag("--quiet", options.quiet, "Print nothing");
  return command;
}

int main_of(int argc, char** argv) {
  CLI::App app{
      "Loads latchkeyd, or what one would use instead, and checks every answer. Exit status: 0 all"
      " were right, 1 one was wrong, 2 wrong usage, 3 no answer."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "latchkey-bench " LATCHKEY_VERSION_TEXT);

  RunOptions options;
  options.load.socket = "/run/latchkey/latchkey.sock";
  CLI::App* run_command = add_run(app, options);

  std::uint64_t count = 1;
  CLI::App* keys_command = app.add_subcommand("keys", "Print generated keys; row N holds the Nth");
  keys_command->add_option("--generate", count, "How many")->required();
  bool values = false;
  keys_command->add_flag("--values", values,
                         "Behind each, after a space, the value that a key-value store is to hold");

  ReportOptions report;
  CLI::App* report_command = app.add_subcommand("report", "A page that compares runs");
  report_command->add_option("files", report.files, "Reports that `run` wrote as JSON")->required();
  report_command->add_option("--html", report.html, "The page")->required();
  report_command->add_option("--title", report.title, "Its title")->capture_default_str();

  BareSettings bare;
  CLI::App* echo_command =
      app.add_subcommand("echo", "Serve the floor of all: sends half of each 64 bytes back");
  CLI::App* floor_command = app.add_subcommand(
      "floor", "Serve the floor of verdicts: SHA-256, a look-up in a flat table, a fixed reply");
  for (CLI::App* command : {echo_command, floor_command}) {
    command->add_option("--socket", bare.socket, "Unix socket to serve on")->required();
    command->add_flag("--spin", bare.spin, "Never sleep");
    command->add_option("--pin", bare.processor, "Processor to run on");
  }
  floor_command->add_option("--generate", count, "How many generated keys it knows")->required();

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (run_command->parsed()) return run(options);
  if (report_command->parsed()) return make_report(report);
  if (echo_command->parsed()) {
    serve_echo(bare);
    return 0;
  }
  if (floor_command->parsed()) {
    serve_floor(bare, count);
    return 0;
  }
  for (std::uint64_t i = 0; i < count; ++i) {
    std::cout << generated_key(i);
    if (values) {
      const auto value = generated_value(i);
      std::cout << ' ' << std::string_view(value.data(), value.size());
    }
    std::cout << '\n';
  }
  return 0;
}

}  // namespace
}  // namespace latchkey

int main(int argc, char** argv) {
  const latchkey::PrintableStream out(std::cout), errors(std::cerr);
  try {
    return latchkey::main_of(argc, argv);
  } catch (const latchkey::UsageError& error) {
    std::cerr << "latchkey-bench: " << latchkey::printable(error.what) << "\n";
    return latchkey::kExitUsage;
  } catch (const latchkey::WrongAnswer& error) {
    std::cerr << "latchkey-bench: WRONG: " << latchkey::printable(error.what()) << "\n";
    return latchkey::kExitWrongAnswer;
  } catch (const std::exception& error) {
    std::cerr << "latchkey-bench: " << latchkey::printable(error.what()) << "\n";
    return latchkey::kExitNoAnswer;
  }
}
