#include "loader/postgres/followed_database.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace latchkey {
namespace {

std::vector<std::string> tables_of(const std::vector<LoaderSource>& sources) {
  std::vector<std::string> tables;
  for (const LoaderSource& source : sources) {
    const std::string table = source.config.table.display();
    if (std::ranges::find(tables, table) == tables.end()) tables.push_back(table);
  }
  return tables;
}

std::vector<std::vector<std::size_t>> by_table(const std::vector<std::string>& tables,
                                               const std::vector<LoaderSource>& sources) {
  std::vector<std::vector<std::size_t>> list(tables.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const auto table = std::ranges::find(tables, sources[i].config.table.display());
    list[static_cast<std::size_t>(table - tables.begin())].push_back(i);
  }
  return list;
}

}  // namespace

FollowedDatabase::FollowedDatabase(DatabaseConfig database, std::vector<LoaderSource> from,
                                   Quiescence& readers, std::uint64_t seed, std::int64_t now_ns)
    : config(std::move(database)),
      quiescence(readers),
      tables(tables_of(from)),
      sources_of(by_table(tables, from)),
      refresh(from.size(), config.refresh, seed),
      board(config.name, now_ns),
      last_used(config.name, config.target, config.last_used_flush_ns, seed + 1) {
  for (LoaderSource& source : from) {
    sources.push_back(std::make_unique<FollowedSource>(std::move(source), readers));
    FollowedSource& added = *sources.back();
    if (added.uses() == nullptr) continue;
    added.last_used = last_used.add(added.config(), added.facts, added.writer(), *added.uses());
  }
}

std::vector<const SourceConfig*> FollowedDatabase::configs() const {
  std::vector<const SourceConfig*> configs;
  for (const auto& source : sources) configs.push_back(&source->config());
  return configs;
}

void FollowedDatabase::compare_sources(std::size_t index) {
  if (sources[index]->compare_sources(quiescence, boot_ns())) {
    post([this, index] { compare_sources(index); });
    return;
  }
  publish_status(boot_ns());
  board.notify();
}

void FollowedDatabase::publish_status(std::int64_t now_ns) {
  board.set_state(refresh.state(), now_ns);
  board.update([&](LoaderStatus& status) {
    status.pending_ids = refresh.pending_ids();
    status.sources.resize(sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) {
      FollowedSource& source = *sources[i];
      source.update_status(now_ns);
      if (source.last_used) source.status.last_used = last_used.counts(*source.last_used);
      status.sources[i] = source.status;
    }
  });
}

}  // namespace latchkey
