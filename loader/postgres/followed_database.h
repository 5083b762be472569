// The state that the lanes of one loader share: the database's configuration, its sources, the
// policy, the status. It belongs to the loader's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "loader/postgres/connection.h"
#include "loader/postgres/followed_source.h"
#include "loader/postgres/identity.h"
#include "loader/postgres/last_used_writer.h"
#include "loader/postgres/status_board.h"
#include "loader/refresh.h"

namespace latchkey {

struct DatabaseConfig {
  std::string name;
  PgTarget target;
  RefreshSettings refresh;
  // Answers above this age are not fresh. The status reports since when answers are fresh.
  std::int64_t bound_ns = 5'000'000'000;
  std::int64_t last_used_flush_ns = 5'000'000'000;
};

struct FollowedDatabase {
  FollowedDatabase(DatabaseConfig database, std::vector<LoaderSource> from, Quiescence& readers,
                   std::uint64_t seed, std::int64_t now_ns);

  [[nodiscard]] std::vector<const SourceConfig*> configs() const;
  // Compares the rows of a source with those of other sources with the same key digests, a part at
  // a time, between other tasks.
  void compare_sources(std::size_t index);
  void publish_status(std::int64_t now_ns);

  DatabaseConfig config;
  Quiescence& quiescence;
  std::vector<std::unique_ptr<FollowedSource>> sources;
  std::vector<std::string> tables;                   // of the sources, without duplicates
  std::vector<std::vector<std::size_t>> sources_of;  // indexes of each table's sources
  Refresh refresh;
  StatusBoard board;
  LastUsedWriter last_used;
  // About the server that was connected last.
  ServerHistory history;
  SideRights side_rights;
  std::string host;  // the connected server, for messages
  // Schedules a task on this thread.
  std::function<void(std::function<void()>)> post;
};

}  // namespace latchkey
