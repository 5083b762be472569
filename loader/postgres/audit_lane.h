// The shell of one audit: a connection of its own, for as long as it takes. Whatever becomes of it,
// the loader's two other connections go on.
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
    std::size_t source = 0;  // the loader's number of it
    SourceConfig config;
    TableFacts facts;
    std::string channel;           // that the listening connection hears
    std::int64_t patience_ns = 0;  // for the digest of the whole table
  };

  // Begins to connect. Throws PgError.
  AuditLane(Terms terms, const PgTarget& target, const PgHost& host, std::int64_t now_ns);
  AuditLane(const AuditLane&) = delete;
  AuditLane& operator=(const AuditLane&) = delete;

  [[nodiscard]] std::size_t source() const { return terms_.source; }
  [[nodiscard]] Audit& audit() { return audit_; }
  [[nodiscard]] const PgConnection& connection() const { return connection_; }
  [[nodiscard]] std::int64_t deadline_ns() const { return deadline_ns_; }
  // When the audit began, and the look under way.
  [[nodiscard]] std::int64_t begun_ns() const { return begun_ns_; }
  [[nodiscard]] std::int64_t since_ns() const { return since_ns_; }

  // A second look, over the same connection.
  void look_closer(std::int64_t now_ns);
  // Is this the notification that was sent behind the digest?
  [[nodiscard]] bool awaits(std::string_view payload) const {
    return !nonce_.empty() && payload == nonce_;
  }
  // A notification on the channel, in its turn.
  void heard(std::string_view payload);
  // Does what can be done without waiting. True once: the digest is here, and so is everything that
  // was notified of what it has seen. Throws PgError.
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
