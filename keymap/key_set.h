// All keys of one source: the map that workers read, and the writer that keeps it.
//
// KeySet is the shared half: map and freshness. KeySetWriter is the loader's private half: it owns
// the records and the index from row id to record, interns scope sets, and decides which row speaks
// for a digest that several rows hold.
#pragma once

#include <tsl/robin_map.h>
#include <tsl/robin_set.h>

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "keymap/freshness.h"
#include "keymap/key_map.h"

namespace latchkey {

struct KeySet {
  KeySet(std::string source_name, Quiescence& quiescence);

  const std::string name;
  const std::vector<std::uint8_t> name_claim;  // encoded, as every answer of this source carries it
  KeyMap map;
  FreshnessStamp freshness;
};

// What one load did.
struct LoadReport {
  std::size_t rows = 0;     // that the table holds
  std::size_t added = 0;    // not known before
  std::size_t changed = 0;  // known, but said something else
  std::size_t removed = 0;  // known, and no longer there
};

class KeySetWriter {
 public:
  KeySetWriter(KeySet& keys, Quiescence& quiescence);
  // No reader may be left.
  ~KeySetWriter();
  KeySetWriter(const KeySetWriter&) = delete;
  KeySetWriter& operator=(const KeySetWriter&) = delete;

  // Scopes as one shared set. `text` is how the row spells them: rows spell few sets in few ways,
  // so parsing is needed only where find_scopes() returns null. The order of `names` is kept for
  // the answer. A set that no record holds lives until the next collect().
  [[nodiscard]] const ScopeSet* find_scopes(std::string_view text) const;
  [[nodiscard]] const ScopeSet* intern_scopes(std::string_view text,
                                              const std::vector<std::string>& names);

  // ---- one changed row

  void upsert(Record::Owner record);
  void remove(std::string_view key_id);

  // ---- the whole table: complete or invisible

  // Rows are compared with what is known; only differences take memory, and nothing becomes visible
  // before finish_load(). A load that fails is abandoned and leaves no trace.
  void begin_load();
  void load(Record::Owner record);
  LoadReport finish_load();
  void abandon_load();

  // Frees what no reader can hold any more. Cheap when there is nothing; call it regularly.
  void collect();

  [[nodiscard]] std::size_t rows() const { return index_.size(); }
  [[nodiscard]] std::size_t ambiguous_digests() const { return shared_.size(); }
  [[nodiscard]] std::size_t retired() const { return retired_.size(); }
  [[nodiscard]] std::size_t scope_sets() const { return scopes_.size(); }

 private:
  struct IdHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view key_id) const;
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
  // Rows that hold the same digest, and the record that speaks for all of them: one of theirs, or
  // (where all are active) a refusal made up for the purpose, which `refusal` owns.
  struct Shared {
    std::vector<const Record*> rows;
    Record::Owner refusal;
  };
  struct Retired {
    std::uint64_t stamp;
    Record::Owner record;
  };

  void link(const Record* record);
  void unlink(const Record* record);
  void supersede(const Record* old, const Record* fresh);
  void publish(Shared& shared);
  void retire(Record::Owner record);
  void sweep_scopes();

  KeySet& keys_;
  Quiescence& quiescence_;
  // Buckets of 16 bytes (record, hash, distance); the id is read from the record, so it takes no
  // memory of its own.
  tsl::robin_set<const Record*, IdHash, IdEqual, std::allocator<const Record*>, true> index_;
  tsl::robin_map<Digest, Shared, DigestHash> shared_;
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const;
  };
  tsl::robin_map<std::string, std::unique_ptr<ScopeSet>> scopes_;
  tsl::robin_map<std::string, const ScopeSet*, TextHash, std::equal_to<>> scope_spellings_;
  std::size_t scopes_sweep_at_ = 1024;
  std::deque<Retired> retired_;
  std::vector<Record::Owner> staged_;
  std::size_t staged_rows_ = 0;
  std::uint32_t load_mark_ = 0;
};

}  // namespace latchkey
