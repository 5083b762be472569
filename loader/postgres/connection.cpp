#include "loader/postgres/connection.h"

#include <endian.h>
#include <libpq-fe.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/printable.h"
#include "loader/postgres/conninfo.h"
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

constexpr LibpqConninfo kLibpq = {PQconninfoParse, PQconninfoFree, PQfreemem};

std::optional<std::string> option(const std::string& conninfo, std::string_view keyword) {
  return Conninfo(conninfo, kLibpq).option(keyword);
}

// Settings that we add unless the conninfo has them. They detect a dead peer within seconds, never
// take a standby for the primary, and skip the GSSAPI probe before each connection. ("primary", not
// "read-write": a role or database with read-only transactions by default can be followed.)
constexpr const char* kConnectTimeout = "5";
constexpr std::array<std::pair<const char*, const char*>, 8> kDefaults = {{
    {"target_session_attrs", "primary"},
    {"keepalives_idle", "5"},
    {"keepalives_interval", "2"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "8000"},
    {"gssencmode", "disable"},
    {"connect_timeout", kConnectTimeout},
    {"application_name", "latchkeyd"},
}};

constexpr std::int64_t kConnectTimeoutMin = 2;  // seconds

void discard_notice(void*, const PGresult*) {}

// "a,b,,c" -> its parts, empty ones included.
std::vector<std::string> parts_of(const std::string& list) {
  std::vector<std::string> parts(1);
  for (const char c : list) {
    if (c == ',') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

ConninfoFacts read_conninfo(const std::string& conninfo) {
  return Conninfo(conninfo, kLibpq).facts();
}

std::string PgHost::display() const {
  std::string text = !host.empty() ? host : !hostaddr.empty() ? hostaddr : "the default host";
  if (!host.empty() && !hostaddr.empty() && host != hostaddr) text += " (" + hostaddr + ")";
  if (!port.empty()) text += ":" + port;
  return text;
}

std::vector<PgHost> hosts_of(const std::string& conninfo) {
  const auto listed = [&](std::string_view keyword) {
    const auto value = option(conninfo, keyword);
    return value ? parts_of(*value) : std::vector<std::string>();
  };
  const auto hosts = listed("host"), addresses = listed("hostaddr"), ports = listed("port");
  std::vector<PgHost> servers(std::max({hosts.size(), addresses.size(), std::size_t{1}}));
  for (std::size_t i = 0; i < servers.size(); ++i) {
    if (i < hosts.size()) servers[i].host = hosts[i];
    if (i < addresses.size()) servers[i].hostaddr = addresses[i];
    // A single port applies to all hosts (libpq, "Specifying Multiple Hosts").
    if (ports.size() == 1) servers[i].port = ports.front();
    if (ports.size() > 1 && i < ports.size()) servers[i].port = ports[i];
  }
  return servers;
}

namespace {

// More addresses are a DNS mistake or an attack: each one may take connect_timeout.
constexpr std::size_t kAddressesMax = 16;

}  // namespace

std::vector<PgHost> addresses_of(const PgHost& host) {
  // A path or an abstract name is a Unix socket (libpq, "host"); no host means libpq's default.
  const bool is_name = !host.host.empty() && host.host.front() != '/' && host.host.front() != '@';
  if (!is_name || !host.hostaddr.empty()) return {host};
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.host.c_str(), nullptr, &hints, &found);
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(
      found, [](addrinfo* list) { freeaddrinfo(list); });
  if (error != 0) {
    throw PgConnectError("could not translate host name \"" + printable(host.host) +
                         "\" to address: " + gai_strerror(error));
  }
  std::vector<PgHost> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    std::array<char, NI_MAXHOST> text{};
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text.data(), text.size(), nullptr, 0,
                    NI_NUMERICHOST) != 0) {
      continue;
    }
    const bool known = std::ranges::any_of(
        addresses, [&](const PgHost& other) { return other.hostaddr == text.data(); });
    if (!known && addresses.size() < kAddressesMax) {
      addresses.push_back({host.host, text.data(), host.port});
    }
  }
  if (addresses.empty()) {
    throw PgConnectError("host name \"" + printable(host.host) + "\" has no address");
  }
  return addresses;
}

std::int64_t connect_timeout_ns(const std::string& conninfo) {
  const auto given = option(conninfo, "connect_timeout");
  std::int64_t seconds = given ? std::atoll(given->c_str()) : 0;
  if (seconds <= 0) seconds = std::atoll(kConnectTimeout);
  return std::max(seconds, kConnectTimeoutMin) * 1'000'000'000;
}

// ---- results

PgRows::PgRows(pg_result* result, std::string_view what) : result_(result, PQclear), what_(what) {}

int PgRows::rows() const { return PQntuples(result_.get()); }

void PgRows::fail(const std::string& how) const {
  throw PgError("the server's answer to " + std::string(what_) + " " + how);
}

void PgRows::expect_columns(std::size_t columns) const {
  const int count = PQnfields(result_.get());
  if (count < 0 || static_cast<std::size_t>(count) != columns) {
    fail("has " + std::to_string(count) + " columns instead of " + std::to_string(columns));
  }
}

bool PgRows::are_of_types(std::span<const std::uint32_t> types) const {
  expect_columns(types.size());
  for (std::size_t i = 0; i < types.size(); ++i) {
    const int column = static_cast<int>(i);
    if (PQfformat(result_.get(), column) != 1) fail("is not in the binary format");
    if (PQftype(result_.get(), column) != types[i]) return false;
  }
  return true;
}

std::optional<std::string_view> PgRows::field(int row, int column) const {
  if (row < 0 || row >= rows()) fail("has no row " + std::to_string(row));
  if (column < 0 || column >= PQnfields(result_.get())) {
    fail("has no column " + std::to_string(column));
  }
  if (PQgetisnull(result_.get(), row, column) != 0) return std::nullopt;
  return std::string_view(PQgetvalue(result_.get(), row, column),
                          static_cast<std::size_t>(PQgetlength(result_.get(), row, column)));
}

std::string_view PgRows::value(int row, int column) const {
  const auto found = field(row, column);
  if (!found) fail("is NULL in column " + std::to_string(column));
  return *found;
}

// ---- the connection

PgConnection::PgConnection(const PgTarget& target, const PgHost& host)
    : connection_(nullptr, PQfinish) {
  std::vector<const char*> keywords = {"dbname", "client_encoding"};
  std::vector<const char*> values = {target.conninfo.c_str(), "UTF8"};
  const auto add = [&](const char* keyword, const char* value) {
    keywords.push_back(keyword);
    values.push_back(value);
  };
  for (const auto& [keyword, value] : kDefaults) {
    if (!option(target.conninfo, keyword)) add(keyword, value);
  }
  std::string password;
  try {
    if (target.password) password = target.password();
  } catch (const std::exception& error) {
    throw PgConnectError(error.what());
  }
  if (!password.empty()) add("password", password.c_str());
  // Each replaces the conninfo's list. (libpq ignores an empty value and keeps the list.)
  if (!host.host.empty() || option(target.conninfo, "host")) add("host", host.host.c_str());
  if (!host.hostaddr.empty() || option(target.conninfo, "hostaddr")) {
    add("hostaddr", host.hostaddr.c_str());
  }
  if (!host.port.empty() || option(target.conninfo, "port")) add("port", host.port.c_str());
  add(nullptr, nullptr);
  // Later keywords override those inside the expanded dbname: client_encoding is ours.
  connection_.reset(PQconnectStartParams(keywords.data(), values.data(), /*expand_dbname=*/1));
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

// ---- COPY

namespace {

class CopyCursor {
 public:
  explicit CopyCursor(std::string_view bytes) : bytes_(bytes) {}

  std::string_view take(std::size_t count) {
    if (bytes_.size() < count) throw PgError("a COPY message ends in the middle of a tuple");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::int16_t int16() {
    std::uint16_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return static_cast<std::int16_t>(be16toh(value));
  }
  std::int32_t int32() {
    std::uint32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return static_cast<std::int32_t>(be32toh(value));
  }
  [[nodiscard]] bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

constexpr std::string_view kCopySignature("PGCOPY\n\377\r\n\0", 11);

}  // namespace

void CopyReader::read(std::string_view message, const std::function<void(const Fields&)>& tuple) {
  CopyCursor cursor(message);
  if (!header_read_) {
    if (cursor.take(kCopySignature.size()) != kCopySignature) {
      throw PgError("COPY did not answer in the binary format");
    }
    if (cursor.int32() != 0) throw PgError("COPY set a flag that we do not know");
    cursor.take(static_cast<std::size_t>(cursor.int32()));  // header extension
    header_read_ = true;
  }
  while (!cursor.at_end()) {
    if (ended_) throw PgError("COPY sent more behind its end");
    const auto count = cursor.int16();
    if (count == -1) {
      ended_ = true;
      continue;
    }
    if (count < 0 || static_cast<std::size_t>(count) != fields_) {
      throw PgError("COPY sent a tuple with another number of fields than was selected");
    }
    tuple_.clear();
    for (std::size_t i = 0; i < fields_; ++i) {
      const auto length = cursor.int32();
      if (length < -1) throw PgError("COPY sent a field of an impossible length");
      if (length == -1) {
        tuple_.emplace_back(std::nullopt);
      } else {
        tuple_.emplace_back(cursor.take(static_cast<std::size_t>(length)));
      }
    }
    tuple(tuple_);
  }
}

}  // namespace latchkey
