#include "daemon/assembly.h"

#include <openssl/crypto.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstdint>
#include <span>

namespace latchkey {
namespace {

void log_warning(const std::string& sentence) { spdlog::warn("{}", sentence); }

}  // namespace

Secrets::Secrets(const Options& options) {
  for (const SourceConfig& source : options.sources) {
    for (const std::string& file : source.jwt_secret_files) {
      if (!jwt_secrets.contains(file)) jwt_secrets[file] = read_jwt_secret(file, log_warning);
    }
    if (source.scheme != Scheme::kHmac || peppers_of_folder.contains(source.peppers)) continue;
    peppers_of_folder[source.peppers] = read_peppers(source.peppers, log_warning);
  }
}

std::unordered_set<std::string> spellings(const std::vector<Pepper>& peppers) {
  std::unordered_set<std::string> names;
  for (const Pepper& pepper : peppers) {
    const std::string stem = pepper.version.substr(0, pepper.version.rfind('.'));
    for (const char* ending : {"", ".key", ".hex", ".b64"}) names.insert(stem + ending);
  }
  return names;
}

std::shared_ptr<const Policy> make_policy(const Options& options, const Secrets& secrets,
                                          PepperCounters& counters,
                                          const std::vector<std::unique_ptr<KeySet>>& key_sets) {
  std::vector<Digester> digesters(1);  // SHA-256, for schemes without a secret
  std::map<std::string, std::vector<std::size_t>> of_folder;
  for (const auto& [folder, peppers] : secrets.peppers_of_folder) {
    for (const Pepper& pepper : peppers) {
      of_folder[folder].push_back(digesters.size());
      digesters.emplace_back(pepper.version,
                             std::span(reinterpret_cast<const std::uint8_t*>(pepper.secret.data()),
                                       pepper.secret.size()),
                             counters.of(folder, pepper.version));
    }
  }
  std::map<std::string, std::size_t> of_jwt_secret;
  for (const auto& [file, secret] : secrets.jwt_secrets) {
    of_jwt_secret[file] = digesters.size();
    digesters.push_back(Digester::of_jwts(
        file, std::span(reinterpret_cast<const std::uint8_t*>(secret.data()), secret.size()),
        counters.of("", file)));
  }
  std::vector<Route> routes;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    const SourceConfig& source = options.sources[i];
    routes.push_back(
        {key_sets[i].get(),
         source.scheme == Scheme::kHmac ? of_folder[source.peppers] : std::vector<std::size_t>{0},
         scheme_name(source.scheme), key_sets[i]->uses.get()});
    if (source.scheme == Scheme::kJwtJti) {
      routes.back().digesters.clear();
      for (const std::string& file : source.jwt_secret_files) {
        routes.back().digesters.push_back(of_jwt_secret.at(file));
      }
    }
    names.push_back(source.name);
  }
  return std::make_shared<const Policy>(
      Policy{Verifier(std::move(digesters), std::move(routes),
                      FreshnessLimits{.bound_ns = options.freshness.bound.count(),
                                      .max_stale_ns = options.freshness.max_stale.count()}),
             CallerRules(options.allow, names, geteuid(), OverflowIds::here()), options.limits});
}

namespace {

// The other sources in which the same key has the same digest.
std::vector<const KeySet*> alike(const Options& options, std::size_t index,
                                 const std::vector<std::unique_ptr<KeySet>>& key_sets) {
  // SHA-256 digests are the same in all sources; HMACs are the same if the pepper folder is.
  const auto way = [](const SourceConfig& source) {
    return std::pair(source.scheme == Scheme::kHmac,
                     source.scheme == Scheme::kHmac ? source.peppers : "");
  };
  std::vector<const KeySet*> list;
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    if (i != index && way(options.sources[i]) == way(options.sources[index])) {
      list.push_back(key_sets[i].get());
    }
  }
  return list;
}

}  // namespace

std::vector<std::unique_ptr<Loader>> make_loaders(
    const Options& options, const Secrets& secrets, Quiescence& quiescence,
    const std::vector<std::unique_ptr<KeySet>>& key_sets) {
  std::vector<std::unique_ptr<Loader>> loaders;
  for (const DatabaseOptions& database : options.databases) {
    DatabaseConfig config;
    config.name = database.name;
    config.target.conninfo = database.conninfo;
    if (!database.password_file.empty()) {
      // Read the file once now, because a missing file is an error in the configuration.
      std::string password = read_password(database.password_file);
      OPENSSL_cleanse(password.data(), password.size());
      warn_of_readers(database.password_file, log_warning);
      config.target.password = [file = database.password_file] { return read_password(file); };
    }
    config.refresh.heartbeat_ns = options.freshness.heartbeat.count();
    config.refresh.barrier_deadline_ns = options.freshness.bound.count();
    config.bound_ns = options.freshness.bound.count();
    config.refresh.audit_ns = options.freshness.audit.count();
    config.last_used_flush_ns = options.last_used.flush.count();
    std::vector<LoaderSource> sources;
    for (std::size_t i = 0; i < options.sources.size(); ++i) {
      const SourceConfig& source = options.sources[i];
      if (source.database != database.name) continue;
      const auto peppers = secrets.peppers_of_folder.find(source.peppers);
      sources.push_back({source, key_sets[i].get(),
                         peppers == secrets.peppers_of_folder.end()
                             ? std::unordered_set<std::string>{}
                             : spellings(peppers->second),
                         alike(options, i, key_sets)});
    }
    loaders.push_back(std::make_unique<Loader>(std::move(config), std::move(sources), quiescence));
  }
  return loaders;
}

}  // namespace latchkey
