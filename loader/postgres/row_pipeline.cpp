#include "loader/postgres/row_pipeline.h"

#include <utility>

#include "loader/postgres/queries.h"

namespace latchkey {

RowPipeline::RowPipeline(const SourceConfig& source, const TableFacts& facts, KeySetWriter& writer,
                         std::unordered_set<std::string> pepper_versions)
    : decoder_(wire_fields(source, facts), facts.encoding),
      reader_(source, facts, writer.scopes(), std::move(pepper_versions)),
      writer_(writer) {}

std::vector<std::uint32_t> RowPipeline::types() const {
  std::vector<std::uint32_t> types;
  for (const WireField& field : decoder_.fields()) types.push_back(field.type);
  return types;
}

void RowPipeline::add(const CopyReader::Fields& fields) {
  if (batch_.size() == count_) batch_.emplace_back();
  batch_[count_++].fields = fields;
}

void RowPipeline::prepare() {
  wire_.clear();
  key_ids_.clear();
  for (Waiting& row : std::span(batch_).first(count_)) {
    wire_.emplace_back(row.fields);
    decoder_.decode(row.fields, row.texts, row.view);
    key_ids_.push_back(row.view[kFieldId].value_or(""));
  }
  hashes_.resize(count_);
  hasher_(decoder_.fields(), wire_, hashes_);
  known_.resize(count_);
  writer_.find(key_ids_, known_);
  for (const Record* record : known_) {
    if (record != nullptr) record->prefetch_rest();
  }
}

RowPipeline::Row RowPipeline::read(std::size_t index) {
  const RowView& view = batch_[index].view;
  Row row{.meaning = reader_.read(view),
          .hash = hashes_[index],
          .known = known_[index],
          .id = key_ids_[index],
          .has_key = view[kFieldId] && view[kFieldKey]};
  // A record with a made-up id does not represent the row: audits find the row among the unusable
  // ones.
  auto& facts = row.meaning.facts;
  if (facts && !facts->id_is_made_up) facts->row_hash = row.hash;
  return row;
}

}  // namespace latchkey
