// Turns rows in wire form into RowMeaning, for both loads and re-reads. It processes many rows at a
// time, so that their hashes are computed in pairs and their look-ups wait for memory together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "config/source.h"
#include "keymap/key_set.h"
#include "loader/postgres/catalogue.h"
#include "loader/postgres/connection.h"
#include "loader/postgres/row.h"
#include "loader/postgres/row_hasher.h"
#include "loader/row_meaning.h"

namespace latchkey {

class RowPipeline {
 public:
  // `source` and `writer` must outlive this; `facts` describe the table as its rows will be read.
  RowPipeline(const SourceConfig& source, const TableFacts& facts, KeySetWriter& writer,
              std::unordered_set<std::string> pepper_versions);

  [[nodiscard]] std::size_t fields() const { return decoder_.fields().size(); }
  // The fields' types (pg_type.dat), in order.
  [[nodiscard]] std::vector<std::uint32_t> types() const;

  struct Row {
    RowMeaning meaning;             // with its hash
    std::uint64_t hash = 0;         // see RowHasher
    const Record* known = nullptr;  // the map's record for its id
    std::string_view id;            // empty: NULL
    bool has_key = false;
  };

  // Adds a row. Its views must live until run().
  void add(const CopyReader::Fields& fields);
  [[nodiscard]] std::size_t rows() const { return count_; }
  // Calls each(Row&) for every added row, in order, and drops them. Throws std::runtime_error for a
  // row that cannot be decoded (see RowDecoder).
  template <typename Each>
  void run(const Each& each) {
    prepare();
    for (std::size_t i = 0; i < count_; ++i) {
      Row row = read(i);
      each(row);
    }
    count_ = 0;
  }

 private:
  struct Waiting {
    CopyReader::Fields fields;
    RowDecoder::Texts texts{};
    RowView view{};
  };
  void prepare();
  [[nodiscard]] Row read(std::size_t index);

  RowDecoder decoder_;
  RowReader reader_;
  KeySetWriter& writer_;
  RowHasher hasher_;
  std::vector<Waiting> batch_;  // the first count_ entries
  std::size_t count_ = 0;
  std::vector<WireRow> wire_;
  std::vector<std::string_view> key_ids_;
  std::vector<const Record*> known_;
  std::vector<std::uint64_t> hashes_;
};

}  // namespace latchkey
