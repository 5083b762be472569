// Shared helpers: printed seeds, heap blocks without slack, rows, claims.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <string_view>

#include "keymap/record.h"
#include "protocol/codec.h"

namespace latchkey::test {

// One seed per process, a new one in each run. It is printed, so that LATCHKEY_SEED can reproduce
// a failure.
inline std::uint64_t seed() {
  static const std::uint64_t value = [] {
    const char* given = std::getenv("LATCHKEY_SEED");
    const std::uint64_t chosen =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("LATCHKEY_SEED=%llu\n", static_cast<unsigned long long>(chosen));
    std::fflush(stdout);
    return chosen;
  }();
  return value;
}

class Random {
 public:
  explicit Random(std::uint64_t stream = 0) : engine_(seed() + stream) {}
  // 0 .. bound-1
  std::size_t below(std::size_t bound) { return engine_() % bound; }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// A copy in a heap block of exactly its size: AddressSanitizer detects a read one byte past its
// end.
class Exact {
 public:
  explicit Exact(Bytes bytes) : size_(bytes.size()), block_(new std::uint8_t[bytes.size()]) {
    if (size_ > 0) std::memcpy(block_.get(), bytes.data(), size_);
  }
  [[nodiscard]] Bytes bytes() const { return {block_.get(), size_}; }
  // The part of a whole frame after its header.
  [[nodiscard]] Bytes body() const { return bytes().subspan(LATCHKEY_HEADER_BYTES); }

 private:
  std::size_t size_;
  std::unique_ptr<std::uint8_t[]> block_;
};

// A row with only an id, a key and a state. Its fields are views of the arguments.
inline RecordFacts row(std::string_view id, std::string_view key,
                       RowState state = RowState::kActive) {
  RecordFacts facts;
  facts.key_id = id;
  facts.digest = sha256(key);
  facts.state = state;
  return facts;
}

// Records without a writer; they live as long as this object.
class Records {
 public:
  const Record* make(const RecordFacts& facts) {
    return Record::make(
        slab_, facts,
        facts.tenant ? SharedClaim::make(slab_, LATCHKEY_CLAIM_TENANT, *facts.tenant) : nullptr);
  }
  void destroy(const Record* record) { Record::destroy(slab_, record); }

 private:
  Slab slab_;
};

// The value of an encoded claim; "(none)" if it is absent.
inline std::string claim_of(Bytes claims, latchkey_claim tag) {
  while (!claims.empty()) {
    const std::size_t length = load_le<std::uint16_t>(claims.data() + 1);
    if (claims[0] == tag) return std::string(as_text(claims.subspan(LATCHKEY_CLAIM_BYTES, length)));
    claims = claims.subspan(LATCHKEY_CLAIM_BYTES + length);
  }
  return "(none)";
}

// A claim of the record's identity; metadata are stored apart.
inline std::string claim_of(const Record& record, latchkey_claim tag) {
  if (tag != LATCHKEY_CLAIM_TENANT) return claim_of(record.claims(), tag);
  return record.tenant() != nullptr ? claim_of(record.tenant()->encoded(), tag) : "(none)";
}

}  // namespace latchkey::test
