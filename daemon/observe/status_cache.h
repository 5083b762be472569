// The status as text, made at most every kEveryNs for each view of it, whoever asks how often: to
// make it takes as long as to answer hundreds of keys.
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

  // How it stands now, or at most kEveryNs (and the time that it takes to make it) ago. Any
  // thread's; throws what `make` throws.
  [[nodiscard]] std::shared_ptr<const std::string> text(const Rights& rights, std::int64_t now_ns);

  static constexpr std::int64_t kEveryNs = 100'000'000;
  static constexpr std::size_t kViewsMax = 64;

 private:
  // What is told depends on nothing else (status_json): everything, or of which sources.
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
