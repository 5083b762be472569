#include "daemon/observe/status_cache.h"

#include <utility>

namespace latchkey {

std::shared_ptr<const std::string> StatusCache::text(const Rights& rights, std::int64_t now_ns) {
  const View view = rights.whole_status() ? View() : View(rights.sources);
  {
    const std::lock_guard lock(mutex_);
    // Reloads can leave views behind that no caller has any more.
    if (texts_.size() > kViewsMax) texts_.clear();
    Text& known = texts_[view];
    if (known.text != nullptr && now_ns - known.made_ns < kEveryNs) return known.text;
    // One worker makes the new text; the other workers return the old text meanwhile.
    known.made_ns = now_ns;
  }
  auto made = std::make_shared<const std::string>(make_(rights));
  const std::lock_guard lock(mutex_);
  texts_[view] = {made, now_ns};
  return made;
}

}  // namespace latchkey
