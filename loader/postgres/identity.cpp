#include "loader/postgres/identity.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <utility>

#include "loader/postgres/sql_text.h"
#include "loader/postgres/version.h"

namespace latchkey {
namespace {

// Bounds the memory that a hostile server can use.
constexpr std::size_t kTimelinesMax = 64;

constexpr const char* kNull = "NULL::pg_catalog.text";

std::string may_execute(const char* function) {
  return std::string("pg_catalog.has_function_privilege('pg_catalog.") + function + "', 'EXECUTE')";
}

}  // namespace

std::optional<Lsn> parse_lsn(const std::string& text) {
  const auto slash = text.find('/');
  if (slash == text.npos) return std::nullopt;
  const auto half = [](std::string_view digits) -> std::optional<std::uint32_t> {
    std::uint32_t number = 0;
    const char* end = digits.data() + digits.size();
    const auto [rest, error] = std::from_chars(digits.data(), end, number, 16);
    if (digits.empty() || error != std::errc() || rest != end) return std::nullopt;
    return number;
  };
  const auto high = half(std::string_view(text).substr(0, slash));
  const auto low = half(std::string_view(text).substr(slash + 1));
  if (!high || !low) return std::nullopt;
  return Lsn{*high} << 32 | *low;
}

std::string show_lsn(Lsn lsn) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "%X/%X", static_cast<unsigned>(lsn >> 32),
                static_cast<unsigned>(lsn & 0xFFFFFFFF));
  return text.data();
}

// PostgreSQL checks EXECUTE rights before it runs anything, even in a CASE branch that is never
// evaluated. So rights are queried first, and the queries are built to fit.
std::string side_rights_sql() {
  return "SELECT " + may_execute("pg_control_system()") + ", " +
         may_execute("pg_is_in_recovery()") + " AND " +
         may_execute("pg_walfile_name(pg_catalog.pg_lsn)") + " AND " +
         may_execute("pg_current_wal_insert_lsn()") + " AND " +
         may_execute("pg_current_wal_flush_lsn()") + ", " + may_execute("pg_control_checkpoint()") +
         " AND " + may_execute("pg_postmaster_start_time()") + ", " +
         may_execute("pg_notification_queue_usage()") +
         ", pg_catalog.has_column_privilege('pg_catalog.pg_subscription_rel', 'srrelid',"
         " 'SELECT')";
}

std::optional<Finding> missing_rights(const SideRights& rights) {
  std::vector<std::string> missing;
  if (!rights.system) {
    missing.emplace_back("EXECUTE on pg_control_system(), to notice that another cluster answers");
  }
  if (!rights.position) {
    missing.emplace_back(
        "EXECUTE on pg_is_in_recovery(), pg_walfile_name(), pg_current_wal_insert_lsn() and"
        " pg_current_wal_flush_lsn(), to notice that an old primary or a restored copy answers");
  }
  if (!rights.start) {
    missing.emplace_back(
        "EXECUTE on pg_control_checkpoint() and pg_postmaster_start_time(), to notice a restored"
        " copy that has written more since than was lost");
  }
  if (!rights.queue) {
    missing.emplace_back(
        "EXECUTE on pg_notification_queue_usage(), to tell how full the notification queue is");
  }
  if (!rights.subscriptions) {
    missing.emplace_back(
        "SELECT on pg_subscription_rel, to tell whether logical replication fills the table");
  }
  if (missing.empty()) return std::nullopt;
  return Finding{.lint = Lint::kSideRights,
                 .count = 0,
                 .about = "",
                 .text = "the database role lacks rights that everybody has by default: " +
                         joined(missing, "; ") +
                         ". Keys are followed all the same. GRANT them to the role as a"
                         " superuser, or to PUBLIC, as PostgreSQL does."};
}

std::string identity_sql(const SideRights& rights) {
  return "SELECT " +
         std::string(rights.system ? "(SELECT s.system_identifier::pg_catalog.text"
                                     " FROM pg_catalog.pg_control_system() s)"
                                   : kNull) +
         // The timeline of the current WAL; pg_control_checkpoint() reports that of the last
         // checkpoint, which may be older than the promotion.
         (rights.position
              ? std::string(", CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.substr("
                            "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1,"
                            " 8) END, CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN"
                            " pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END,"
                            " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN"
                            " pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text END")
              : std::string(", ") + kNull + ", " + kNull + ", " + kNull) +
         (rights.start ? std::string(", pg_catalog.pg_postmaster_start_time()::pg_catalog.text,"
                                     " (SELECT k.checkpoint_lsn::pg_catalog.text"
                                     " FROM pg_catalog.pg_control_checkpoint() k)")
                       : std::string(", ") + kNull + ", " + kNull);
}

std::string heartbeat_sql(const std::vector<const SourceConfig*>& sources,
                          const SideRights& rights) {
  return "SELECT " + versions_sql(sources) +
         // In this order: all WAL flushed when the first column is read is still flushed for the
         // second.
         (rights.position ? std::string(", pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text,"
                                        " pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text")
                          : std::string(", ") + kNull + ", " + kNull) +
         (rights.queue ? std::string(", pg_catalog.pg_notification_queue_usage()::pg_catalog.text")
                       : std::string(", ") + kNull);
}

std::string listen_progress_sql(const SideRights& rights) {
  return in_catalog(
             "SELECT coalesce((SELECT a.state {=} 'active' AND"
             " coalesce(a.wait_event_type, '') {<>} 'Lock' FROM pg_catalog.pg_stat_activity a"
             " WHERE a.pid {=} $1::pg_catalog.int4), true)::pg_catalog.text, ") +
         (rights.queue ? "pg_catalog.pg_notification_queue_usage()::pg_catalog.text" : kNull);
}

Lsn ServerHistory::furthest(std::uint32_t timeline) const {
  const auto found = furthest_.find(timeline);
  return found == furthest_.end() ? 0 : found->second;
}

IdentityChange ServerHistory::change_to(const ServerIdentity& now) const {
  if (!last_) return IdentityChange::kNone;
  if (!last_->system.empty() && !now.system.empty() && last_->system != now.system) {
    return IdentityChange::kOtherSystem;
  }
  if (last_->timeline == 0 || now.timeline == 0) return IdentityChange::kNone;
  if (now.timeline < last_->timeline) return IdentityChange::kOlderTimeline;
  const Lsn before = furthest(now.timeline);
  const bool behind = now.position.inserted != 0 && now.position.inserted < before;
  const bool anew =
      !last_->started.empty() && !now.started.empty() && last_->started != now.started;
  if (behind || (anew && now.checkpoint != 0 && now.checkpoint < before)) {
    return IdentityChange::kOlderPosition;
  }
  return now.timeline > last_->timeline ? IdentityChange::kPromotion : IdentityChange::kNone;
}

IdentityChange ServerHistory::met(const ServerIdentity& now) {
  const IdentityChange change = change_to(now);
  const bool other = change == IdentityChange::kOtherSystem;
  if (other) furthest_.clear();
  if (change == IdentityChange::kOlderTimeline || change == IdentityChange::kOlderPosition) {
    // Later timelines branched off from the undone history.
    furthest_.erase(furthest_.lower_bound(now.timeline), furthest_.end());
  }
  const std::optional<ServerIdentity> before = std::exchange(last_, now);
  if (before && !other) {  // keep values that the role may no longer ask for
    if (now.system.empty()) last_->system = before->system;
    if (now.timeline == 0) last_->timeline = before->timeline;
    if (now.started.empty()) last_->started = before->started;
  }
  unflushed_ = 0;
  reached(now.position);
  return change;
}

void ServerHistory::reached(const WalPosition& position) {
  if (!last_ || last_->timeline == 0 || position.inserted == 0) return;
  if (!furthest_.contains(last_->timeline) && furthest_.size() >= kTimelinesMax) {
    furthest_.erase(furthest_.begin());
  }
  Lsn& furthest = furthest_[last_->timeline];
  const auto count = [&](Lsn end) {
    if (end != 0 && end <= position.flushed) furthest = std::max(furthest, end);
    return end <= position.flushed;
  };
  if (count(unflushed_)) unflushed_ = count(position.inserted) ? 0 : position.inserted;
}

}  // namespace latchkey
