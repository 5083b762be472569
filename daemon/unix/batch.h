// Verify requests that are answered together, whichever connection sent them: one read section, one
// clock reading, digests in pairs, interleaved look-ups.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/server/context.h"
#include "protocol/codec.h"
#include "verify/rights.h"
#include "verify/verifier.h"

namespace latchkey {

// Its memory is reused, so that answering does not allocate. Each worker has one.
class Batch {
 public:
  // Whoever sent a request; lives until answer().
  struct Asker {
    const Rights& rights;
    OutBuffer& out;          // where the replies go, in the order of the requests
    std::uint64_t& unknown;  // the number of keys answered as unknown is added here
  };

  Batch();

  // Adds a request about these sources. The texts that `request` points to live until answer().
  // Only if full() is false.
  void add(const Asker& asker, std::uint64_t request_id, const VerifyRequest& request,
           SourceMask sources);
  // True if a further request of any size might not fit.
  [[nodiscard]] bool full() const;
  // Writes a reply for each request, and forgets the requests.
  void answer(const WorkerContext& context);

 private:
  struct Request {
    const Rights* rights;
    OutBuffer* out;
    std::uint64_t* unknown;
    std::uint64_t id;
    std::uint16_t flags;
    std::size_t keys;
  };
  // reserve() keeps pointers stable up to these limits.
  static constexpr std::size_t kRequests = 256;
  static constexpr std::size_t kQuestions = std::size_t{2} * LATCHKEY_BATCH_KEYS_MAX;
  static constexpr std::size_t kScopes = std::size_t{64} * LATCHKEY_SCOPES_MAX;

  [[nodiscard]] std::span<const std::string_view> keep(const ScopeList& scopes);
  void clear();

  std::vector<Request> requests_;
  std::vector<Terms> terms_;
  std::vector<Question> questions_;
  std::vector<std::string_view> scopes_;
  std::vector<Outcome> outcomes_;
};

}  // namespace latchkey
