// The map that every answer comes from: digest -> record.
//
// Open addressing in 8-byte atomic words, [16-bit tag | 48-bit record pointer], linear probing.
// Any number of readers, wait-free: they load words and immutable records, and write nothing. One
// writer: it replaces a key's record by one atomic store. A deletion leaves a tombstone so that
// probe sequences of other keys stay whole; when live words and tombstones fill half of the table,
// the writer builds a new one aside and publishes it by one store.
//
// Memory order. Words and the table pointer are stored and loaded sequentially consistently; see
// quiescence.h for why reclamation needs that. Publication alone would need release/acquire: the
// record's bytes are written before the word that leads to it, so a reader who loads the word sees
// them whole.
//
// The map does not own records, it only leads to them: KeySetWriter owns, and retires what this map
// returns as replaced. Outgrown tables are retired here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "keymap/digest.h"
#include "keymap/quiescence.h"
#include "keymap/record.h"

namespace latchkey {

class KeyMap {
 public:
  // `hash` decides where digests land; tests pass hostile ones.
  using Hash = std::uint64_t (*)(const Digest&);

  explicit KeyMap(Quiescence& quiescence, Hash hash = slot_hash);
  ~KeyMap();
  KeyMap(const KeyMap&) = delete;
  KeyMap& operator=(const KeyMap&) = delete;

  // ---- readers, inside a ReadSection

  // The record of each digest or null. Look-ups are interleaved, so that their cache misses overlap
  // instead of adding up; that pays from two on. At most kBatchMax at once.
  static constexpr std::size_t kBatchMax = 32;
  void find(std::span<const Digest> digests, std::span<const Record*> found) const;
  [[nodiscard]] const Record* find(const Digest& digest) const;

  // ---- the writer

  // Makes `record` the record of its digest, unless there is one: then that one stays and is
  // returned. Null: inserted.
  const Record* insert(const Record* record);
  // Makes `record` the record of its digest, which has one; returns the old one for the caller to
  // retire.
  const Record* replace(const Record* record);
  // Returns the record that was removed, or null.
  const Record* erase(const Digest& digest);
  // Makes room for `count` records in all, so that a load grows the table once.
  void reserve(std::size_t count);
  // Frees outgrown tables that no reader can hold any more.
  void collect();

  [[nodiscard]] std::size_t size() const { return live_; }
  [[nodiscard]] std::size_t slots() const;
  [[nodiscard]] std::size_t tombstones() const { return used_ - live_; }
  // Outgrown tables that wait for readers.
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }

 private:
  struct Table;
  struct Retired {
    std::uint64_t stamp;
    std::unique_ptr<Table> table;
  };

  static const Record* probe(const Table& table, std::uint64_t hash, const Digest& digest);
  void rebuild(std::size_t live_expected);

  Quiescence& quiescence_;
  Hash hash_;
  std::atomic<Table*> table_;
  std::size_t live_ = 0;
  std::size_t used_ = 0;  // live words and tombstones
  std::deque<Retired> retired_;
};

}  // namespace latchkey
