#include "loader/postgres/connection.h"

#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "loader/postgres/server_message.h"

namespace latchkey {
namespace {

constexpr std::size_t kCopyBytesPerTurn = 1 << 20;

std::string_view error_field(const PGresult* result, int code) {
  const char* text = PQresultErrorField(result, code);
  return text != nullptr ? text : "";
}

std::string told(const PGresult* result) {
  const auto field = [&](int code) { return error_field(result, code); };
  return told(ServerMessage{.sqlstate = field(PG_DIAG_SQLSTATE),
                            .primary = field(PG_DIAG_MESSAGE_PRIMARY),
                            .constraint = field(PG_DIAG_CONSTRAINT_NAME),
                            .context = field(PG_DIAG_CONTEXT),
                            .function = field(PG_DIAG_SOURCE_FUNCTION)});
}

// Settings that we add unless the conninfo has them. They detect a dead peer within seconds, never
// take a standby for the primary, and skip the GSSAPI probe before each connection. ("primary", not
// "read-write": a role or database with read-only transactions by default can be followed.)
constexpr std::array<std::pair<const char*, const char*>, 8> kDefaults = {{
    {"target_session_attrs", "primary"},
    {"keepalives_idle", "5"},
    {"keepalives_interval", "2"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "8000"},
    {"gssencmode", "disable"},
    {"connect_timeout", kConnectTimeoutDefault},
    {"application_name", "latchkeyd"},
}};

void discard_notice(void*, const PGresult*) {}

}  // namespace

PgConnection::PgConnection(const PgTarget& target, const PgHost& host)
    : connection_(nullptr, PQfinish) {
  std::map<std::string, std::string> settings = conninfo_options(target.conninfo);
  for (const auto& [keyword, value] : kDefaults) settings.emplace(keyword, value);
  // Each takes the place of the conninfo's list, where it has one. An empty element of a list means
  // libpq's default, so the keyword is left out.
  const auto choose = [&](const char* keyword, const std::string& value) {
    settings.erase(keyword);
    if (!value.empty()) settings.emplace(keyword, value);
  };
  choose("host", host.host);
  choose("hostaddr", host.hostaddr);
  choose("port", host.port);
  settings["client_encoding"] = "UTF8";
  std::string password;
  try {
    if (target.password) password = target.password();
  } catch (const std::exception& error) {
    throw PgConnectError(error.what());
  }
  std::vector<const char*> keywords, values;
  for (const auto& [keyword, value] : settings) {
    keywords.push_back(keyword.c_str());
    values.push_back(value.c_str());
  }
  if (!password.empty()) {
    keywords.push_back("password");
    values.push_back(password.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  connection_.reset(PQconnectStartParams(keywords.data(), values.data(), /*expand_dbname=*/0));
  OPENSSL_cleanse(password.data(), password.size());
  if (connection_ == nullptr) throw PgError("out of memory");
  if (PQstatus(connection_.get()) == CONNECTION_BAD) fail();
  PQsetNoticeReceiver(connection_.get(), discard_notice, nullptr);
  // Keeps DETAIL, HINT and CONTEXT out of PQerrorMessage(): see server_message.h.
  PQsetErrorVerbosity(connection_.get(), PQERRORS_TERSE);
  PQsetErrorContextVisibility(connection_.get(), PQSHOW_CONTEXT_NEVER);
}

PgConnection::~PgConnection() = default;

void PgConnection::fail() const {
  // The server's message before it ended the connection says more than libpq's error.
  const std::string why = refusal_ ? refusal_->what() : one_line(PQerrorMessage(connection_.get()));
  if (!connected_) throw PgConnectError(why);
  throw PgError(why);
}

PgHost PgConnection::server() const {
  const auto text = [](const char* value) { return std::string(value != nullptr ? value : ""); };
  return {text(PQhost(connection_.get())), text(PQhostaddr(connection_.get())),
          text(PQport(connection_.get()))};
}

std::string PgConnection::server_encoding() const {
  const char* encoding = PQparameterStatus(connection_.get(), "server_encoding");
  return encoding != nullptr ? encoding : "";
}

int PgConnection::backend_pid() const { return PQbackendPID(connection_.get()); }

int PgConnection::socket() const { return PQsocket(connection_.get()); }

short PgConnection::events() const {
  return wants_write_ ? static_cast<short>(connected_ ? POLLIN | POLLOUT : POLLOUT) : POLLIN;
}

namespace {

std::vector<const char*> pointers(const std::vector<std::string>& parameters) {
  std::vector<const char*> values;
  values.reserve(parameters.size());
  for (const std::string& parameter : parameters) values.push_back(parameter.c_str());
  return values;
}

constexpr int kBinary = 1;

}  // namespace

void PgConnection::send(const std::string& sql, Handlers handlers) {
  sent(PQsendQuery(connection_.get(), sql.c_str()), std::move(handlers));
}

void PgConnection::send(const std::string& sql, const std::vector<std::string>& parameters,
                        Handlers handlers) {
  const auto values = pointers(parameters);
  sent(PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()), nullptr,
                         values.data(), nullptr, nullptr, kBinary),
       std::move(handlers));
}

void PgConnection::prepare(const std::string& name, const std::string& sql, Handlers handlers) {
  sent(PQsendPrepare(connection_.get(), name.c_str(), sql.c_str(), 0, nullptr),
       std::move(handlers));
}

void PgConnection::execute(const std::string& name, const std::vector<std::string>& parameters,
                           Handlers handlers) {
  const auto values = pointers(parameters);
  sent(PQsendQueryPrepared(connection_.get(), name.c_str(), static_cast<int>(values.size()),
                           values.data(), nullptr, nullptr, kBinary),
       std::move(handlers));
}

void PgConnection::sent(int sent, Handlers handlers) {
  if (sent == 0) fail();
  handlers_ = std::move(handlers);
  busy_ = true;
  answered_ = false;
  wants_write_ = PQflush(connection_.get()) > 0;
}

void PgConnection::advance() {
  more_to_do_ = streaming_ = false;
  if (!connected_) {
    // PQconnectPoll may be called only when its socket is ready (libpq, "PQconnectPoll"); the
    // caller may have woken for another reason.
    pollfd ready{socket(), events(), 0};
    if (poll(&ready, 1, 0) > 0) advance_connecting();
    return;
  }
  const int unsent = PQflush(connection_.get());
  if (unsent < 0) fail();
  wants_write_ = unsent > 0;
  pollfd readable{socket(), POLLIN, 0};
  if (poll(&readable, 1, 0) > 0) heard_ = true;
  if (PQconsumeInput(connection_.get()) == 0) fail();
  if (busy_) read_results();
}

void PgConnection::advance_connecting() {
  switch (PQconnectPoll(connection_.get())) {
    case PGRES_POLLING_FAILED: fail();
    case PGRES_POLLING_READING: wants_write_ = false; break;
    case PGRES_POLLING_WRITING: wants_write_ = true; break;
    default:
      connected_ = true;
      wants_write_ = false;
      if (PQsetnonblocking(connection_.get(), 1) != 0) fail();
  }
}

void PgConnection::read_results() {
  if (copying_ && !read_copy()) return;
  while (PQisBusy(connection_.get()) == 0) {
    PGresult* result = PQgetResult(connection_.get());
    if (result == nullptr) {
      finish_query();
      return;
    }
    const PgRows rows(result, handlers_.what);  // frees it
    switch (PQresultStatus(result)) {
      case PGRES_COMMAND_OK: break;
      case PGRES_TUPLES_OK:
        if (handlers_.copy_data) unexpected("has rows instead of a COPY");
        if (!handlers_.rows) break;  // the query has no use for its rows
        take_result();
        handlers_.rows(rows);
        break;
      case PGRES_COPY_OUT:
        if (!handlers_.copy_data) unexpected("is a COPY that nobody asked for");
        take_result();
        copying_ = true;
        if (!read_copy()) return;
        break;
      case PGRES_FATAL_ERROR:
        // Errors that end the connection also arrive as results; a later read reports the broken
        // connection.
        if (PQstatus(connection_.get()) == CONNECTION_BAD) fail();
        if (!refusal_)
          refusal_.emplace(told(result), std::string(error_field(result, PG_DIAG_SQLSTATE)));
        break;
      default: unexpected("is of an unexpected kind");
    }
  }
}

void PgConnection::take_result() {
  if (std::exchange(answered_, true)) unexpected("has more than one result");
}

void PgConnection::unexpected(const char* how) const {
  throw PgError("the server's answer to " + std::string(handlers_.what) + " " + how);
}

// Returns true when the COPY has ended and its result can be read.
bool PgConnection::read_copy() {
  using Owner = std::unique_ptr<char, void (*)(void*)>;
  std::vector<Owner> owners;
  std::vector<std::string_view> messages;
  const auto hand_over = [&] {
    if (!messages.empty()) handlers_.copy_data(messages);
    messages.clear();
    owners.clear();
  };
  std::size_t taken = 0;
  bool asked_in_vain = false;
  while (taken < kCopyBytesPerTurn) {
    char* data = nullptr;
    const int length = PQgetCopyData(connection_.get(), &data, /*async=*/1);
    if (length <= 0) hand_over();
    if (length == 0) {
      // The server may have sent more meanwhile: asking is cheaper than another turn of the loop.
      if (PQconsumeInput(connection_.get()) == 0) fail();
      if (std::exchange(asked_in_vain, true)) {  // wait for more
        streaming_ = taken > 0;
        return false;
      }
      continue;
    }
    asked_in_vain = false;
    if (length == -1) {
      copying_ = false;
      return true;
    }
    if (length < 0) fail();
    owners.emplace_back(data, PQfreemem);
    messages.emplace_back(data, static_cast<std::size_t>(length));
    taken += static_cast<std::size_t>(length);
    if (messages.size() == kCopyMessages) hand_over();
  }
  hand_over();
  more_to_do_ = true;
  return false;
}

void PgConnection::finish_query() {
  // Without these checks a load would take the answer for an empty table and forget every key, and
  // a heartbeat would not notice that it did not look at the triggers.
  if (!refusal_ && !answered_ && handlers_.copy_data) unexpected("is no COPY");
  if (!refusal_ && !answered_ && handlers_.rows) unexpected("has no rows");
  busy_ = false;
  // The handlers may send the next query, which replaces handlers_.
  const Handlers handlers = std::exchange(handlers_, {});
  if (const auto refusal = std::exchange(refusal_, std::nullopt)) {
    if (!handlers.refused) throw *refusal;
    handlers.refused(*refusal);
  } else if (handlers.done) {
    handlers.done();
  }
}

std::optional<PgNotification> PgConnection::next_notification() {
  const std::unique_ptr<PGnotify, void (*)(void*)> notify(PQnotifies(connection_.get()), PQfreemem);
  if (notify == nullptr) return std::nullopt;
  return PgNotification{notify->relname, notify->extra};
}

}  // namespace latchkey
