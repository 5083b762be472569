// Writes the times of the last use to the tables of one database, on a connection of its own.
//
// It belongs to the loader's thread, and can neither hold it up nor hurt what it is there for: its
// connection never blocks, its failures stay its own, and it never waits for a row that somebody
// else has locked. The loader calls turn() whenever it is awake, and wakes for next_ns() and
// socket().
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

  // One of the sources whose table wants to know; returns its number. All arguments outlive this;
  // `facts` may change between turns.
  std::size_t add(const SourceConfig& source, const TableFacts& facts, const KeySetWriter& keys,
                  UseLog& uses);

  // Its column counts something else than seconds: nothing is written, so that none is spoilt.
  void hold(std::size_t source, bool unit_is_wrong) {
    sources_.at(source)->unit_is_wrong = unit_is_wrong;
  }

  // Does what can be done without waiting. `alive` is a connection to the database that works, null
  // where there is none: its server is the one that is written to. Throws nothing of libpq's.
  void turn(std::int64_t now_ns, const PgConnection* alive);
  // Writes what waits, for a few seconds at most, and logs what it could not write. Blocks.
  void finish(const PgConnection* alive);

  // Is the connection in use? If not, disconnect() gives it up at no cost; it comes back by itself.
  [[nodiscard]] bool busy() const;
  // What was under way waits again.
  void disconnect();

  [[nodiscard]] std::int64_t next_ns() const;
  // For poll(); -1: there is no connection.
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
    std::size_t left = 0;  // of the round under way
    UsedRows locked;       // by somebody else; they wait until the round is over
    std::uint64_t written = 0;
    std::uint64_t failures = 0;
    bool unit_is_wrong = false;

    // An UPDATE runs the table's triggers as our role: not where strangers own them.
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
  bool prepared_ = false;         // the session's settings are made
  std::int64_t deadline_ns_ = 0;  // of the step under way
  bool in_round_ = false;
  std::size_t at_ = 0;      // the source that is written now
  UsedRows batch_;          // under way
  std::string last_error_;  // said in the log; empty: it works
};

}  // namespace latchkey
