// The I/O of one audit, on a separate connection that lives as long as the audit. Its failure does
// not affect the loader's two other connections.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "config/source.h"
#include "loader/audit.h"
#include "loader/postgres/catalogue.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/text_converter.h"

namespace latchkey {

class AuditLane {
 public:
  struct Terms {
    std::size_t source = 0;  // its index in the loader
    SourceConfig config;
    TableFacts facts;
    std::string channel;           // the listening connection's own channel
    std::int64_t patience_ns = 0;  // time limit for the digest of the whole table
  };

  // Begins to connect. Throws PgError.
  AuditLane(Terms terms, const PgTarget& target, const PgHost& host, std::int64_t now_ns);
  AuditLane(const AuditLane&) = delete;
  AuditLane& operator=(const AuditLane&) = delete;

  [[nodiscard]] std::size_t source() const { return terms_.source; }
  [[nodiscard]] Audit& audit() { return audit_; }
  [[nodiscard]] const PgConnection& connection() const { return connection_; }
  [[nodiscard]] std::int64_t deadline_ns() const { return deadline_ns_; }
  // The begin of the audit, and of its current look.
  [[nodiscard]] std::int64_t begun_ns() const { return begun_ns_; }
  [[nodiscard]] std::int64_t since_ns() const { return since_ns_; }

  // Starts the second look, over the same connection.
  void look_closer(std::int64_t now_ns);
  // True if this is the notification that was sent after the digest.
  [[nodiscard]] bool awaits(std::string_view payload) const {
    return !nonce_.empty() && payload == nonce_;
  }
  // Takes a notification on the channel, in the order of arrival.
  void heard(std::string_view payload);
  // Does all work that needs no waiting. Returns true once: when the digest has arrived and so have
  // all notifications of the changes that it covers. Throws PgError.
  [[nodiscard]] bool advance(std::int64_t now_ns);

 private:
  void ask(std::int64_t now_ns);
  void notify();

  Terms terms_;
  Audit audit_;
  TextConverter converter_;  // of ids
  PgConnection connection_;
  std::optional<CopyReader> copy_;
  bool asked_ = false;
  std::int64_t begun_ns_;
  std::int64_t since_ns_;
  std::int64_t deadline_ns_;
  std::string nonce_;
  bool nonce_back_ = false;
};

}  // namespace latchkey
