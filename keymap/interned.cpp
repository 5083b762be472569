#include "keymap/interned.h"

#include <algorithm>

namespace latchkey {

const ScopeSet* ScopeSets::find(std::string_view text) const {
  const auto found = spellings_.find(text);
  return found == spellings_.end() ? nullptr : found->second;
}

const ScopeSet* ScopeSets::intern(const std::vector<std::string>& names) {
  std::string joined;
  for (const std::string& name : names) {
    if (!joined.empty()) joined += ' ';
    joined += name;
  }
  auto found = sets_.find(joined);
  if (found == sets_.end()) {
    auto set = std::make_unique<ScopeSet>();
    set->sorted = names;
    std::ranges::sort(set->sorted);
    set->claim.resize(LATCHKEY_CLAIM_BYTES + joined.size());
    put_claim(set->claim.data(), LATCHKEY_CLAIM_SCOPE, joined);
    found = sets_.emplace(std::move(joined), std::move(set)).first;
  }
  return found->second.get();
}

void ScopeSets::remember(std::string_view text, const ScopeSet* set) {
  spellings_[std::string(text)] = set;
}

void ScopeSets::sweep() {
  if (std::max(sets_.size(), spellings_.size()) <= sweep_at_) return;
  spellings_.clear();
  for (auto it = sets_.begin(); it != sets_.end();) {
    it = it->second->users == 0 ? sets_.erase(it) : std::next(it);
  }
  sweep_at_ = std::max(kSweepMin, 2 * sets_.size());
}

const SharedClaim* Tenants::intern(std::string_view tenant) {
  if (const SharedClaim* known = tenants_.find(tenant)) return known;
  const SharedClaim* claim = SharedClaim::make(slab_, LATCHKEY_CLAIM_TENANT, tenant);
  tenants_.insert(claim);
  return claim;
}

void Tenants::released(const SharedClaim* tenant) {
  if (tenant->users > 0) return;
  tenants_.erase(tenant);
  SharedClaim::destroy(slab_, tenant);
}

}  // namespace latchkey
