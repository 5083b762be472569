// Digests computed in pairs, against OpenSSL and against single ones. digest_test.cpp has the
// published vectors.
#include "keys/sha256_pair.h"

#include <gtest/gtest.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <deque>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "keys/digest.h"
#include "tests/unit/support/helpers.h"

namespace latchkey {
namespace {

using test::Random;

constexpr std::size_t kSizeMax = 130;  // of a batch: more than two of its parts

std::string random_text(Random& random, std::size_t length) {
  std::string text(length, '\0');
  for (char& byte : text) byte = static_cast<char>(random.below(256));
  return text;
}

// Texts of random bytes, each in a block of exactly its size.
class Batch {
 public:
  void add(std::string_view text) {
    blocks_.emplace_back(test::as_bytes(text));
    texts_.push_back(as_text(blocks_.back().bytes()));
  }
  Batch() = default;
  Batch(Random& random, std::size_t size, std::size_t length_max) {
    for (std::size_t i = 0; i < size; ++i) {
      add(random_text(random, random.below(length_max + 1)));
    }
  }
  [[nodiscard]] const std::vector<std::string_view>& texts() const { return texts_; }

 private:
  std::deque<test::Exact> blocks_;
  std::vector<std::string_view> texts_;
};

Digest openssl_sha256(std::string_view text) {
  Digest digest;
  SHA256(test::as_bytes(text).data(), text.size(), digest.bytes.data());
  return digest;
}

Digest openssl_hmac(const std::string& secret, std::string_view text) {
  Digest digest;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()), test::as_bytes(text).data(),
       text.size(), digest.bytes.data(), nullptr);
  return digest;
}

void expect_openssl_sha256(const Batch& batch) {
  const auto& texts = batch.texts();
  std::vector<Digest> digests(texts.size());
  sha256(texts, digests);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(digests[i], openssl_sha256(texts[i]))
        << "text " << i << " of " << texts.size() << ", " << texts[i].size() << " bytes";
  }
}

TEST(Sha256Batch, AgreesWithOpenSslForEachLengthBesideAnyOther) {
  Random random;
  std::vector<std::size_t> lengths(401);
  std::iota(lengths.begin(), lengths.end(), std::size_t{0});
  for (int round = 0; round < 10; ++round) {
    for (std::size_t i = lengths.size(); i-- > 1;) {
      std::swap(lengths[i], lengths[random.below(i + 1)]);
    }
    Batch batch;
    for (const std::size_t length : lengths) batch.add(random_text(random, length));
    ASSERT_NO_FATAL_FAILURE(expect_openssl_sha256(batch));
  }
}

TEST(Sha256Batch, AgreesWithOpenSslForEachSizeOfABatch) {
  Random random;
  for (std::size_t size = 0; size <= kSizeMax; ++size) {
    ASSERT_NO_FATAL_FAILURE(expect_openssl_sha256(Batch(random, size, 400)));
  }
}

TEST(Sha256Batch, LetsShortTextsPassALongOne) {
  const std::string long_text(1'000'000, 'a');  // FIPS 180-4's longest example
  for (std::size_t at = 0; at < 5; ++at) {
    Batch batch;
    for (std::size_t i = 0; i < 5; ++i) batch.add(i == at ? long_text : std::string(i, 'b'));
    ASSERT_NO_FATAL_FAILURE(expect_openssl_sha256(batch));
  }
}

// ---- pairs and one by one

using Finish = void (*)(const Sha256State&, std::uint64_t, std::span<const std::string_view>,
                        std::span<Sha256State>);

class Sha256Ways : public testing::TestWithParam<Finish> {
 protected:
  void SetUp() override {
    if (GetParam() == sha256_finish_in_pairs && !sha256_pairs()) {
      GTEST_SKIP() << "this processor has no SHA instructions";
    }
  }
  // The digest by OpenSSL of the text that led to `state`, followed by this text.
  static Digest expected(const Sha256State& state, std::uint64_t before, std::string_view text) {
    SHA256_CTX context;
    SHA256_Init(&context);
    std::ranges::copy(state, context.h);
    context.Nl = static_cast<SHA_LONG>(before * 8);
    context.Nh = static_cast<SHA_LONG>(before * 8 >> 32);
    SHA256_Update(&context, text.data(), text.size());
    Digest digest;
    SHA256_Final(digest.bytes.data(), &context);
    return digest;
  }
};
INSTANTIATE_TEST_SUITE_P(, Sha256Ways,
                         testing::Values(sha256_finish_in_pairs, sha256_finish_one_by_one),
                         [](const auto& way) { return way.index == 0 ? "InPairs" : "OneByOne"; });

TEST_P(Sha256Ways, FinishWhatAnotherStateHasBegun) {
  Random random;
  for (std::size_t size = 0; size <= kSizeMax; ++size) {
    Sha256State state = kSha256Initial;
    std::uint64_t before = random.below(4) * kSha256Block;
    const std::string begun = random_text(random, before);
    for (std::size_t at = 0; at < before; at += kSha256Block) {
      sha256_compress(state, test::as_bytes(begun).data() + at);
    }
    // Simulates a far longer text: its length in bits exceeds the lower half of the length.
    if (random.below(2) == 0) before += std::uint64_t{1} << 32;
    const Batch batch(random, size, 400);
    std::vector<Sha256State> results(size);
    GetParam()(state, before, batch.texts(), results);
    for (std::size_t i = 0; i < size; ++i) {
      Digest digest;
      sha256_bytes(results[i], digest.bytes.data());
      ASSERT_EQ(digest, expected(state, before, batch.texts()[i]));
      if (before > 3 * kSha256Block) continue;
      ASSERT_EQ(digest, openssl_sha256(begun + std::string(batch.texts()[i])));
    }
  }
}

// ---- HMAC

TEST(HmacBatch, AgreesWithOpenSsl) {
  Random random;
  std::size_t turn = 0;
  for (const std::size_t secret_length : {0U, 1U, 32U, 63U, 64U, 65U, 200U}) {
    const std::string secret = random_text(random, secret_length);
    const HmacKey key(test::Exact(test::as_bytes(secret)).bytes());
    for (std::size_t size = 0; size <= kSizeMax; size += 1 + random.below(9)) {
      Batch batch;
      for (std::size_t i = 0; i < size; ++i) {
        // Each length in turn, beside random ones.
        batch.add(random_text(random, i % 2 == 0 ? random.below(201) : turn++ % 201));
      }
      const auto& texts = batch.texts();
      std::vector<Digest> digests(texts.size());
      key.digest(texts, digests);
      for (std::size_t i = 0; i < texts.size(); ++i) {
        ASSERT_EQ(digests[i], openssl_hmac(secret, texts[i]))
            << secret_length << " bytes of secret, text " << i << " of " << texts.size();
      }
    }
  }
}

// ---- traces in memory

// Only with optimization: without it, intrinsics leave their arguments on the stack.
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void* digest_in_pairs(void* batch) {
  std::array<Sha256State, 2> results{};
  sha256_finish_in_pairs(kSha256Initial, 0, static_cast<const Batch*>(batch)->texts(), results);
  return nullptr;
}

TEST(Sha256Batch, LeavesNothingOfTheTextsOnTheStack) {
  if (!sha256_pairs()) GTEST_SKIP() << "this processor has no SHA instructions";
  Random random;
  Batch batch;
  for (int i = 0; i < 2; ++i) batch.add(random_text(random, 40));
  // With lazy binding, the first call of a function saves registers on the stack.
  Batch other(random, 2, 40);
  digest_in_pairs(&other);
  // The test allocates the stack, so it may read it afterwards.
  constexpr std::size_t kStackBytes = std::size_t{256} << 10;
  std::vector<char> memory(kStackBytes + 64);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstack(&attributes, memory.data(), kStackBytes), 0);
  pthread_t thread{};
  ASSERT_EQ(pthread_create(&thread, &attributes, digest_in_pairs, &batch), 0);
  ASSERT_EQ(pthread_join(thread, nullptr), 0);
  pthread_attr_destroy(&attributes);
  const std::string_view stack(memory.data(), memory.size());
  std::size_t found = 0;
  for (const std::string_view text : batch.texts()) {
    for (std::size_t at = 0; at < text.size(); at += 8) {
      std::string part(text.substr(at, 8));
      if (stack.find(part) != stack.npos) ++found;
      for (const std::size_t word : {0U, 4U}) std::reverse(&part[word], &part[word] + 4);
      if (stack.find(part) != stack.npos) ++found;  // in big-endian words, as SHA-256 reads them
    }
  }
  EXPECT_EQ(found, 0U) << "pieces of eight bytes, of ten in two texts";
}
#endif

}  // namespace
}  // namespace latchkey
