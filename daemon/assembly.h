// Builds the components from the options: `main` does this at the start, and a reload repeats it.
#pragma once

#include <openssl/crypto.h>

#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "config/options.h"
#include "config/secrets.h"
#include "daemon/server/server.h"
#include "loader/postgres/loader.h"

namespace latchkey {

// All pepper files and JWT secrets of a configuration. The destructor wipes them.
struct Secrets {
  std::map<std::string, std::vector<Pepper>> peppers_of_folder;
  std::map<std::string, std::string> jwt_secrets;  // by the file's name as configured

  // Reads all files. Throws ConfigError.
  explicit Secrets(const Options& options);
  Secrets(const Secrets&) = delete;
  Secrets& operator=(const Secrets&) = delete;
  ~Secrets() {
    for (auto& [folder, peppers] : peppers_of_folder) {
      for (Pepper& pepper : peppers) OPENSSL_cleanse(pepper.secret.data(), pepper.secret.size());
    }
    for (auto& [file, secret] : jwt_secrets) OPENSSL_cleanse(secret.data(), secret.size());
  }
};

// All names by which a row may refer to one of these peppers: the file's name with or without its
// extension.
[[nodiscard]] std::unordered_set<std::string> spellings(const std::vector<Pepper>& peppers);

// Assigns a counter of successes to each pepper version and to each JWT secret (which has no
// folder). A version keeps its counter when a reload adds others, because operators decide by these
// counters which version they can remove.
class PepperCounters {
 public:
  std::size_t of(const std::string& folder, const std::string& version) {
    const auto [found, added] = counters_.emplace(std::pair(folder, version), counters_.size() + 1);
    if (found->second >= kDigestersMax) {
      throw ConfigError(
          "more than 63 pepper versions in all `peppers` folders and JWT secrets, those"
          " counted that have gone since the start. Remove files that no row names any more,"
          " and restart.");
    }
    return found->second;
  }

 private:
  std::map<std::pair<std::string, std::string>, std::size_t> counters_;  // 0 is SHA-256
};

// `key_sets` are in the order of the options' sources, and outlive the returned objects.
[[nodiscard]] std::shared_ptr<const Policy> make_policy(
    const Options& options, const Secrets& secrets, PepperCounters& counters,
    const std::vector<std::unique_ptr<KeySet>>& key_sets);

[[nodiscard]] std::vector<std::unique_ptr<Loader>> make_loaders(
    const Options& options, const Secrets& secrets, Quiescence& quiescence,
    const std::vector<std::unique_ptr<KeySet>>& key_sets);

}  // namespace latchkey
