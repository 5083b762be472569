// All keys of one source: the map that workers read, and the writer that keeps it.
//
// KeySet is the shared half: map and freshness. KeySetWriter is the loader's private half: it owns
// the records and the index from row id to record, and decides which row speaks for a digest that
// several rows hold.
#pragma once

#include <tsl/robin_map.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "keymap/freshness.h"
#include "keymap/interned.h"
#include "keymap/key_map.h"
#include "keymap/row_sums.h"
#include "keymap/sharded_set.h"
#include "keymap/use_log.h"

namespace latchkey {

struct KeySet {
  KeySet(std::string source_name, Quiescence& quiescence);

  const std::string name;
  const std::vector<std::uint8_t> name_claim;  // encoded, as every answer of this source carries it
  KeyMap map;
  FreshnessStamp freshness;
  std::unique_ptr<UseLog> uses;  // null: nobody wants to know when keys were used
};

// What a source takes in memory, in bytes.
struct KeySetMemory {
  std::size_t records = 0;  // with their claims, tenants, and what is kept for the next ones
  std::size_t map = 0;      // likewise
  std::size_t index = 0;
  std::size_t waiting = 0;          // of these: outdated, but a reader may still hold it
  std::size_t waiting_records = 0;  // how many records are among it
};

class KeySetWriter {
 public:
  KeySetWriter(KeySet& keys, Quiescence& quiescence);
  // Records go with the writer: no reader may be left.
  ~KeySetWriter() = default;
  KeySetWriter(const KeySetWriter&) = delete;
  KeySetWriter& operator=(const KeySetWriter&) = delete;

  // Where the facts of a row get their scopes from.
  [[nodiscard]] ScopeSets& scopes() { return scopes_; }

  // Whatever changes what readers see is noexcept: half a change could leave a revoked row without
  // a say for good, so want of memory ends the process, which will load everything anew.

  // ---- one changed row

  void upsert(const RecordFacts& facts) noexcept;
  void remove(std::string_view key_id) noexcept;

  // ---- several changed rows that belong together: change_set.h

  // While it lives, a key that several rows hold, or held, is refused: the row that refused it may
  // be gone before the others are known. (A key that comes in with two good rows is accepted
  // between the first and the second.) A ChangeSet opens one when it is applied.
  class Batch {
   public:
    explicit Batch(KeySetWriter& writer);
    ~Batch();
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

   private:
    KeySetWriter& writer_;
  };

  // Frees what no reader can hold any more. Cheap when there is nothing; call it regularly.
  void collect();

  // The row behind each digest; null where there is none, or where several hold it and nobody can
  // say which of them was meant. At most KeyMap::kBatchMax. Rows live until the next change: the
  // writer alone frees, so that on its own thread it needs no ReadSection.
  void rows_of(std::span<const Digest> digests, std::span<const Record*> rows) const;

  [[nodiscard]] std::size_t rows() const { return index_.size(); }
  // All rows, in parts of some thousand, for walks that are interrupted by changes (see
  // ShardedSet).
  [[nodiscard]] std::size_t row_parts() const { return index_.parts(); }
  template <typename Visit>
  void for_each_row_of_part(std::size_t part, Visit visit) const {
    index_.for_each_of_part(part, visit);
  }
  [[nodiscard]] std::size_t ambiguous_digests() const { return shared_.size(); }
  // Records that wait for readers, and the stamp of whatever has waited longest.
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }
  [[nodiscard]] std::optional<std::uint64_t> oldest_retired() const;
  [[nodiscard]] std::size_t tenants() const { return tenants_.size(); }
  [[nodiscard]] KeySetMemory memory() const;
  // Of all rows here, as their facts gave them.
  [[nodiscard]] const RowSums& sums() const { return sums_; }
  // Null: there is no such row. Lives until the next change.
  [[nodiscard]] const Record* find(std::string_view key_id) const { return index_.find(key_id); }
  // Many at once, as many results; of those that are in no cache, in a fraction of the time.
  void find(std::span<const std::string_view> key_ids, std::span<const Record*> found) const {
    index_.find(key_ids, found);
  }
  template <typename F>
  void for_each(F&& each) const {
    index_.for_each(each);
  }

 private:
  struct IdHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key_id) const { return text_hash(key_id); }
    std::size_t operator()(const Record* record) const { return (*this)(record->key_id()); }
  };
  struct IdEqual {
    using is_transparent = void;
    static std::string_view id(std::string_view key_id) { return key_id; }
    static std::string_view id(const Record* record) { return record->key_id(); }
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      return id(a) == id(b);
    }
  };
  struct DigestHash {
    std::size_t operator()(const Digest& digest) const { return slot_hash(digest); }
  };
  // Rows that hold the same digest, and the refusal made up to speak where none of them may.
  struct Shared {
    std::vector<const Record*> rows;
    const Record* refusal = nullptr;
  };
  struct Retired {
    std::uint64_t stamp;
    const Record* record;
  };

  friend class ChangeSet;

  [[nodiscard]] std::uint8_t next_load_mark();
  [[nodiscard]] const Record* make(const RecordFacts& facts);
  void destroy(const Record* record);
  bool install(const Record* fresh) noexcept;
  void remove(const Record* record) noexcept;
  void link(const Record* record) noexcept;
  void unlink(const Record* record) noexcept;
  void supersede(const Record* old, const Record* fresh) noexcept;
  void publish(Shared& shared, const Record& changed) noexcept;
  void settle() noexcept;
  void warm_up(std::span<const Record* const> records) const;
  void retire(const Record* record);

  KeySet& keys_;
  Quiescence& quiescence_;
  Slab slab_;
  ScopeSets scopes_;
  Tenants tenants_{slab_};
  ShardedSet<Record, IdHash, IdEqual> index_;
  tsl::robin_map<Digest, Shared, DigestHash> shared_;
  RowSums sums_;
  bool in_batch_ = false;
  // Digests of shared_ that a batch has left with fewer than two rows.
  std::vector<Digest> unsettled_;
  std::deque<Retired> retired_;
  std::size_t retired_bytes_ = 0;
  std::uint8_t load_mark_ = 0;  // of the last whole table that was begun; 0: of none
};

}  // namespace latchkey
