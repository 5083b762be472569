// The daemon's log. Lines wait in a queue, and a thread of its own writes them. A log without a
// reader (a journal that hangs, a full pipe) must not delay answers, so a full queue drops its
// oldest lines.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace latchkey {

// Directs spdlog's output to the journal if standard error is connected to the journal
// (systemd.exec(5), "$JOURNAL_STREAM"), else to standard error. Every line is made printable,
// because it may contain text from outside. `level` is the configured level. Call it once.
void start_log(const std::string& level);

// The number of lost lines: the queue was full, or a write failed (a full disk, a closed pipe, a
// journal that has ended).
[[nodiscard]] std::uint64_t log_lines_dropped();

// Ends the log: writes the waiting lines, then the lines of `last` as critical. No line follows
// them, even if other threads still run. For a slow reader, the lines of `last` replace the rest of
// the waiting lines. If no line can be written, the process ends here with `exit_code`. Without a
// started log, it does nothing.
void finish_log(int exit_code, const std::vector<std::string>& last = {});

// Writes the text to standard error without the queue, and not within another writer's line. Waits
// at most one second for the reader.
void write_to_stderr(const std::string& text);

}  // namespace latchkey
