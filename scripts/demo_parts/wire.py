"""A client of twenty lines, for measurements without the cost of a program start for each request.

It also shows the complete protocol for one kind of request: a 16-byte header, a fixed part, and the
keys, each after its length. All numbers are little-endian (include/latchkey/wire.h).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

VALID = 0
REVOKED = 3

_HEADER = struct.Struct("<BBHIQ")  # version, type, reserved, length of the frame, request id
_QUESTION = struct.Struct("<HBBBBHI")  # flags, three lengths, reserved, keys, maximum age in ms
_ANSWER_BYTES = 8  # verdict, flags, length of the claims (not requested), age in ms
_VERIFY, _VERIFIED = 0x01, 0x81
_ANY_AGE = 0xFFFFFFFF
_DEADLINE_S = 10.0


def verify_frame(keys: Sequence[str]) -> bytes:
    """One request for verdicts on these keys, without claims."""
    listed = b"".join(struct.pack("<H", len(key)) + key.encode() for key in keys)
    length = _HEADER.size + _QUESTION.size + len(listed)
    return (
        _HEADER.pack(1, _VERIFY, 0, length, 1)
        + _QUESTION.pack(0, 0, 0, 0, 0, len(keys), _ANY_AGE)
        + listed
    )


class Wire:
    """One connection to latchkeyd."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_DEADLINE_S)
        self._socket.connect(str(path))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, frame: bytes) -> bytes:
        """The verdict of each key in the frame, one byte each."""
        self._socket.sendall(frame)
        _, kind, _, length, _ = _HEADER.unpack(self._receive(_HEADER.size))
        body = self._receive(length - _HEADER.size)
        if kind != _VERIFIED:
            raise OSError(f"latchkeyd answered with a frame of type {kind:#x}: {body!r}")
        return body[4::_ANSWER_BYTES]

    def _receive(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            part = self._socket.recv(count - len(received))
            if not part:
                raise OSError("latchkeyd closed the connection")
            received += part
        return received
