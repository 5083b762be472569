"""Objects at a socket's path that are no live latchkeyd: another program, a stale socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def listening(path: Path, reply: bytes | None = None) -> Iterator[None]:
    """Another program on a socket. It answers each connection with `reply`, then closes it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):  # shutdown() ends it with an error
                while True:
                    connection, _ = server.accept()
                    with connection:
                        if reply:
                            connection.recv(1)
                            connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(path))
