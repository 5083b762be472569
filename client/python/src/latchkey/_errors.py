"""Exceptions: reasons why there is no answer. After any of them, admit no one."""

from __future__ import annotations

from typing import ClassVar, Literal

Failure = Literal["argument", "connect", "timeout", "closed", "protocol", "refused"]


class LatchkeyError(Exception):
    """There is no answer. The text is for a log and never contains a key."""

    #: The failure's name, identical in all clients of Latchkey.
    failure: ClassVar[Failure]

    @property
    def may_pass(self) -> bool:
        """True if a retry may succeed."""
        return False


class InvalidRequest(LatchkeyError, ValueError):
    """The arguments are invalid; nothing was sent."""

    failure = "argument"


class Unreachable(LatchkeyError, ConnectionError):
    """The daemon cannot be reached: it is not running, or this user may not open its socket."""

    failure = "connect"

    def __init__(self, text: str, *, may_pass: bool) -> None:
        super().__init__(text)
        self._may_pass = may_pass

    @property
    def may_pass(self) -> bool:
        return self._may_pass


class TimedOut(LatchkeyError, TimeoutError):
    """The daemon was reached but did not answer within the timeout."""

    failure = "timeout"


class ConnectionClosed(LatchkeyError, ConnectionError):
    """The connection ended before the reply."""

    failure = "closed"

    @property
    def may_pass(self) -> bool:
        return True


class ProtocolError(LatchkeyError):
    """The peer does not speak Latchkey's protocol."""

    failure = "protocol"


class Refused(LatchkeyError):
    """The daemon refused the request or the caller."""

    failure = "refused"

    def __init__(self, refusal: str, text: str, *, unasked: bool = False) -> None:
        super().__init__(f"latchkeyd refused: {text} ({refusal})")
        #: The error's name in PROTOCOL.md: "not_allowed", "unknown_source", "timed_out", ...
        self.refusal = refusal
        self._unasked = unasked

    @property
    def may_pass(self) -> bool:
        return self.refusal in ("overloaded", "stopping")

    @property
    def ends_connection(self) -> bool:
        """True if the daemon closes the connection after this error (PROTOCOL.md)."""
        return self._unasked or self.refusal not in (
            "unknown_source",
            "timed_out",
            "no_reasons",
            "operation_not_allowed",
        )
