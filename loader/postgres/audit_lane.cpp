#include "loader/postgres/audit_lane.h"

#include <utility>

#include "loader/postgres/nonce.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {

AuditLane::AuditLane(Terms terms, const PgTarget& target, const PgHost& host, std::int64_t now_ns)
    : terms_(std::move(terms)),
      converter_(terms_.facts.encoding),
      connection_(target, host),
      begun_ns_(now_ns),
      since_ns_(now_ns),
      deadline_ns_(now_ns + connect_timeout_ns(target.conninfo)) {}

void AuditLane::look_closer(std::int64_t now_ns) {
  audit_.begin_second_look();
  since_ns_ = now_ns;
  ask(now_ns);
}

void AuditLane::heard(std::string_view payload) {
  if (awaits(payload)) nonce_back_ = true;
}

bool AuditLane::advance(std::int64_t now_ns) {
  connection_.advance();
  if (connection_.connected() && !std::exchange(asked_, true)) {
    deadline_ns_ = now_ns + kStepDeadline;
    connection_.send(session_settings(terms_.facts.by_policy),
                     {.copy_data = {}, .rows = {}, .done = [this, now_ns] { ask(now_ns); }});
  }
  if (nonce_back_ && connection_.idle()) {
    nonce_back_ = false;
    nonce_.clear();
    deadline_ns_ = kNoDeadline;  // the remaining waits have their own deadlines
    return true;
  }
  if (now_ns > deadline_ns_) throw PgError("the database gave no answer in time");
  return false;
}

void AuditLane::ask(std::int64_t now_ns) {
  deadline_ns_ = now_ns + terms_.patience_ns;
  if (!audit_.is_second_look()) {
    const auto take = [this](const PgRows& rows) {
      rows.expect_columns(3);
      for (int i = 0; i < rows.rows(); ++i) {
        if (!audit_.add_bucket(rows.value(i, 0), rows.value(i, 1), rows.value(i, 2))) {
          throw PgError("the digest of the table cannot be read");
        }
      }
    };
    connection_.send(digest_sql(terms_.config, terms_.facts), {.copy_data = {},
                                                               .rows = take,
                                                               .done = [this] { notify(); },
                                                               .what = "the digest of the table"});
    return;
  }
  copy_.emplace(std::size_t{2});
  const bool as_stored = is_read_as_stored(terms_.facts.encoding);
  const auto take = [this, as_stored](const CopyReader::Fields& fields) {
    std::uint64_t hash = 0;
    if (!fields[0] || !fields[1] || fields[1]->size() != sizeof hash) {
      throw PgError("the digest of a row cannot be read");
    }
    for (const char c : *fields[1]) hash = hash << 8 | static_cast<std::uint8_t>(c);
    audit_.add_row(as_stored ? converter_.id(*fields[0]) : std::string(*fields[0]), hash);
  };
  connection_.send(digest_rows_sql(terms_.config, terms_.facts, audit_.buckets()),
                   {.copy_data =
                        [this, take](std::span<const std::string_view> messages) {
                          for (const std::string_view message : messages)
                            copy_->read(message, take);
                        },
                    .rows = {},
                    .done =
                        [this] {
                          if (!copy_->ended()) throw PgError("the digests of rows broke off");
                          notify();
                        },
                    .what = "the digests of rows"});
}

// A notification sent now arrives after those of all changes that the digest covers, and proves
// that this connection and the listening one reach the same server. (Heartbeats prove that the
// listening connection receives notifications at all. If it does not, an audit finds differences
// that do not exist, which does no harm to any answer.)
void AuditLane::notify() {
  nonce_ = random_hex(16);
  deadline_ns_ += kStepDeadline;
  connection_.send(notify_sql(), {terms_.channel, nonce_}, {});
}

}  // namespace latchkey
