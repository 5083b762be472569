// Settings of the process: private memory, ignored signals, and the message at its end.
#pragma once

namespace latchkey {

// Disables core files, so that none contains keys, and lets only root attach to the process.
void keep_memory_private();

// Keeps the memory off swap devices if the system permits it; else the log says so.
void lock_memory();

// Ignores signals that end a process by default (signal(7)) and may arrive by mistake, so that they
// do not interrupt an operation.
void ignore_stray_signals();

// A std::terminate_handler. Lack of memory in the middle of a change ends the process, because no
// change may be left half done (keymap/key_set.h); the next start loads everything anew. The
// message is written without allocating memory, so it bypasses the log.
[[noreturn]] void say_why_it_ends();

}  // namespace latchkey
