#include "loader/audit.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace latchkey {
namespace {

template <typename T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// A decimal of any length; the result is its lowest 64 bits.
bool read_sum(std::string_view text, std::uint64_t& sum) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  if (text.empty()) return false;
  sum = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    sum = sum * 10 + static_cast<std::uint64_t>(c - '0');
  }
  if (negative) sum = ~sum + 1;
  return true;
}

}  // namespace

void UnusableRows::set(std::string_view id, std::uint64_t hash) {
  erase(id);
  rows_.emplace(id, hash);
  sums_.add(hash);
}

void UnusableRows::erase(std::string_view id) {
  if (rows_.empty()) return;  // nearly always
  const auto found = rows_.find(std::string(id));
  if (found == rows_.end()) return;
  sums_.remove(found->second);
  rows_.erase(found);
}

void UnusableRows::finish_load() {
  rows_.swap(staged_);
  staged_.clear();
  sums_ = RowSums();
  for (const auto& [id, hash] : rows_) sums_.add(hash);
}

std::uint64_t UnusableRows::hash_of(std::string_view id) const {
  if (rows_.empty()) return 0;
  const auto found = rows_.find(std::string(id));
  return found == rows_.end() ? 0 : found->second;
}

// ---- the comparison

void Audit::told_of(std::string_view id) {
  if (told_.size() >= kToldMax || told_bytes_ + id.size() > kToldBytesMax) {
    told_too_much_ = true;
  } else if (told_.emplace(id).second) {
    told_bytes_ += id.size();
  }
}

bool Audit::add_bucket(std::string_view bucket, std::string_view rows, std::string_view sum) {
  std::size_t index = 0;
  if (!read_number(bucket, index) || index >= RowSums::kBuckets) return false;
  return read_number(rows, theirs_[index].rows) && read_sum(sum, theirs_[index].sum);
}

Audit::Result Audit::compare(const KeySetWriter& writer, const UnusableRows& unusable) {
  if (spoiled_) return Result::kUnsure;
  if (second_look_) return compare_rows(writer, unusable);
  std::uint64_t rows = 0;
  for (std::size_t i = 0; i < RowSums::kBuckets; ++i) {
    const RowSums::Bucket ours{writer.sums()[i].rows + unusable.sums()[i].rows,
                               writer.sums()[i].sum + unusable.sums()[i].sum};
    if (ours == theirs_[i]) continue;
    buckets_.push_back(static_cast<std::uint32_t>(i));
    rows += theirs_[i].rows;
    differing_ += std::max<std::uint64_t>(
        1, std::max(ours.rows, theirs_[i].rows) - std::min(ours.rows, theirs_[i].rows));
  }
  if (buckets_.empty()) return Result::kAgrees;
  if (rows <= kRowsMax) return Result::kLookCloser;
  return told_.empty() && !told_too_much_ ? Result::kDiffers : Result::kUnsure;
}

void Audit::begin_second_look() {
  second_look_ = true;
  differing_ = 0;
  told_.clear();
  told_bytes_ = 0;
  told_too_much_ = false;
  rows_.clear();
}

Audit::Result Audit::compare_rows(const KeySetWriter& writer, const UnusableRows& unusable) {
  if (told_too_much_) return Result::kUnsure;
  std::vector<std::uint64_t> found(RowSums::kBuckets);  // rows that both sides have
  for (const auto& [id, hash] : rows_) {
    const Record* record = writer.find(id);
    const std::uint64_t ours = record != nullptr ? record->row_hash() : unusable.hash_of(id);
    if (ours == hash) {
      ++found[RowSums::bucket_of(hash)];
    } else {
      differs(id);
    }
  }
  // Rows of the map that the table lacks. The walk through all rows is worthwhile only if the
  // counts show that there is one.
  const bool more_here = std::ranges::any_of(buckets_, [&](std::uint32_t bucket) {
    return writer.sums()[bucket].rows + unusable.sums()[bucket].rows > found[bucket];
  });
  if (more_here) {
    std::vector<bool> looked_at(RowSums::kBuckets);
    for (const std::uint32_t bucket : buckets_) looked_at[bucket] = true;
    const auto look = [&](std::string_view id, std::uint64_t hash) {
      if (looked_at[RowSums::bucket_of(hash)] && !rows_.contains(std::string(id))) differs(id);
    };
    writer.for_each([&](const Record* record) { look(record->key_id(), record->row_hash()); });
    for (const auto& [id, hash] : unusable.rows()) look(id, hash);
  }
  return differing_ == 0 ? Result::kAgrees : Result::kDiffers;
}

void Audit::differs(std::string_view id) {
  const std::string text(id);
  if (told_.contains(text)) return;
  ++differing_;
  if (named_.size() < kNamedMax) named_.push_back(text);
}

}  // namespace latchkey
