"""Fake servers: other programs, or a misbehaving latchkeyd."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from harness import wire
from harness.wait import scaled

#: Handles one connection, which is closed afterwards.
Behaviour = Callable[[socket.socket], None]


class Fake:
    """Listens on `path` and handles each connection with `behaviour`, one after the other."""

    def __init__(self, path: Path, behaviour: Behaviour, backlog: int = 16) -> None:
        self._behaviour = behaviour
        self._ended = False
        self.connections = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = self._listener  # until the first connection
        self._listener.bind(str(path))
        self._listener.listen(backlog)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Fake:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        for open_ in (self._listener, self._connection):
            with contextlib.suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)
        self._thread.join(scaled(30))
        self._listener.close()
        assert not self._thread.is_alive(), "the fake server hangs"

    def _serve(self) -> None:
        while not self._ended:
            try:
                self._connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._connection as connection:
                connection.settimeout(scaled(20))
                with contextlib.suppress(OSError):
                    self._behaviour(connection)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    """Exactly this many bytes; None: the client has closed before."""
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            return None
        data += part
    return data


def read_request(connection: socket.socket) -> int | None:
    """The id of the next request; None: the client has closed."""
    header = _exactly(connection, wire.HEADER_BYTES)
    if header is None:
        return None
    _, _, _, length, request_id = struct.unpack("<BBHIQ", header)
    if _exactly(connection, length - wire.HEADER_BYTES) is None:
        return None
    return int(request_id)


def verified(request_id: int, *verdicts: int) -> bytes:
    """A reply of fresh verdicts without claims."""
    body = struct.pack("<HH", len(verdicts), 0)
    for verdict in verdicts:
        body += struct.pack("<BBHI", verdict, 1, 0, 0)
    return wire.frame(wire.VERIFIED, request_id, body)


def error(request_id: int, code: str, text: str) -> bytes:
    """An error frame."""
    number = next(number for number, name in wire.ERRORS.items() if name == code)
    body = struct.pack("<HH", number, len(text)) + text.encode()
    return wire.frame(wire.ERROR, request_id, body)


def answering(reply: Callable[[int], bytes]) -> Behaviour:
    """Sends reply(request id) to each request."""

    def behave(connection: socket.socket) -> None:
        while (request_id := read_request(connection)) is not None:
            connection.sendall(reply(request_id))

    return behave


def turn_away(connection: socket.socket, code: str, text: str) -> None:
    """As PROTOCOL.md specifies: an unrequested error, then nothing; further bytes are ignored."""
    connection.sendall(error(0, code, text))
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass
