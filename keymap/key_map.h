// The map from digest to record that answers every look-up.
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
// Extendible hashing (Fagin et al., ACM TODS 4(3), 1979): the hash's highest bits index the
// directory. Each directory entry points to a segment, a small hash table with open addressing and
// linear probing. A full segment is replaced by a larger one, or by two that divide its keys by the
// next hash bit; if the directory does not use that bit yet, it is copied to twice its size. An
// update therefore costs the same at any size: at worst it moves one segment (8192 words, a hundred
// microseconds) and copies the directory (8 bytes per segment), never the whole table. Growing
// needs no second table beside the first.
//
// All words that readers see are 8-byte atomics. Any number of readers, wait-free: they load words
// and immutable records, and write nothing here. One writer: it replaces a key's record by one
// store. Deleting leaves a tombstone, so that probe sequences of other keys stay unbroken; moving a
// segment removes its tombstones.
//
// Consistency. A key's word never moves within a segment, and a segment is not written once its
// replacement is published. So a look-up returns a record (or none) that was the key's at some
// instant between its beginning and its end. A look-up that begins after an update returned, or
// after another look-up that has seen the update returned, also sees the update.
//
// Memory order. Every word that leads to memory that may be freed (the directory, its entries, the
// record words) is stored and loaded sequentially consistently; quiescence.h argues why reclamation
// needs this. Publication alone needs release and acquire, which sequential consistency includes:
// the bytes behind a pointer are written before the pointer is stored, so a thread that loads the
// pointer sees them complete. The writer uses relaxed loads for words that only it writes.
//
// The map does not own records. KeySetWriter owns them and retires those that the map returns as
// replaced. The map itself retires outgrown segments and directories.
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
  // Computes the hash of each digest, which determines its position. Tests pass hostile functions.
  using Hash = void (*)(std::span<const Digest>, std::uint64_t* hashes);

  // A full segment of `segment_slots` words is split, not doubled. The default is 128 KiB, of which
  // half is in use. Smaller segments need a directory that exceeds the first-level cache (ten
  // million keys: 16 KiB with the default); larger segments take longer to move.
  static constexpr std::size_t kSegmentSlots = 16384;
  explicit KeyMap(Quiescence& quiescence, Hash hash = slot_hashes,
                  std::size_t segment_slots = kSegmentSlots);
  KeyMap(const KeyMap&) = delete;
  KeyMap& operator=(const KeyMap&) = delete;

  // ---- readers, inside a ReadSection

  // Finds the record of each digest, or null. Look-ups are interleaved, so that their cache misses
  // overlap; this pays from two look-ups on. At most kBatchMax per call.
  static constexpr std::size_t kBatchMax = 64;
  void find(std::span<const Digest> digests, std::span<const Record*> found) const;
  [[nodiscard]] const Record* find(const Digest& digest) const;

  // ---- the writer

  // Prepares for about `keys` insertions: the directory gets its final size at once, and a segment
  // gets its size with its first key, which avoids repeated moves. `keys` is an estimate: fewer
  // keys may use the memory of `keys`, more keys make the map grow as usual. Does nothing unless
  // the map is new. The first erase() ends the effect on new segments.
  void reserve(std::size_t keys);
  // Inserts `record` and returns null, unless its digest already has a record: then the map keeps
  // that record and returns it.
  const Record* insert(const Record* record);
  // Replaces the existing record of the same digest; returns the old record for the caller to
  // retire.
  const Record* replace(const Record* record);
  // Returns the removed record, or null.
  const Record* erase(const Digest& digest);
  // Frees outgrown segments and directories that no reader can hold any more.
  void collect();

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t slots() const { return slots_; }
  [[nodiscard]] std::size_t segments() const { return segments_; }
  [[nodiscard]] std::size_t tombstones() const { return tombstones_; }
  // Outgrown segments and directories waiting for readers, and the stamp of the oldest.
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }
  [[nodiscard]] std::size_t retired_bytes() const { return retired_bytes_; }
  [[nodiscard]] std::optional<std::uint64_t> oldest_retired() const;
  [[nodiscard]] const Slab& memory() const { return slab_; }

  // At most half of a segment's words are in use, tombstones included. At five eighths, look-ups
  // took a quarter longer: a third of the keys is then displaced, and each of these costs a branch
  // misprediction.
  static constexpr std::size_t kLoadNumerator = 1;
  static constexpr std::size_t kLoadDenominator = 2;

 private:
  using Word = std::atomic<std::uint64_t>;
  // Address and size of an array of words, packed into one word so that readers load both at once.
  struct Table;
  class Probe;
  // Occupancy of a segment.
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
  std::size_t reserved_slots_ = 0;  // minimum size of a segment that gets its first keys
  Slab slab_;
  Word directory_;  // a Table of Tables
  // Per directory entry; valid only at the first of the entries that point to the same segment.
  std::vector<Usage> usage_;
  std::size_t size_ = 0;
  std::size_t slots_ = 0;
  std::size_t segments_ = 0;
  std::size_t tombstones_ = 0;
  std::deque<Retired> retired_;
  std::size_t retired_bytes_ = 0;
};

}  // namespace latchkey
