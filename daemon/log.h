// The daemon's log: lines wait in a queue for a thread that hands them on. A log that nobody reads
// (a journal that hangs, a full pipe) must not hold up answers, so the oldest lines go when the
// queue is full.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace latchkey {

// From here on what spdlog is told goes to the journal if that is where standard error leads
// (systemd.exec(5), "$JOURNAL_STREAM"), else to standard error. Whoever wrote a text, it is shown
// printable. `level`: as the configuration has it. Call it once.
void start_log(const std::string& level);

// Lines that are nowhere: the queue was full, or they could not be written (a full disk, a closed
// pipe, a journal that has gone).
[[nodiscard]] std::uint64_t log_lines_dropped();

// The end of the log: what waits is written, then `last`, a line each, as critical. Nothing comes
// after these, whoever still runs. A reader that is slow gets these and not all that waits; if
// there is none, the process ends here, with `exit_code`. Does nothing more if there is no log.
void finish_log(int exit_code, const std::vector<std::string>& last = {});

// Writes all of it to standard error at once, between two lines of anybody else's; waits a second
// at most for whoever reads it.
void write_to_stderr(const std::string& text);

}  // namespace latchkey
