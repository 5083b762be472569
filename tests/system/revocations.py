"""Revocations in api_keys with a short bound, and the verdicts at a moment."""

from __future__ import annotations

import time

from harness.wait import scaled
from installation import Installation

BOUND_S = 0.3
# With this bound, answers become stale within a test. It is too short for a busy machine to stay
# fresh all the time, so these tests wait for freshness instead of asserting it.
QUICK = {"heartbeat": "100ms", "bound": "300ms"}


def revoke(site: Installation, *rows: int) -> None:
    site.sql("UPDATE public.api_keys SET status = 'revoked' WHERE id = ANY (%s)", list(rows))


def names(site: Installation, *tokens: str) -> list[str]:
    """The verdicts at this moment, without a sync."""
    return site.cli.verify(tokens).names


def is_fresh(site: Installation, token: str) -> bool:
    return bool(site.cli.verify(token)[0]["fresh"])


def assert_sync_gives_up_in_time(site: Installation, timeout_s: float) -> None:
    started = time.monotonic()
    site.cli.sync(f"{round(timeout_s * 1000)}ms", expect=3)
    assert timeout_s <= time.monotonic() - started < timeout_s + scaled(1)
