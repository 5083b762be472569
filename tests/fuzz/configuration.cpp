// The configuration file: any content is accepted as a whole, or refused with a sentence.
#include <algorithm>

#include "base/printable.h"
#include "config/options.h"
#include "loader/postgres/connection.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace latchkey;

void check_limits(const Options& options) {
  FUZZ_CHECK(!options.databases.empty() && !options.sources.empty());
  FUZZ_CHECK(options.sources.size() <= 64);
  FUZZ_CHECK(options.freshness.bound.count() > 0);
  FUZZ_CHECK(options.limits.connections > 0);
  FUZZ_CHECK(options.listen.workers > 0);
  for (const SourceConfig& source : options.sources) {
    FUZZ_CHECK(!source.name.empty() && source.name.size() <= LATCHKEY_SOURCE_BYTES_MAX);
    FUZZ_CHECK(source.column(Role::kId) != nullptr && source.column(Role::kKey) != nullptr);
    FUZZ_CHECK(std::ranges::count(options.sources, source.name, &SourceConfig::name) == 1);
    FUZZ_CHECK(std::ranges::count(options.databases, source.database, &DatabaseOptions::name) == 1);
    for (const auto& [role, column] : source.columns) FUZZ_CHECK(!column.empty());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    check_limits(Options::parse(text, "fuzz.toml", read_conninfo));
  } catch (const ConfigError& error) {
    FUZZ_CHECK(std::string_view(error.what()).size() > 10);
  }
  return 0;
}
