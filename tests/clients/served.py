"""A daemon over a table of keys in every state."""

from __future__ import annotations

from datetime import timedelta

from harness.programs import Daemon
from installation import Keys


class Here:
    """The daemon of the client tests; keys are named after their state, as in `key_revoked`."""

    def __init__(self, keys: Keys, daemon: Daemon) -> None:
        self.keys = keys
        self.daemon = daemon
        self.ids = {
            name: keys.issue(f"key_{name}", **{"scopes": ["read", "write"]} | facts)
            for name, facts in {
                "valid": {},
                "reader": {"scopes": ["read"]},
                "revoked": {"status": "revoked"},
                "expired": {"expires_at": timedelta(days=-1)},
                "timed": {"expires_at": timedelta(days=30)},
            }.items()
        }
        self.keys.cli.sync("30s")
