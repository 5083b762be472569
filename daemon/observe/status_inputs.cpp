#include "daemon/observe/status_inputs.h"

namespace latchkey {

std::vector<SourceView> source_views(const StatusInputs& inputs) {
  std::vector<SourceView> views;
  const auto& routes = inputs.policy->verifier.routes();
  const FreshnessLimits& limits = inputs.policy->verifier.limits();
  for (std::size_t number = 0; number < routes.size(); ++number) {
    const KeySet& keys = *routes[number].keys;
    const std::int64_t age_ns = keys.freshness.age_ns(inputs.now_boot_ns);
    for (const LoaderStatus& loader : inputs.loaders) {
      for (const SourceStatus& status : loader.sources) {
        if (status.name != keys.name) continue;
        const LoaderStanding standing{
            .state = loader.state,
            .for_ns = inputs.now_boot_ns - loader.since_boot_ns,
            .fresh_for_ns = inputs.now_boot_ns - status.fresh_since_boot_ns};
        views.push_back(
            {number, &routes[number], &status, &loader, age_ns, stand(age_ns, limits, standing)});
      }
    }
  }
  return views;
}

std::string standing_text(const SourceView& view) {
  return view.status->name + " " + source_state_name(view.standing.state) + " for " +
         std::to_string(view.standing.for_ns / 1'000'000'000) + " s";
}

std::vector<std::string> unanswered_sources(const StatusInputs& inputs) {
  std::vector<std::string> list;
  for (const SourceView& view : source_views(inputs)) {
    if (view.age_ns <= inputs.policy->verifier.limits().max_stale_ns) continue;
    list.push_back(standing_text(view));
  }
  return list;
}

}  // namespace latchkey
