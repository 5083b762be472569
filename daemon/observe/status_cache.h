// Caches the status text. Each view of it is made at most once per kEveryNs, for any number of
// requests, because making it takes as long as answering hundreds of keys.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "verify/rights.h"

namespace latchkey {

class StatusCache {
 public:
  using Make = std::function<std::string(const Rights&)>;

  explicit StatusCache(Make make) : make_(std::move(make)) {}

  // The current status, or one that is at most kEveryNs (plus the time to make it) old. Any thread
  // may call it. Rethrows the exceptions of `make`.
  [[nodiscard]] std::shared_ptr<const std::string> text(const Rights& rights, std::int64_t now_ns);

  static constexpr std::int64_t kEveryNs = 100'000'000;
  static constexpr std::size_t kViewsMax = 64;

 private:
  // The text depends on the rights only in this way (status_json): nullopt is the whole status, a
  // mask the restricted view of these sources.
  using View = std::optional<SourceMask>;
  struct Text {
    std::shared_ptr<const std::string> text;  // null: never made
    std::int64_t made_ns = 0;
  };

  Make make_;
  std::mutex mutex_;
  std::map<View, Text> texts_;
};

}  // namespace latchkey
