"""Waits until a condition is true, within a deadline and never longer than needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A poll starts with short pauses, so that it detects a change of a millisecond after one, and then
# slows down, so that a long wait does not compete with the program under test.
_SHORTEST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


class NotInTime(AssertionError):
    """The condition was not true before the deadline."""


def scaled(seconds: float) -> float:
    """`seconds` stretched by LATCHKEY_TIME_SCALE: sanitizer builds and slow machines need more."""
    return seconds * float(os.environ.get("LATCHKEY_TIME_SCALE", "1"))


def until(predicate: Callable[[], T], deadline_s: float, what: str) -> T:
    """Poll `predicate` until it returns a true value, and return that.

    The (scaled) deadline only limits the wait: a test of speed must measure the time itself.
    Exceptions of the predicate pass through, because a process that has died never becomes ready.
    """
    started = time.monotonic()
    limit = scaled(deadline_s)
    pause = _SHORTEST_PAUSE_S
    while True:
        value = predicate()
        if value:
            return value
        elapsed = time.monotonic() - started
        if elapsed >= limit:
            raise NotInTime(f"not within {limit:g} s: {what} (last seen: {value!r})")
        time.sleep(min(pause, limit - elapsed))
        pause = min(pause * 2, _LONGEST_PAUSE_S)
