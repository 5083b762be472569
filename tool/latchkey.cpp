// latchkey: the operator's tool for latchkeyd. This file parses the command line.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <optional>
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

// The command line: its options, then the command that it names.
class CommandLine {
 public:
  CommandLine() {
    app_.require_subcommand(1);
    app_.fallthrough();  // --socket and --json are also accepted after the command
    app_.set_version_flag("--version", "latchkey " LATCHKEY_VERSION_TEXT);
    common_.socket = default_socket();
    app_.add_option("--socket", common_.socket, "Socket of latchkeyd (else $LATCHKEY_SOCKET)")
        ->capture_default_str();
    app_.add_flag("--json", common_.json, "One JSON object a line, for machines");
    add_questions();
    add_requests();
    add_top();
    add_mint();
    add_sql();
  }

  int run(int argc, char** argv, PrintableStream& out) {
    if (const auto code = parse(argc, argv)) return *code;
    if (common_.json) out.set_kind(PrintableStream::Kind::kJson);
    if (!max_age_.empty()) verify_.max_age = duration(max_age_, "--max-age");
    if (verify_command_->parsed()) return run_verify(common_, verify_);
    if (why_command_->parsed()) return run_why(common_, verify_);
    if (sync_command_->parsed()) return run_sync(common_, milliseconds(sync_timeout_, "--timeout"));
    if (ping_command_->parsed()) return run_ping(common_);
    if (reload_command_->parsed()) {
      return run_reload(common_, milliseconds(reload_timeout_, "--timeout"));
    }
    if (status_command_->parsed()) return run_status(common_);
    if (top_command_->parsed()) {
      top_.interval = milliseconds(interval_, "--interval");
      if (top_.interval < kTopIntervalMin || top_.interval > kTopIntervalMax) {
        throw UsageError{"--interval must be 100ms to 60s"};
      }
      return run_top(common_, top_);
    }
    if (mint_command_->parsed()) return run_mint(common_, mint_);
    return run_sql(sql_);
  }

 private:
  static std::chrono::milliseconds milliseconds(const std::string& text, const char* option) {
    return std::chrono::duration_cast<std::chrono::milliseconds>(duration(text, option));
  }

  void add_questions() {
    verify_command_ =
        app_.add_subcommand("verify", "Verify keys, read from standard input, one a line");
    why_command_ =
        app_.add_subcommand("why", "Explain the answer for one key, read from standard input");
    for (CLI::App* command : {verify_command_, why_command_}) {
      // Each option takes one word, so that a key typed after it is not read as a scope.
      command->add_option("--scope", verify_.scopes, "Scope that the key must hold; repeatable")
          ->allow_extra_args(false);
      command
          ->add_option("--any-scope", verify_.any_scopes,
                       "Scope of which one must be held; repeatable")
          ->allow_extra_args(false);
      command->add_option("--source", verify_.source, "Ask this source only");
      command->add_option("--max-age", max_age_, "Oldest acceptable knowledge, e.g. 5s");
    }
    verify_command_->add_flag("--metadata", verify_.metadata,
                              "Show the row's metadata, if allowed");
  }

  void add_requests() {
    sync_command_ =
        app_.add_subcommand("sync", "Return once everything committed before is in force");
    sync_command_->add_option("--timeout", sync_timeout_, "How long to wait, at most 60s")
        ->capture_default_str();
    ping_command_ = app_.add_subcommand("ping", "Does latchkeyd answer?");
    reload_command_ = app_.add_subcommand(
        "reload", "Have latchkeyd read its configuration again; say how it went");
    reload_command_->add_option("--timeout", reload_timeout_, "How long to wait")
        ->capture_default_str();
    status_command_ = app_.add_subcommand("status", "Freshness, sizes, counters");
  }

  void add_top() {
    top_command_ = app_.add_subcommand("top", "Live: rates, verdicts, ages, connections");
    top_command_->add_option("--interval", interval_, "Time between reports, 100ms to 60s")
        ->capture_default_str();
    top_command_->add_option("--count", top_.count, "As text, so many reports");
    top_command_->add_flag("--plain", top_.plain, "As text, on a terminal, too");
  }

  void add_mint() {
    mint_command_ = app_.add_subcommand("mint", "Make new keys, with what to store");
    mint_command_->add_option("--prefix", mint_.prefix, "What the keys begin with")->required();
    mint_command_->add_option("--count", mint_.count, "How many")->check(CLI::Range(1, 1'000'000));
    mint_command_->add_option("--config", mint_.config, "Configuration that has the source");
    mint_command_->add_option("--source", mint_.source, "Store as this source does");
  }

  void add_sql() {
    sql_command_ = app_.add_subcommand("sql", "Print SQL for the operator to run");
    sql_command_->add_option("action", sql_.action, "install, uninstall or grant")
        ->required()
        ->check(CLI::IsMember({"install", "uninstall", "grant"}));
    sql_command_->add_option("--config", sql_.config, "Configuration file")->required();
    sql_command_->add_option("--source", sql_.source, "For this source only");
  }

  // An exit status, if there is nothing more to do. CLI11's own messages would repeat the argument,
  // which may be a key.
  std::optional<int> parse(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ExtrasError&) {
      throw UsageError{unexpected_argument(app_)};
    } catch (const CLI::RequiredError& error) {
      if (app_.get_subcommands().empty()) {
        throw UsageError{
            "no such command. Choose verify, why, sync, ping, status, reload, top, mint or sql; "
            "--help tells"
            " more."};
      }
      throw UsageError{std::string(error.what()) + ". --help tells what there is."};
    } catch (const CLI::ArgumentMismatch&) {
      throw UsageError{"an option lacks its value. --help tells what there is."};
    } catch (const CLI::ValidationError&) {
      throw UsageError{sql_command_->parsed()
                           ? "`latchkey sql` prints one of install, uninstall, grant."
                           : "an option has a value that it cannot have. --help"
                             " tells what there is."};
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app_.exit(error);  // --help, --version
      throw UsageError{"the command line cannot be understood (" + error.get_name() +
                       "). --help tells what there is."};
    }
    return std::nullopt;
  }

  CLI::App app_{
      "Asks latchkeyd about API keys. Exit status: 0 all keys are active, 1 some key is not,"
      " 2 wrong usage, 3 no trustworthy answer."};
  CommonSettings common_;
  VerifySettings verify_;
  TopSettings top_;
  MintSettings mint_;
  SqlSettings sql_;
  std::string max_age_, sync_timeout_ = "5s", reload_timeout_ = "30s", interval_ = "1s";
  CLI::App *verify_command_ = nullptr, *why_command_ = nullptr, *sync_command_ = nullptr,
           *ping_command_ = nullptr, *reload_command_ = nullptr, *status_command_ = nullptr,
           *top_command_ = nullptr, *mint_command_ = nullptr, *sql_command_ = nullptr;
};

int run(int argc, char** argv, PrintableStream& out) {
  refuse_empty_values(argc, argv);
  return CommandLine().run(argc, argv, out);
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
