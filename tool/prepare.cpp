// The commands that need no daemon: mint, sql.

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "config/options.h"
#include "config/secrets.h"
#include "keys/digest.h"
#include "keys/key_form.h"
#include "loader/postgres/triggers.h"
#include "tool/commands.h"
#include "tool/libpq.h"
#include "tool/mint.h"

namespace latchkey {
namespace {

using nlohmann::ordered_json;

const SourceConfig& source_named(const Options& options, const std::string& name) {
  for (const SourceConfig& source : options.sources) {
    if (source.name == name) return source;
  }
  throw UsageError{"the configuration has no source \"" + name + "\""};
}

std::string base64(const Digest& digest) {
  std::string text(45, '\0');
  const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                                     digest.bytes.data(), static_cast<int>(digest.bytes.size()));
  text.resize(static_cast<std::size_t>(length));
  return text;
}

// The storage form of new keys of a source.
class Storage {
 public:
  explicit Storage(const MintSettings& mint) {
    if (mint.config.empty() != mint.source.empty()) {
      throw UsageError{"--config and --source belong together: they say how the key is stored"};
    }
    if (mint.config.empty()) return;
    const Options options = Options::load(mint.config, read_conninfo);
    const SourceConfig& source = source_named(options, mint.source);
    scheme_ = source.scheme;
    encoding_ = source.encoding;
    if (scheme_ == Scheme::kJwt || scheme_ == Scheme::kJwtJti) {
      throw UsageError{"source \"" + source.name +
                       "\" holds JWTs, which the application's own issuer signs"};
    }
    if (scheme_ == Scheme::kHmac) {
      auto peppers = read_peppers(source.peppers, [](const std::string& sentence) {
        std::cerr << "latchkey: " << sentence << "\n";
      });
      pepper_ = std::move(peppers.front());  // the newest
    }
  }
  ~Storage() { OPENSSL_cleanse(pepper_.secret.data(), pepper_.secret.size()); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // The values for the table; the key itself goes to its holder.
  [[nodiscard]] ordered_json stored(const std::string& key) const {
    switch (scheme_) {
      case Scheme::kPlain: return {{"scheme", "plain"}, {"store", key}};
      case Scheme::kHmac: {
        const HmacKey hmac(
            {reinterpret_cast<const std::uint8_t*>(pepper_.secret.data()), pepper_.secret.size()});
        return {{"scheme", "hmac-sha256"},
                {"key_version", pepper_.version},
                {"store", spelled(hmac.digest(key))}};
      }
      default: return {{"scheme", "sha256"}, {"store", spelled(sha256(key))}};
    }
  }

 private:
  // The text form of a digest. Raw bytes are in PostgreSQL's input format of bytea.
  [[nodiscard]] std::string spelled(const Digest& digest) const {
    const std::string hex =
        to_hex({reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()});
    if (encoding_ == Encoding::kBase64) return base64(digest);
    return encoding_ == Encoding::kRaw ? "\\x" + hex : hex;
  }

  Scheme scheme_ = Scheme::kSha256;
  Encoding encoding_ = Encoding::kHex;
  Pepper pepper_;
};

}  // namespace

int run_mint(const CommonSettings& common, const MintSettings& mint) {
  if (!is_key_prefix(mint.prefix)) {
    throw UsageError{"--prefix has 1 to 32 letters, digits and underscores"};
  }
  const Storage storage(mint);
  for (unsigned i = 0; i < mint.count; ++i) {
    const std::string key = mint_key(mint.prefix);
    ordered_json line = {{"key", key}};
    line.update(storage.stored(key));
    if (common.json) {
      std::cout << line << '\n';
    } else {
      std::cout << key << "  " << line.at("scheme").get<std::string>()
                << (line.contains("key_version") ? ":" + line.at("key_version").get<std::string>()
                                                 : "")
                << "  " << line.at("store").get<std::string>() << '\n';
    }
  }
  return kExitAllActive;
}

int run_sql(const SqlSettings& settings) {
  const Options options = Options::load(settings.config, read_conninfo);
  if (!settings.source.empty()) (void)source_named(options, settings.source);
  std::set<std::string> roles;  // roles for which the grants on all of their sources were printed
  for (const SourceConfig& source : options.sources) {
    if (!settings.source.empty() && source.name != settings.source) continue;
    if (settings.action == "install") {
      std::cout << install_sql(source);
    } else if (settings.action == "uninstall") {
      std::cout << uninstall_sql(source);
    } else {
      for (const DatabaseOptions& database : options.databases) {
        if (database.name != source.database) continue;
        std::cout << grant_sql(source, database.role);
        if (settings.source.empty()) roles.insert(database.role);
      }
    }
  }
  for (const std::string& role : roles) std::cout << revoke_bypass_sql(role);
  return kExitAllActive;
}

}  // namespace latchkey
