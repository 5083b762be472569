#include "keymap/record.h"

#include <algorithm>
#include <cassert>
#include <new>

#include "base/bytes.h"
#include "latchkey/wire.h"

namespace latchkey {
namespace {

std::size_t claim_size(const std::optional<std::string_view>& value) {
  return value ? LATCHKEY_CLAIM_BYTES + value->size() : 0;
}

std::size_t identity_size(const RecordFacts& facts) {
  return claim_size(facts.key_id) + claim_size(facts.subject) + claim_size(facts.tenant);
}

// Size of the claims that an answer adds to the row's own: source, expiry and scopes.
std::size_t answer_extra_size(const RecordFacts& facts, std::size_t source_name_size) {
  return LATCHKEY_CLAIM_BYTES + source_name_size + LATCHKEY_CLAIM_BYTES + sizeof(std::int64_t) +
         (facts.scopes != nullptr ? facts.scopes->claim.size() : 0);
}

std::string_view value_of(Bytes claim) {
  return {reinterpret_cast<const char*>(claim.data()) + LATCHKEY_CLAIM_BYTES,
          load_le<std::uint16_t>(claim.data() + 1)};
}

// True if `claim` (empty: none) is the encoding of `value`.
bool carries(Bytes claim, const std::optional<std::string_view>& value) {
  return value ? !claim.empty() && value_of(claim) == *value : claim.empty();
}

}  // namespace

bool ScopeSet::holds(std::string_view scope) const {
  return std::binary_search(sorted.begin(), sorted.end(), scope, std::less<>());
}

const SharedClaim* SharedClaim::make(Slab& slab, latchkey_claim tag, std::string_view value) {
  void* memory = slab.allocate(sizeof(SharedClaim) + LATCHKEY_CLAIM_BYTES + value.size());
  auto* claim = new (memory) SharedClaim(value.size());
  put_claim(reinterpret_cast<std::uint8_t*>(claim + 1), tag, value);
  return claim;
}

void SharedClaim::destroy(Slab& slab, const SharedClaim* claim) {
  slab.free(const_cast<SharedClaim*>(claim), sizeof(SharedClaim) + claim->encoded().size());
}

bool RecordFacts::claims_fit(std::size_t source_name_size) const {
  return identity_size(*this) + answer_extra_size(*this, source_name_size) <=
         LATCHKEY_CLAIMS_BYTES_MAX;
}

bool RecordFacts::metadata_fits(std::size_t source_name_size) const {
  return identity_size(*this) + answer_extra_size(*this, source_name_size) + claim_size(metadata) <=
         LATCHKEY_CLAIMS_BYTES_MAX;
}

Record::Record(const RecordFacts& facts, const SharedClaim* tenant)
    : digest_(facts.digest),
      expires_us_(facts.expires_us),
      scopes_(facts.scopes),
      tenant_(tenant),
      claims_length_(
          static_cast<std::uint16_t>(claim_size(facts.key_id) + claim_size(facts.subject))),
      state_(facts.state) {
  if (scopes_ != nullptr) ++scopes_->users;
  if (tenant_ != nullptr) ++tenant_->users;
  if (facts.metadata) extras_ |= kHasMetadata;
  if (facts.stands_for) extras_ |= kStandsFor;
  if (facts.not_before_us != kAlwaysValid) extras_ |= kHasNotBefore;
  if (facts.row_hash != 0) extras_ |= kHasRowHash;
}

const Record* Record::make(Slab& slab, const RecordFacts& facts, const SharedClaim* tenant) {
  assert(identity_size(facts) + claim_size(facts.metadata) <= LATCHKEY_CLAIMS_BYTES_MAX);
  assert(facts.tenant.has_value() == (tenant != nullptr));
  assert(!facts.metadata || !facts.stands_for);
  const std::optional<std::string_view>& extra =
      facts.stands_for ? facts.stands_for : facts.metadata;
  const bool has_not_before = facts.not_before_us != kAlwaysValid;
  void* memory =
      slab.allocate(sizeof(Record) + claim_size(facts.key_id) + claim_size(facts.subject) +
                    claim_size(extra) + (has_not_before ? sizeof(std::int64_t) : 0) +
                    (facts.row_hash != 0 ? sizeof(std::uint64_t) : 0));
  auto* record = new (memory) Record(facts, tenant);
  auto* at = reinterpret_cast<std::uint8_t*>(record + 1);
  at = put_claim(at, LATCHKEY_CLAIM_KEY_ID, facts.key_id);
  if (facts.subject) at = put_claim(at, LATCHKEY_CLAIM_SUBJECT, *facts.subject);
  if (extra) at = put_claim(at, LATCHKEY_CLAIM_METADATA, *extra);
  if (has_not_before) {
    store_le(at, facts.not_before_us);
    at += sizeof(std::int64_t);
  }
  if (facts.row_hash != 0) store_le(at, facts.row_hash);
  return record;
}

void Record::destroy(Slab& slab, const Record* record) {
  if (record->scopes_ != nullptr) --record->scopes_->users;
  if (record->tenant_ != nullptr) --record->tenant_->users;
  const std::size_t bytes = record->allocated_bytes();
  record->~Record();
  slab.free(const_cast<Record*>(record), bytes);
}

Bytes Record::extra() const {
  if ((extras_ & (kHasMetadata | kStandsFor)) == 0) return {};
  const std::uint8_t* claim = tail() + claims_length_;
  return {claim, LATCHKEY_CLAIM_BYTES + std::size_t{load_le<std::uint16_t>(claim + 1)}};
}

Bytes Record::metadata() const { return (extras_ & kHasMetadata) != 0 ? extra() : Bytes(); }

std::optional<std::string_view> Record::stands_for() const {
  if ((extras_ & kStandsFor) == 0) return std::nullopt;
  return value_of(extra());
}

std::int64_t Record::stored_not_before() const {
  return load_le<std::int64_t>(tail() + claims_length_ + extra().size());
}

std::uint64_t Record::stored_row_hash() const {
  const std::size_t behind = (extras_ & kHasNotBefore) != 0 ? sizeof(std::int64_t) : 0;
  return load_le<std::uint64_t>(tail() + claims_length_ + extra().size() + behind);
}

std::string_view Record::key_id() const { return value_of(claims()); }

bool Record::says(const RecordFacts& facts) const {
  const std::string_view id = key_id();
  const Bytes subject = claims().subspan(LATCHKEY_CLAIM_BYTES + id.size());
  return row_hash() == facts.row_hash && digest_ == facts.digest && state_ == facts.state &&
         expires_us_ == facts.expires_us && not_before_us() == facts.not_before_us &&
         scopes_ == facts.scopes && id == facts.key_id && carries(subject, facts.subject) &&
         carries(metadata(), facts.metadata) &&
         carries(tenant_ != nullptr ? tenant_->encoded() : Bytes(), facts.tenant);
}

std::size_t Record::allocated_bytes() const {
  return sizeof(Record) + claims_length_ + extra().size() +
         ((extras_ & kHasNotBefore) != 0 ? sizeof(std::int64_t) : 0) +
         ((extras_ & kHasRowHash) != 0 ? sizeof(std::uint64_t) : 0);
}

}  // namespace latchkey
