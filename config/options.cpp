#include "config/options.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <system_error>

#include "config/read_sections.h"
#include "config/read_source.h"
#include "config/settings_text.h"
#include "config/toml_section.h"

namespace latchkey {
namespace {

// Line numbers of the entries, for error messages of checks across sections.
struct Lines {
  std::vector<std::size_t> databases, sources, allow;
};

void check_databases(const Section& file, const Options& options, const Lines& lines) {
  std::set<std::string> names;
  for (std::size_t i = 0; i < options.databases.size(); ++i) {
    const std::string& name = options.databases[i].name;
    if (!names.insert(name).second) {
      file.refuse_line("two databases are named \"" + name + "\".", lines.databases[i]);
    }
    if (std::ranges::none_of(options.sources,
                             [&](const SourceConfig& s) { return s.database == name; })) {
      file.refuse_line("no [[source]] uses database \"" + name + "\". Remove it, or add one.",
                       lines.databases[i]);
    }
  }
}

// Sources on one table share its triggers, so the triggers must watch the columns of all these
// sources.
void share_triggers(const Section& file, Options& options, const Lines& lines) {
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    SourceConfig& source = options.sources[i];
    std::set<std::string> watched, metadata;
    for (const SourceConfig& other : options.sources) {
      if (other.database != source.database || other.table.display() != source.table.display()) {
        continue;
      }
      if (*other.column(Role::kId) != *source.column(Role::kId)) {
        file.refuse_line("sources \"" + source.name + "\" and \"" + other.name +
                             "\" read the same table, so they must agree on `id`.",
                         lines.sources[i]);
      }
      for (const auto& [role, column] : other.columns) {
        if (role == Role::kMetadata) {
          metadata.insert(column);
        } else if (role != Role::kLastUsedAt) {
          watched.insert(column);
        }
      }
    }
    const std::string* last_used = source.column(Role::kLastUsedAt);
    if (last_used != nullptr && (watched.contains(*last_used) || metadata.contains(*last_used))) {
      file.refuse_line("source \"" + source.name + "\" would write `last_used_at` to column \"" +
                           *last_used +
                           "\", which another source on this table reads. Each use of a key would"
                           " then count as a change of it. Name another column.",
                       lines.sources[i]);
    }
    source.watched.assign(watched.begin(), watched.end());
    std::ranges::set_difference(metadata, watched, std::back_inserter(source.watched_metadata));
  }
}

// Copies the database settings that the loader needs into each source.
void take_from_databases(Options& options) {
  for (SourceConfig& source : options.sources) {
    for (const DatabaseOptions& database : options.databases) {
      if (database.name == source.database) source.allow_superuser = database.allow_superuser;
    }
  }
}

void check_names(const Section& file, Options& options, const Lines& lines) {
  if (options.databases.empty()) {
    file.refuse("no [[database]] is configured, so there is nowhere to load keys from.");
  }
  if (options.sources.empty()) {
    file.refuse("no [[source]] is configured, so there are no keys to answer from.");
  }
  if (options.sources.size() > kSourcesMax) {
    file.refuse_line("more than 32 sources.", lines.sources[kSourcesMax]);
  }
  std::set<std::string> databases, sources;
  for (const DatabaseOptions& database : options.databases) databases.insert(database.name);
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    SourceConfig& source = options.sources[i];
    if (!sources.insert(source.name).second) {
      file.refuse_line("two sources are named \"" + source.name + "\".", lines.sources[i]);
    }
    if (source.database.empty() && databases.size() > 1) {
      file.refuse_line("source \"" + source.name +
                           "\": `database` is missing. Choose one of: " + listed(databases) + ".",
                       lines.sources[i]);
    }
    if (source.database.empty()) source.database = *databases.begin();
    if (!databases.contains(source.database)) {
      file.refuse_line("source \"" + source.name + "\": there is no [[database]] named \"" +
                           source.database + "\". Known: " + listed(databases) + ".",
                       lines.sources[i]);
    }
  }
  check_databases(file, options, lines);
  share_triggers(file, options, lines);
  for (std::size_t i = 0; i < options.allow.size(); ++i) {
    for (const std::string& name : options.allow[i].sources) {
      if (sources.contains(name)) continue;
      file.refuse_line("an [[allow]] rule names source \"" + name + "\", which does not exist." +
                           did_you_mean(name, sources),
                       lines.allow[i]);
    }
  }
}

}  // namespace

Options Options::parse(std::string_view text, const std::string& path,
                       const ReadConninfo& read_conninfo) {
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    throw ConfigError(path + ":" + std::to_string(error.source().begin.line) +
                      ": this is not valid TOML: " + std::string(error.description()));
  }
  Options options;
  const Section file(table, "", path,
                     {"listen", "limits", "freshness", "last_used", "log", "metrics", "memory",
                      "database", "source", "allow"});
  file.table("listen", {"socket", "mode", "group", "workers", "busy_poll"},
             [&](const Section& s) { read_listen(s, options.listen); });
  file.table("limits",
             {"connections", "connections_per_uid", "reply_memory_mib", "unknown_keys_logged",
              "idle_timeout", "stall_timeout", "drain_timeout"},
             [&](const Section& s) { read_limits(s, options.limits); });
  file.table("freshness", {"heartbeat", "bound", "max_stale", "audit", "start_timeout"},
             [&](const Section& s) { read_freshness(s, options.freshness); });
  file.table("last_used", {"flush"},
             [&](const Section& s) { read_last_used(s, options.last_used); });
  file.table("log", {"level"}, [&](const Section& s) {
    read_choice<std::string>(
        s, "level",
        {{"debug", "debug"}, {"info", "info"}, {"warning", "warning"}, {"error", "error"}},
        options.log_level);
  });
  file.table("metrics", {"listen", "mode", "group"}, [&](const Section& s) {
    read_metrics(s, options.metrics);
    if (options.metrics.socket == options.listen.socket) {
      s.refuse("`listen` is the path that callers use, too. Each needs one of its own.",
               s.find("listen"));
    }
  });
  file.table("memory", {"lock"}, [&](const Section& s) {
    if (const auto lock = s.value<bool>("lock", "true or false")) options.lock_memory = *lock;
  });
  Lines lines;
  file.tables("database", {"name", "conninfo", "password_file", "role", "allow_superuser"},
              [&](const Section& s) {
                lines.databases.push_back(s.line());
                options.databases.push_back(read_database(s, read_conninfo));
              });
  file.tables("source", source_settings(), [&](const Section& s) {
    lines.sources.push_back(s.line_of("database"));
    options.sources.push_back(read_source(s));
  });
  file.tables("allow",
              {"uid", "user", "gid", "group", "sources", "operations", "reasons", "metadata"},
              [&](const Section& s) {
                lines.allow.push_back(s.line_of("sources"));
                options.allow.push_back(read_allow(s));
              });
  check_names(file, options, lines);
  take_from_databases(options);
  return options;
}

Options Options::load(const std::string& path, const ReadConninfo& read_conninfo) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw ConfigError("cannot read the configuration " + path + ": " +
                      std::generic_category().message(errno) +
                      ". Name an existing file with --config.");
  }
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad() || text.str().empty()) {
    throw ConfigError("the configuration " + path +
                      " is empty or cannot be read. Name a file with --config.");
  }
  return parse(text.str(), path, read_conninfo);
}

}  // namespace latchkey
