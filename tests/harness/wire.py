"""Protocol frames built with struct, to send data that no well-behaved client would.

The numbers are repeated here instead of being taken from the product's headers: these tests must
detect a change of them.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .wait import scaled

VERIFY, PING, STATUS, SYNC, WHY = 0x01, 0x02, 0x03, 0x04, 0x05
VERIFIED, PONG, STATUS_REPLY, SYNCED, WHY_REPLY, ERROR = 0x81, 0x82, 0x83, 0x84, 0x85, 0xFF
MAX_AGE_ANY = 0xFFFFFFFF
HEADER_BYTES = 16

VERDICTS = (
    "valid unknown malformed revoked disabled deleted expired not_yet_valid"
    " insufficient_scope forbidden unavailable"
).split()
ERRORS = dict(
    enumerate(
        "bad_version bad_type bad_length bad_reserved bad_flags bad_count bad_source bad_scope"
        " truncated trailing bad_timeout unknown_source not_allowed timed_out overloaded"
        " stopping no_reasons operation_not_allowed".split(),
        start=1,
    )
)


def frame(
    type_: int,
    request_id: int = 1,
    body: bytes = b"",
    *,
    version: int = 1,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """One frame; `length` overrides its size."""
    said = HEADER_BYTES + len(body) if length is None else length
    return struct.pack("<BBHIQ", version, type_, reserved, said, request_id) + body


def verify(
    keys: Sequence[bytes],
    request_id: int = 1,
    *,
    flags: int = 1,
    source: bytes = b"",
    all_scopes: Sequence[bytes] = (),
    any_scopes: Sequence[bytes] = (),
    reserved: int = 0,
    max_age_ms: int = MAX_AGE_ANY,
    key_count: int | None = None,
    type_: int = VERIFY,
) -> bytes:
    """A verify request, or a why of the same form; `key_count` overrides the number of keys."""
    body = struct.pack(
        "<HBBBBHI",
        flags,
        len(source),
        len(all_scopes),
        len(any_scopes),
        reserved,
        len(keys) if key_count is None else key_count,
        max_age_ms,
    )
    body += source
    for scope in (*all_scopes, *any_scopes):
        body += struct.pack("<B", len(scope)) + scope
    for key in keys:
        body += struct.pack("<H", len(key)) + key
    return frame(type_, request_id, body)


class Reply(NamedTuple):
    """One frame from the daemon."""

    type: int
    request_id: int
    body: bytes

    @property
    def error(self) -> str:
        """The name of the error in this reply."""
        assert self.type == ERROR, self
        (code,) = struct.unpack_from("<H", self.body)
        return ERRORS[code]

    @property
    def verdicts(self) -> list[str]:
        """The verdicts in this reply, in order."""
        return [verdict for verdict, _ in self.answers]

    @property
    def ages_ms(self) -> list[int]:
        """The age of each answer in this reply."""
        count, at, found = struct.unpack_from("<H", self.body)[0], 4, []
        for _ in range(count):
            claims, age = struct.unpack_from("<HI", self.body, at + 2)
            found.append(age)
            at += 8 + claims
        return found

    @property
    def answers(self) -> list[tuple[str, bool]]:
        """The verdicts in this reply, in order, and whether each claims to be fresh."""
        assert self.type == VERIFIED, self
        count, at, found = struct.unpack_from("<H", self.body)[0], 4, []
        for _ in range(count):
            verdict, flags, claims = struct.unpack_from("<BBH", self.body, at)
            found.append((VERDICTS[verdict], bool(flags & 1)))
            at += 8 + claims
        assert at == len(self.body)
        return found


class Raw:
    """One connection that sends arbitrary bytes. Every wait has a deadline."""

    def __init__(self, path: Path, deadline_s: float = 10.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(scaled(deadline_s))
        self.socket.connect(str(path))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all bytes, or as many as the daemon accepts before it closes."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a reason, if any, is in the replies

    def end(self) -> None:
        """Close the sending direction."""
        self.socket.shutdown(socket.SHUT_WR)

    def receive(self) -> Reply | None:
        """The next reply; None once the daemon has closed."""
        header = self._exactly(HEADER_BYTES)
        if header is None:
            return None
        version, type_, reserved, length, request_id = struct.unpack("<BBHIQ", header)
        assert (version, reserved) == (1, 0) and length >= HEADER_BYTES, header
        body = self._exactly(length - HEADER_BYTES)
        assert body is not None, "the daemon closed in the middle of a reply"
        return Reply(type_, request_id, body)

    def all(self) -> list[Reply]:
        """Every reply until the daemon closes."""
        replies = []
        while (reply := self.receive()) is not None:
            replies.append(reply)
        return replies

    def ask(self, request: bytes) -> Reply:
        """Send one request, and receive one reply."""
        self.send(request)
        reply = self.receive()
        assert reply is not None, "the daemon closed instead of answering"
        return reply

    def _exactly(self, count: int) -> bytes | None:
        data = b""
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionResetError:
                part = b""
            if not part:
                assert not data, f"the daemon closed after {len(data)} of {count} bytes"
                return None
            data += part
        return data
