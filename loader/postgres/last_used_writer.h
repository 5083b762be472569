// Writes the times of the last use to the tables of one database, on a separate connection.
//
// It runs on the loader's thread without delaying or disturbing the loader: its connection never
// blocks, its failures stay its own, and it never waits for a row that another session has locked.
// The loader calls turn() whenever it is awake, and wakes for next_ns() and socket().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "config/source.h"
#include "keymap/key_set.h"
#include "loader/last_used.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/queries.h"
#include "loader/postgres/session_setup.h"

namespace latchkey {

class LastUsedWriter {
 public:
  LastUsedWriter(std::string database, PgTarget target, std::int64_t flush_ns, std::uint64_t seed);

  // Adds a source with a last_used_at column; returns its number. All arguments must outlive this;
  // `facts` may change between turns.
  std::size_t add(const SourceConfig& source, const TableFacts& facts, const KeySetWriter& keys,
                  UseLog& uses);

  // Stops writing to a source if its column has another unit than seconds, to keep its values
  // intact.
  void hold(std::size_t source, bool unit_is_wrong) {
    sources_.at(source)->unit_is_wrong = unit_is_wrong;
  }

  // Does all work that needs no waiting. `alive`: a working connection to the database, or null;
  // the writer connects to its server. Throws no libpq error.
  void turn(std::int64_t now_ns, const PgConnection* alive);
  // Writes the waiting times, for a few seconds at most, and logs the unwritten ones. Blocks.
  void finish(const PgConnection* alive);

  // True if the connection is in use. Otherwise disconnect() costs nothing: the next round
  // reconnects.
  [[nodiscard]] bool busy() const;
  // The rows of the current batch wait again.
  void disconnect();

  [[nodiscard]] std::int64_t next_ns() const;
  // For poll(); -1 if there is no connection.
  [[nodiscard]] int socket() const { return connection_ ? connection_->socket() : -1; }
  [[nodiscard]] short events() const {
    return connection_ ? connection_->events() : static_cast<short>(0);
  }

  [[nodiscard]] LastUsedCounts counts(std::size_t source) const;

 private:
  struct Source {
    const SourceConfig& config;
    const TableFacts& facts;
    const KeySetWriter& keys;
    UseLog& uses;
    PendingUses pending;
    std::size_t left = 0;  // rows left in the current round
    UsedRows locked;       // by other sessions; they wait until the round ends
    std::uint64_t written = 0;
    std::uint64_t failures = 0;
    bool unit_is_wrong = false;

    // False if strangers own the table's triggers: an UPDATE would run them as our role.
    [[nodiscard]] bool writable() const { return facts.foreign_code.empty() && !unit_is_wrong; }
  };

  void collect();
  void take_all_pending();
  void begin_round(std::int64_t now_ns);
  void end_round();
  void advance(std::int64_t now_ns, const PgConnection* alive);
  void connect(std::int64_t now_ns, const PgConnection& alive);
  [[nodiscard]] bool write_batch(std::int64_t now_ns);
  void send_batch(const std::vector<std::string>& before, std::size_t from,
                  const std::vector<std::string>& parameters);
  void batch_done(const PgRows& rows);
  void round_done();
  void failed(std::int64_t now_ns, const std::string& why, std::size_t refused);
  [[nodiscard]] std::size_t pending() const;

  std::string database_;
  PgTarget target_;
  std::int64_t flush_ns_;
  LastUsedRounds rounds_;
  std::vector<std::unique_ptr<Source>> sources_;

  std::unique_ptr<PgConnection> connection_;
  SessionOwner session_owner_;
  bool prepared_ = false;         // the session's settings are applied
  std::int64_t deadline_ns_ = 0;  // of the current step
  bool in_round_ = false;
  std::size_t at_ = 0;      // the source being written
  UsedRows batch_;          // being written
  std::string last_error_;  // as logged; empty: no error
};

}  // namespace latchkey
