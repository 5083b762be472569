#include "keymap/record.h"

#include <algorithm>
#include <cassert>
#include <new>

#include "latchkey/wire.h"
#include "protocol/little_endian.h"

namespace latchkey {
namespace {

std::size_t claim_size(const std::optional<std::string_view>& value) {
  return value ? LATCHKEY_CLAIM_BYTES + value->size() : 0;
}

std::size_t identity_size(const RecordFacts& facts) {
  return claim_size(facts.key_id) + claim_size(facts.subject) + claim_size(facts.tenant);
}

// What an answer adds to the record's own claims: source, expiry and scopes.
std::size_t answer_extra_size(const RecordFacts& facts, std::size_t source_name_size) {
  return LATCHKEY_CLAIM_BYTES + source_name_size + LATCHKEY_CLAIM_BYTES + sizeof(std::int64_t) +
         (facts.scopes != nullptr ? facts.scopes->claim.size() : 0);
}

}  // namespace

bool ScopeSet::holds(std::string_view scope) const {
  return std::binary_search(sorted.begin(), sorted.end(), scope, std::less<>());
}

bool Record::claims_fit(const RecordFacts& facts, std::size_t source_name_size) {
  return identity_size(facts) + answer_extra_size(facts, source_name_size) <=
         LATCHKEY_CLAIMS_BYTES_MAX;
}

bool Record::metadata_fits(const RecordFacts& facts, std::size_t source_name_size) {
  return identity_size(facts) + answer_extra_size(facts, source_name_size) +
             claim_size(facts.metadata) <=
         LATCHKEY_CLAIMS_BYTES_MAX;
}

Record::Record(const RecordFacts& facts)
    : digest_(facts.digest),
      expires_us_(facts.expires_us),
      not_before_us_(facts.not_before_us),
      scopes_(facts.scopes),
      state_(facts.state) {
  if (scopes_ != nullptr) ++scopes_->users;
}

Record::~Record() {
  if (scopes_ != nullptr) --scopes_->users;
}

Record::Owner Record::make(const RecordFacts& facts) {
  const std::size_t claims_length = identity_size(facts);
  const std::size_t metadata_length = claim_size(facts.metadata);
  assert(claims_length + metadata_length <= LATCHKEY_CLAIMS_BYTES_MAX);
  void* memory = ::operator new(sizeof(Record) + claims_length + metadata_length);
  auto* record = new (memory) Record(facts);
  auto* at = reinterpret_cast<std::uint8_t*>(record + 1);
  at = put_claim(at, LATCHKEY_CLAIM_KEY_ID, facts.key_id);
  if (facts.subject) at = put_claim(at, LATCHKEY_CLAIM_SUBJECT, *facts.subject);
  if (facts.tenant) at = put_claim(at, LATCHKEY_CLAIM_TENANT, *facts.tenant);
  if (facts.metadata) at = put_claim(at, LATCHKEY_CLAIM_METADATA, *facts.metadata);
  record->claims_length_ = static_cast<std::uint16_t>(claims_length);
  record->metadata_length_ = static_cast<std::uint16_t>(metadata_length);
  return Owner(record);
}

void Record::Delete::operator()(const Record* record) const {
  record->~Record();
  ::operator delete(const_cast<Record*>(record));
}

std::string_view Record::key_id() const {
  return {reinterpret_cast<const char*>(tail()) + LATCHKEY_CLAIM_BYTES,
          load_le<std::uint16_t>(tail() + 1)};
}

bool Record::same_as(const Record& other) const {
  return digest_ == other.digest_ && state_ == other.state_ && expires_us_ == other.expires_us_ &&
         not_before_us_ == other.not_before_us_ && scopes_ == other.scopes_ &&
         std::ranges::equal(claims(), other.claims()) &&
         std::ranges::equal(metadata(), other.metadata());
}

std::size_t Record::allocated_bytes() const {
  return sizeof(Record) + claims_length_ + metadata_length_;
}

}  // namespace latchkey
