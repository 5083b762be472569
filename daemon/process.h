// What the process keeps from the system, and tells it at its end.
#pragma once

namespace latchkey {

// No core file may show what this process has seen; nobody but root may attach to it.
void keep_memory_private();

// Nothing of it goes to a swap device, where the system permits that; else the log says so.
void lock_memory();

// Whatever ends a process by default (signal(7)) and may come by mistake: nothing must be cut off
// in the middle.
void ignore_stray_signals();

// A std::terminate_handler. Want of memory in the middle of a change, which must not be left half
// done (keymap/key_set.h), ends the process: it loads everything anew when it comes back. Says so
// without taking memory, so not by the log.
[[noreturn]] void say_why_it_ends();

}  // namespace latchkey
