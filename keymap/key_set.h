// All keys of one source: the map that workers read, and the writer that maintains it.
//
// KeySet is the shared half: map and freshness. KeySetWriter is the loader's private half: it owns
// the records and the index from row id to record, and selects the deciding row of a digest that
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
  const std::vector<std::uint8_t> name_claim;  // the encoded claim in every answer of this source
  KeyMap map;
  FreshnessStamp freshness;
  std::unique_ptr<UseLog> uses;  // null: uses of keys are not recorded
};

// The memory of a source, in bytes.
struct KeySetMemory {
  std::size_t records = 0;  // with claims, tenants, and free memory kept for later records
  std::size_t map = 0;      // with free memory kept for later segments
  std::size_t index = 0;
  std::size_t waiting = 0;  // the part of the above that is outdated, but may be held by a reader
  std::size_t waiting_records = 0;  // the number of records in `waiting`
};

class KeySetWriter {
 public:
  KeySetWriter(KeySet& keys, Quiescence& quiescence);
  // Destroys all records, so no reader may be left.
  ~KeySetWriter() = default;
  KeySetWriter(const KeySetWriter&) = delete;
  KeySetWriter& operator=(const KeySetWriter&) = delete;

  // The source of the scope sets in RecordFacts.
  [[nodiscard]] ScopeSets& scopes() { return scopes_; }

  // Every function that changes the readers' view is noexcept. Half a change could leave a revoked
  // row without effect for ever, so lack of memory ends the process, and the next start loads
  // everything anew.

  // ---- one changed row

  void upsert(const RecordFacts& facts) noexcept;
  void remove(std::string_view key_id) noexcept;

  // ---- several changed rows that belong together: change_set.h

  // While a Batch exists, a key that several rows hold, or held, is refused, because the row that
  // refused it may be removed before the other rows are known. (A key that arrives with two active
  // rows is accepted between the first and the second.) ChangeSet::apply() opens a Batch.
  class Batch {
   public:
    explicit Batch(KeySetWriter& writer);
    ~Batch();
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;

   private:
    KeySetWriter& writer_;
  };

  // Frees the records that no reader can hold any more. Cheap if there are none; call it regularly.
  void collect();

  // The row of each digest; null if there is none, or if several rows hold the digest and it is
  // ambiguous which one is meant. At most KeyMap::kBatchMax digests. Rows live until the next
  // change: only the writer frees rows, so on its own thread it needs no ReadSection.
  void rows_of(std::span<const Digest> digests, std::span<const Record*> rows) const;

  [[nodiscard]] std::size_t rows() const { return index_.size(); }
  // All rows, in parts of some thousand, for walks between whose parts the set may change (see
  // ShardedSet).
  [[nodiscard]] std::size_t row_parts() const { return index_.parts(); }
  template <typename Visit>
  void for_each_row_of_part(std::size_t part, Visit visit) const {
    index_.for_each_of_part(part, visit);
  }
  [[nodiscard]] std::size_t ambiguous_digests() const { return shared_.size(); }
  // The number of records that wait for readers, and the oldest stamp of waiting records and map
  // memory.
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }
  [[nodiscard]] std::optional<std::uint64_t> oldest_retired() const;
  [[nodiscard]] std::size_t tenants() const { return tenants_.size(); }
  [[nodiscard]] KeySetMemory memory() const;
  // The sums over all rows, from their facts.
  [[nodiscard]] const RowSums& sums() const { return sums_; }
  // The row with this id, or null. It lives until the next change.
  [[nodiscard]] const Record* find(std::string_view key_id) const { return index_.find(key_id); }
  // Finds several rows at once, one result per id. For rows that are not in the processor's cache
  // this takes a fraction of the time of single calls.
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
  // Rows that hold the same digest, and the refusing record that stands for them if none of them
  // may decide.
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
  // Digests of shared_ that have fewer than two rows left; the end of the batch settles them.
  std::vector<Digest> unsettled_;
  std::deque<Retired> retired_;
  std::size_t retired_bytes_ = 0;
  std::uint8_t load_mark_ = 0;  // the mark of the latest begun load of a whole table; 0: none
};

}  // namespace latchkey
