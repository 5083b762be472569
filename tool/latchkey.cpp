// latchkey: the operator's tool for latchkeyd. This file parses the command line.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <string>

#include "base/duration.h"
#include "base/printable.h"
#include "base/standard_files.h"
#include "config/options.h"
#include "tool/commands.h"
#include "tool/connection.h"

namespace latchkey {
namespace {

std::chrono::nanoseconds duration(const std::string& text, const char* option) {
  const auto parsed = parse_duration(text);
  if (!parsed) {
    throw UsageError{std::string(option) + " is no duration; write 250ms, 5s, 10m or 1h"};
  }
  return *parsed;
}

std::string default_socket() {
  const char* named = std::getenv("LATCHKEY_SOCKET");
  return named != nullptr && *named != '\0' ? named : "/run/latchkey/latchkey.sock";
}

// Refuses empty values, because they usually come from an unset shell variable: `--source ""` would
// ask every source, and `--max-age=` would take the next word as its value, or set no age at all.
// The message does not repeat the argument, since it may be a misplaced key.
void refuse_empty_values(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word.empty() || (word.starts_with("--") && word.find('=') == word.size() - 1)) {
      throw UsageError{"argument " + std::to_string(i) +
                       " is empty. Is a variable not set? Leave the option out, or give it a"
                       " value."};
    }
  }
}

// The message does not repeat the argument, since it may be a key.
std::string unexpected_argument(const CLI::App& app) {
  const auto commands = app.get_subcommands();
  const bool is_option = std::ranges::any_of(
      app.remaining(true), [](const std::string& word) { return word.starts_with("--"); });
  if (!is_option || commands.empty()) {
    return "an argument was not expected here. Keys come on standard input, one a line. --help"
           " tells what there is.";
  }
  std::string known;
  for (const CLI::Option* option : commands.front()->get_options()) {
    if (option->get_positional()) continue;
    known += (known.empty() ? "" : ", ") + option->get_name();
  }
  return "an option is not known here. `latchkey " + commands.front()->get_name() + "` has " +
         known + "; before the command stand --socket, --timeout, --json.";
}

int run(int argc, char** argv, PrintableStream& out) {
  refuse_empty_values(argc, argv);
  CLI::App app{
      "Asks latchkeyd about API keys. Exit status: 0 all keys are active, 1 some key is not,"
      " 2 wrong usage, 3 no trustworthy answer."};
  app.require_subcommand(1);
  app.fallthrough();  // --socket and --json are also accepted after the command
  app.set_version_flag("--version", "latchkey " LATCHKEY_VERSION_TEXT);
  CommonSettings common;
  common.socket = default_socket();
  app.add_option("--socket", common.socket, "Socket of latchkeyd (else $LATCHKEY_SOCKET)")
      ->capture_default_str();
  app.add_flag("--json", common.json, "One JSON object a line, for machines");

  VerifySettings verify;
  std::string max_age;
  CLI::App* verify_command =
      app.add_subcommand("verify", "Verify keys, read from standard input, one a line");
  CLI::App* why_command =
      app.add_subcommand("why", "Explain the answer for one key, read from standard input");
  for (CLI::App* command : {verify_command, why_command}) {
    // Each option takes one word, so that a key typed after it is not read as a scope.
    command->add_option("--scope", verify.scopes, "Scope that the key must hold; repeatable")
        ->allow_extra_args(false);
    command
        ->add_option("--any-scope", verify.any_scopes,
                     "Scope of which one must be held; repeatable")
        ->allow_extra_args(false);
    command->add_option("--source", verify.source, "Ask this source only");
    command->add_option("--max-age", max_age, "Oldest acceptable knowledge, e.g. 5s");
  }
  verify_command->add_flag("--metadata", verify.metadata, "Show the row's metadata, if allowed");

  std::string sync_timeout = "5s";
  CLI::App* sync_command =
      app.add_subcommand("sync", "Return once everything committed before is in force");
  sync_command->add_option("--timeout", sync_timeout, "How long to wait, at most 60s")
      ->capture_default_str();
  CLI::App* ping_command = app.add_subcommand("ping", "Does latchkeyd answer?");
  std::string reload_timeout = "30s";
  CLI::App* reload_command =
      app.add_subcommand("reload", "Have latchkeyd read its configuration again; say how it went");
  reload_command->add_option("--timeout", reload_timeout, "How long to wait")
      ->capture_default_str();
  CLI::App* status_command = app.add_subcommand("status", "Freshness, sizes, counters");

  TopSettings top;
  std::string interval = "1s";
  CLI::App* top_command = app.add_subcommand("top", "Live: rates, verdicts, ages, connections");
  top_command->add_option("--interval", interval, "Time between reports, 100ms to 60s")
      ->capture_default_str();
  top_command->add_option("--count", top.count, "As text, so many reports");
  top_command->add_flag("--plain", top.plain, "As text, on a terminal, too");

  MintSettings mint;
  CLI::App* mint_command = app.add_subcommand("mint", "Make new keys, with what to store");
  mint_command->add_option("--prefix", mint.prefix, "What the keys begin with")->required();
  mint_command->add_option("--count", mint.count, "How many")->check(CLI::Range(1, 1'000'000));
  mint_command->add_option("--config", mint.config, "Configuration that has the source");
  mint_command->add_option("--source", mint.source, "Store as this source does");

  SqlSettings sql;
  CLI::App* sql_command = app.add_subcommand("sql", "Print SQL for the operator to run");
  sql_command->add_option("action", sql.action, "install, uninstall or grant")
      ->required()
      ->check(CLI::IsMember({"install", "uninstall", "grant"}));
  sql_command->add_option("--config", sql.config, "Configuration file")->required();
  sql_command->add_option("--source", sql.source, "For this source only");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    throw UsageError{unexpected_argument(app)};
  } catch (const CLI::RequiredError& error) {
    if (app.get_subcommands().empty()) {
      throw UsageError{
          "no such command. Choose verify, why, sync, ping, status, reload, top, mint or sql; "
          "--help tells"
          " more."};
    }
    throw UsageError{std::string(error.what()) + ". --help tells what there is."};
  } catch (const CLI::ArgumentMismatch&) {
    throw UsageError{"an option lacks its value. --help tells what there is."};
  } catch (const CLI::ValidationError&) {
    throw UsageError{sql_command->parsed()
                         ? "`latchkey sql` prints one of install, uninstall, grant."
                         : "an option has a value that it cannot have. --help"
                           " tells what there is."};
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    // CLI11's message would repeat the argument, which may be a key.
    throw UsageError{"the command line cannot be understood (" + error.get_name() +
                     "). --help tells what there is."};
  }
  if (common.json) out.set_kind(PrintableStream::Kind::kJson);
  if (!max_age.empty()) verify.max_age = duration(max_age, "--max-age");
  if (verify_command->parsed()) return run_verify(common, verify);
  if (why_command->parsed()) return run_why(common, verify);
  if (sync_command->parsed()) {
    return run_sync(common, std::chrono::duration_cast<std::chrono::milliseconds>(
                                duration(sync_timeout, "--timeout")));
  }
  if (ping_command->parsed()) return run_ping(common);
  if (reload_command->parsed()) {
    return run_reload(common, std::chrono::duration_cast<std::chrono::milliseconds>(
                                  duration(reload_timeout, "--timeout")));
  }
  if (status_command->parsed()) return run_status(common);
  if (top_command->parsed()) {
    top.interval =
        std::chrono::duration_cast<std::chrono::milliseconds>(duration(interval, "--interval"));
    if (top.interval < kTopIntervalMin || top.interval > kTopIntervalMax) {
      throw UsageError{"--interval must be 100ms to 60s"};
    }
    return run_top(common, top);
  }
  if (mint_command->parsed()) return run_mint(common, mint);
  return run_sql(sql);
}

}  // namespace
}  // namespace latchkey

void latchkey::flush(std::ostream& out) {
  if (!out.flush()) throw OutputError{};
}

int main(int argc, char** argv) {
  using latchkey::printable;
  latchkey::open_standard_files();
  latchkey::PrintableStream out(std::cout);
  const latchkey::PrintableStream errors(std::cerr);
  try {
    const int code = latchkey::run(argc, argv, out);
    latchkey::flush(std::cout);
    return code;
  } catch (const latchkey::OutputError&) {
    std::cerr << "latchkey: cannot write to standard output: what it would have said is lost.\n";
    return latchkey::kExitNoAnswer;
  } catch (const latchkey::UsageError& error) {
    std::cerr << "latchkey: " << printable(error.what) << "\n";
    return latchkey::kExitUsage;
  } catch (const latchkey::ConfigError& error) {
    std::cerr << "latchkey: " << printable(error.what()) << "\n";
    return latchkey::kExitUsage;
  } catch (const latchkey::Refused& error) {
    std::cerr << "latchkey: " << printable(error.what()) << "\n";
    return error.code == LATCHKEY_UNKNOWN_SOURCE || error.code == LATCHKEY_BAD_SCOPE ||
                   error.code == LATCHKEY_BAD_SOURCE
               ? latchkey::kExitUsage
               : latchkey::kExitNoAnswer;
  } catch (const std::exception& error) {
    std::cerr << "latchkey: " << printable(error.what()) << "\n";
    return latchkey::kExitNoAnswer;
  }
}
