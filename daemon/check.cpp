#include "daemon/check.h"

#include <array>
#include <iostream>
#include <string>

#include "base/printable.h"
#include "daemon/exit_status.h"

namespace latchkey {

int report_check(const std::vector<Finding>& trouble,
                 const std::vector<std::unique_ptr<Loader>>& loaders) {
  std::array<std::size_t, 3> of_severity{};
  std::size_t count = 0;
  const auto print = [&](const Finding& finding, const std::string& where) {
    ++of_severity[static_cast<std::size_t>(finding.severity())];
    std::cout << ++count << ". " << finding.number() << " " << severity_name(finding.severity())
              << ": " << where << printable(finding.text) << "\n\n";
  };
  for (const Finding& finding : trouble) print(finding, "");
  for (const auto& loader : loaders) {
    for (const SourceStatus& source : loader->status().sources) {
      for (const Finding& finding : source.findings) {
        print(finding, "source \"" + source.name + "\": ");
      }
      if (source.comparing) {
        std::cout << "source \"" << source.name
                  << "\" could not be compared with the others in time; the log of a running"
                     " latchkeyd will say which keys they share.\n";
      }
      if (trouble.empty()) {
        std::cout << "source \"" << source.name << "\": " << source.load_rows << " rows read, "
                  << source.keys << " keys.\n";
      }
    }
  }
  const auto [notes, warnings, errors] = of_severity;
  if (count > 0) {
    std::cout << "errors: " << errors << ", warnings: " << warnings << ", notes: " << notes
              << ". docs/lint.md says more of each number.\n";
  }
  if (!trouble.empty()) {
    std::cout << "latchkeyd would not start.\n";
  } else if (errors > 0) {
    std::cout << "latchkeyd would start, but not every source could accept a key.\n";
  } else if (warnings > 0) {
    std::cout << "latchkeyd would start. What the warnings name is not as it should be.\n";
  } else {
    std::cout << "The configuration and its tables are in order.\n";
  }
  return errors == 0 ? 0 : kExitFailure;
}

}  // namespace latchkey
