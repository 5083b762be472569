// The map that every answer comes from: digest -> record.
//
//     hash of the digest:   [ 32 bits: which segment | 16 bits: tag | 16 bits: home slot ]
//
//     directory                     segment (64 bytes to 128 KiB; larger if hashes do not differ)
//     +-----------------------+     +----------------------+
//     | segment, its size     |---->| tag | record pointer |---> record: digest, state, claims
//     | segment, its size     |-.   | empty                |
//     |  ...                  |  |  | tombstone            |
//                                '->  ...
//
// Extendible hashing (Fagin et al., ACM TODS 4(3), 1979): the directory is indexed by the hash's
// highest bits, and each of its entries leads to a segment, a small table of its own with open
// addressing and linear probing. A full segment is replaced by a larger one, or by two that share
// its keys by the next bit of their hashes; when there is no next bit, the directory is copied to
// twice its size. So an update costs the same at any size: at worst one segment is moved (8192
// words, a hundred microseconds) and the directory copied (8 bytes a segment), never the whole
// table, and growing takes no second table beside the first.
//
// All words that readers see are 8-byte atomics. Any number of readers, wait-free: they load words
// and immutable records, and write nothing. One writer: it replaces a key's record by one store. A
// deletion leaves a tombstone so that probe sequences of other keys stay whole; tombstones go when
// their segment is next moved.
//
// Consistency. A key's word never moves within a segment, and a segment is not written to once a
// replacement is published. So a look-up returns a record (or none) that was the key's at some
// instant between its beginning and its end, and one that begins after an update returned, or after
// another look-up that has seen the update returned, sees it as well.
//
// Memory order. Whatever leads to memory that may be freed (the directory, its entries, the words)
// is stored and loaded sequentially consistently; quiescence.h argues why reclamation needs that.
// Publication alone would need release and acquire, which that includes: the bytes behind a pointer
// are written before the store of the pointer, so whoever loads it sees them whole. The writer
// reads back what it alone writes, for which relaxed loads do.
//
// The map does not own records, it only leads to them: KeySetWriter owns, and retires what this map
// returns as replaced. Outgrown segments and directories are retired here.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "keymap/quiescence.h"
#include "keymap/record.h"
#include "keymap/slab.h"
#include "keys/digest.h"

namespace latchkey {

class KeyMap {
 public:
  // Decides where digests land: a hash for each of them. Tests pass hostile ones.
  using Hash = void (*)(std::span<const Digest>, std::uint64_t* hashes);

  // A segment of `segment_slots` words, when full, is split instead of doubled. By default 128 KiB,
  // of which half is in use. Smaller ones make a directory that no first-level cache holds (ten
  // million keys: 16 KiB as it is); larger ones make longer moves.
  static constexpr std::size_t kSegmentSlots = 16384;
  explicit KeyMap(Quiescence& quiescence, Hash hash = slot_hashes,
                  std::size_t segment_slots = kSegmentSlots);
  KeyMap(const KeyMap&) = delete;
  KeyMap& operator=(const KeyMap&) = delete;

  // ---- readers, inside a ReadSection

  // The record of each digest or null. Look-ups are interleaved, so that their cache misses overlap
  // instead of adding up; that pays from two on. At most kBatchMax at once.
  static constexpr std::size_t kBatchMax = 64;
  void find(std::span<const Digest> digests, std::span<const Record*> found) const;
  [[nodiscard]] const Record* find(const Digest& digest) const;

  // ---- the writer

  // For about so many keys that will be inserted: segments get their place at once and their size
  // with their first keys, instead of both by moving keys again and again. Only an estimate: fewer
  // keys may take the memory of so many, more of them make the map grow as ever. Does nothing
  // unless the map is new; ends with the first key that is erased.
  void reserve(std::size_t keys);
  // Makes `record` the record of its digest, unless there is one: then that one stays and is
  // returned. Null: inserted.
  const Record* insert(const Record* record);
  // Makes `record` the record of its digest, which has one; returns the old one for the caller to
  // retire.
  const Record* replace(const Record* record);
  // Returns the record that was removed, or null.
  const Record* erase(const Digest& digest);
  // Frees what was outgrown and no reader can hold any more.
  void collect();

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t slots() const { return slots_; }
  [[nodiscard]] std::size_t segments() const { return segments_; }
  [[nodiscard]] std::size_t tombstones() const { return tombstones_; }
  // Outgrown segments and directories that wait for readers, and the stamp of the oldest.
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }
  [[nodiscard]] std::size_t retired_bytes() const { return retired_bytes_; }
  [[nodiscard]] std::optional<std::uint64_t> oldest_retired() const;
  [[nodiscard]] const Slab& memory() const { return slab_; }

  // Words in use, tombstones included, are at most half of a segment. At five eighths, look-ups
  // took a quarter longer: a third of the keys then stands away from home, and each is a branch
  // mispredicted.
  static constexpr std::size_t kLoadNumerator = 1;
  static constexpr std::size_t kLoadDenominator = 2;

 private:
  using Word = std::atomic<std::uint64_t>;
  // Where an array of words is and how long, in one word, so that readers get both by one load.
  struct Table;
  class Probe;
  // How full a segment is.
  struct Usage {
    std::uint32_t live = 0;
    std::uint32_t used = 0;  // live words and tombstones
  };
  struct Place;
  struct Retired {
    std::uint64_t stamp;
    void* memory;
    std::size_t bytes;
  };

  [[nodiscard]] std::uint64_t hash_of(const Digest& digest) const;
  [[nodiscard]] Place locate(const Digest& digest) const;
  [[nodiscard]] Usage& usage_of(std::uint64_t hash);

  [[nodiscard]] Table make_table(std::size_t words, unsigned depth);
  [[nodiscard]] Table make_directory(unsigned depth);
  void make_room(std::uint64_t hash);
  void move(std::uint64_t hash, unsigned depth);
  void double_directory();
  void publish(std::uint64_t hash, const Table& segment, Usage usage);
  void retire(const Table& table);

  Quiescence& quiescence_;
  Hash hash_;
  std::size_t segment_slots_;
  std::size_t reserved_slots_ = 0;  // what a segment's first keys make of it, at least
  Slab slab_;
  Word directory_;  // a Table of Tables
  // For each directory entry, but kept at the first one of those that lead to the same segment.
  std::vector<Usage> usage_;
  std::size_t size_ = 0;
  std::size_t slots_ = 0;
  std::size_t segments_ = 0;
  std::size_t tombstones_ = 0;
  std::deque<Retired> retired_;
  std::size_t retired_bytes_ = 0;
};

}  // namespace latchkey
