"""Waiting for something to become true, within a deadline and never for longer than needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A poll starts eager, so that what takes a millisecond is seen after one, and then calms down, so
# that what takes seconds does not compete with the program it waits for.
_SHORTEST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


class NotInTime(AssertionError):
    """What was waited for did not happen before the deadline."""


def scaled(seconds: float) -> float:
    """`seconds` stretched by LATCHKEY_TIME_SCALE: sanitizer builds and slow machines need more."""
    return seconds * float(os.environ.get("LATCHKEY_TIME_SCALE", "1"))


def until(predicate: Callable[[], T], deadline_s: float, what: str) -> T:
    """Poll `predicate` until it returns something true, and return that.

    The deadline (scaled) says when to give up; a promise about speed has to be measured by the
    test itself. Exceptions of the predicate pass through: a process that died will not get ready.
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
