"""Why there is no answer. Whoever gets one of these lets nobody in."""

from __future__ import annotations

from typing import ClassVar, Literal

Failure = Literal["argument", "connect", "timeout", "closed", "protocol", "refused"]


class LatchkeyError(Exception):
    """There is no answer. Its text is for a log and never holds a key."""

    #: The failure's name, the same in all of Latchkey's clients.
    failure: ClassVar[Failure]

    @property
    def may_pass(self) -> bool:
        """Would there perhaps be an answer if it were asked again?"""
        return False


class InvalidRequest(LatchkeyError, ValueError):
    """The call makes no sense; nothing was sent."""

    failure = "argument"


class Unreachable(LatchkeyError, ConnectionError):
    """The daemon cannot be reached: it does not run, or this user may not open its socket."""

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
    """What answers does not speak Latchkey's protocol."""

    failure = "protocol"


class Refused(LatchkeyError):
    """The daemon refused the request or the caller."""

    failure = "refused"

    def __init__(self, refusal: str, text: str, *, unasked: bool = False) -> None:
        super().__init__(f"latchkeyd refused: {text} ({refusal})")
        #: The name of the error in PROTOCOL.md: "not_allowed", "unknown_source", "timed_out", ...
        self.refusal = refusal
        self._unasked = unasked

    @property
    def may_pass(self) -> bool:
        return self.refusal in ("overloaded", "stopping")

    @property
    def ends_connection(self) -> bool:
        """Does the daemon close after it? So it does, according to PROTOCOL.md, but for a few."""
        return self._unasked or self.refusal not in (
            "unknown_source",
            "timed_out",
            "no_reasons",
            "operation_not_allowed",
        )
