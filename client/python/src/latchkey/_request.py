"""The requests: their encoding, and the interpretation of their replies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from . import _wire as wire
from ._errors import ProtocolError, Refused

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request. It may be repeated, because no request has side effects."""

    type: int
    #: Encodes the frame for a request id. The caller wipes it once it is sent, because it contains keys.
    encode: Callable[[int], bytearray]
    decode: Callable[[bytes], T]

    def result(self, frame: wire.Frame, request_id: int) -> T:
        """Interprets `frame` as the reply. Raises Refused or ProtocolError."""
        try:
            if frame.type == wire.ERROR and frame.request_id in (0, request_id):
                name, text = wire.decode_error(frame.body)
                raise Refused(name, text, unasked=frame.request_id == 0)
            if (frame.type, frame.request_id) != (self.type | 0x80, request_id):
                raise wire.WireError("bad_type")
            return self.decode(frame.body)
        except wire.WireError as error:
            raise not_latchkeyd(error) from None


def not_latchkeyd(error: wire.WireError) -> ProtocolError:
    """The error for bytes that violate the protocol: the peer is not latchkeyd, or is faulty."""
    return ProtocolError(f"what answers does not speak latchkeyd's protocol ({error})")


def verify(asked: wire.Question, keys: Sequence[bytes]) -> Request[list[wire.Answer]]:
    """Verifies keys that fit into one request."""

    def decode(body: bytes) -> list[wire.Answer]:
        answers = wire.decode_verified(body)
        if len(answers) != len(keys):
            raise wire.WireError("bad_count")
        return answers

    return Request(
        wire.VERIFY, lambda number: wire.encode_keys(wire.VERIFY, number, asked, keys), decode
    )


def why(asked: wire.Question, key: bytes) -> Request[dict[str, Any]]:
    """Explains the verdict on one key."""
    return Request(
        wire.WHY, lambda number: wire.encode_keys(wire.WHY, number, asked, [key]), _object
    )


def ping() -> Request[None]:
    """Checks that the daemon answers."""
    return Request(wire.PING, lambda number: wire.encode(wire.PING, number), wire.decode_empty)


def status() -> Request[dict[str, Any]]:
    """The daemon's status."""
    return Request(wire.STATUS, lambda number: wire.encode(wire.STATUS, number), _object)


def sync(timeout: float) -> Request[float]:
    """Waits until earlier commits are in force; the result is in seconds."""
    body = wire.sync_timeout(timeout)
    return Request(
        wire.SYNC, lambda number: wire.encode(wire.SYNC, number, body), wire.decode_synced
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(wire.decode_text(body))
    except ValueError:
        raise wire.WireError("no JSON") from None
    if not isinstance(value, dict):
        raise wire.WireError("no JSON object")
    return value
