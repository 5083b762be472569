"""Faults, facts and counters of the proxy: the words shared by `proxy` and its connections."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Direction(enum.Flag):
    """The direction of bytes."""

    TO_CLIENT = 1
    TO_SERVER = 2
    BOTH = 3


class Notification(NamedTuple):
    """A notification from the server, forwarded or not."""

    connection: int
    channel: str
    payload: str


@dataclass
class Facts:
    """The state of one connection."""

    number: int  # from 1, in the order of arrival
    open: bool = True
    to_client: int = 0  # bytes forwarded
    to_server: int = 0
    statements: list[str] = field(default_factory=list)  # the last ones, truncated
    # The last COPY ... TO STDOUT: the server's bytes before it, and including its end (0: not yet).
    copy_begins: int = 0
    copy_ends: int = 0

    @property
    def listens(self) -> bool:
        """Whether the connection has sent a LISTEN."""
        return any("LISTEN " in statement for statement in self.statements)

    @property
    def loads(self) -> bool:
        """Whether the connection has sent a COPY."""
        return any("COPY (" in statement for statement in self.statements)


@dataclass
class Counters:
    """Counters of the proxy's actions."""

    accepted: int = 0
    refused: int = 0  # by `refuse`
    unreachable: int = 0  # the server did not accept a connection
    cut: int = 0  # by `cut` and `cut_after`
    flipped: int = 0  # bytes
    bytes_swallowed: int = 0
    notifications: int = 0  # from the server
    notifications_swallowed: int = 0
    notifications_injected: int = 0
    statements_injected: int = 0
    injected_answered: int = 0  # injected statements that the server has finished


Where = Callable[[Facts], bool]


def everywhere(_: Facts) -> bool:
    """Every connection."""
    return True


@dataclass
class Rule:
    kind: str
    where: Where
    direction: Direction = Direction.BOTH
    value: float = 0.0
    channel: str = "*"
    left: int | None = None
