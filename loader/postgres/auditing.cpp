#include "loader/postgres/auditing.h"

#include <spdlog/fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "base/clock.h"
#include "base/printable.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {
namespace {

// The minimum time limit for the digest of a whole table, which arrives in one piece.
constexpr std::int64_t kPatience = 60 * kSecond;

}  // namespace

void Auditing::audit(std::size_t index) {
  if (lane_) {
    lane_->look_closer(boot_ns());
  } else {
    wanted_ = index;
  }
}

// A database gets at most three connections: the third one audits, writes last uses or sends
// heartbeats.
void Auditing::begin(std::int64_t now_ns, bool third_free) {
  if (!wanted_ || database_.last_used.busy() || !third_free) return;
  database_.last_used.disconnect();
  const std::size_t index = *std::exchange(wanted_, std::nullopt);
  FollowedSource& source = *database_.sources[index];
  try {
    lane_.emplace(
        AuditLane::Terms{.source = index,
                         .config = source.config(),
                         .facts = source.facts,
                         .channel = listening_.channel(),
                         .patience_ns = std::max(kPatience, database_.config.refresh.audit_ns)},
        database_.config.target, listening_.connection().server(), now_ns);
    source.audit = &lane_->audit();
  } catch (const PgError& error) {
    failed(index, error.what());
  }
}

void Auditing::turn(std::int64_t now_ns, bool third_free) {
  begin(now_ns, third_free);
  if (!lane_) return;
  try {
    if (lane_->advance(boot_ns())) database_.refresh.audit_returned();
  } catch (const std::exception& error) {
    fail(error.what());
  }
}

void Auditing::compare(std::size_t index) {
  FollowedSource& source = *database_.sources[index];
  const std::int64_t now_ns = boot_ns();
  const Audit::Result result = lane_->audit().compare(source.writer(), source.unusable);
  if (result == Audit::Result::kLookCloser) {
    database_.refresh.audit_again();
    return;
  }
  if (result == Audit::Result::kUnsure) {
    ++source.status.audits_unsure;
    if (!lane_->audit().spoiled()) undecided(source, index);
  } else {
    source.undecided.decided();
    ++source.status.audits;
    source.status.audited_boot_ns = now_ns;
    source.status.audit_seconds = to_seconds(now_ns - lane_->since_ns());
  }
  if (result == Audit::Result::kAgrees) source.seen(lane_->begun_ns(), now_ns);
  if (result == Audit::Result::kDiffers) differs(source, index);
  source.status.audits_undecided_in_a_row = source.undecided.in_a_row();
  end();
  database_.refresh.audit_done();
}

void Auditing::differs(FollowedSource& source, std::size_t index) {
  const Audit& audit = lane_->audit();
  ++source.status.audit_mismatches;
  spdlog::error(
      "source \"{}\": AUDIT: {} rows of {} are not what they were told to be (id {}): something"
      " changed them without firing the triggers, such as a statement that addressed a"
      " partition, or logical replication. The table is read anew.",
      source.name(), audit.differing(), source.config().table.display(),
      audit.named().empty() ? "not known"
                            : printable(fmt::format("{}", fmt::join(audit.named(), ", "))));
  database_.refresh.reload(index, LoadReason::kAuditFound);
}

// A load replaces the undecided audit.
void Auditing::undecided(FollowedSource& source, std::size_t index) {
  if (source.undecided.add()) {
    spdlog::error(
        "source \"{}\": {} audits in a row could not tell whether something bypasses the triggers:"
        " more rows were told of meanwhile than can be kept apart. The table is read anew each time"
        " instead. If it does not change that much, somebody forges notifications: see who is"
        " connected to database \"{}\".",
        source.name(), source.undecided.in_a_row(), database_.config.name);
  }
  database_.refresh.reload(index, LoadReason::kAuditUnsure);
}

void Auditing::fail(const std::string& why) { failed(lane_->source(), why); }

void Auditing::failed(std::size_t index, const std::string& why) {
  FollowedSource& source = *database_.sources[index];
  ++source.status.audits_failed;
  spdlog::warn(
      "source \"{}\": the audit could not be made: {}. Changes are followed all the same; the next"
      " audit comes in its time.",
      source.name(), why);
  end();
  database_.refresh.audit_failed();
}

void Auditing::end() {
  if (lane_) database_.sources[lane_->source()]->audit = nullptr;
  lane_.reset();
}

std::int64_t Auditing::deadline_ns() const { return lane_ ? lane_->deadline_ns() : kNoDeadline; }

}  // namespace latchkey
