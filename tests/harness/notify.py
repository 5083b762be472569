"""The service manager's end of sd_notify(3)."""

from __future__ import annotations

import socket
import threading
from pathlib import Path


class NotifySocket:
    """Collects the assignments sent by a service, e.g. "READY=1", "STATUS=…".

    A separate thread reads them, because the kernel queues only a few datagrams: a service that
    reports often would block, which it never does under a real service manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o666)  # the service may run as another user
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, name="sd_notify", daemon=True)
        self._thread.start()

    @property
    def lines(self) -> list[str]:
        """Every assignment received so far, oldest first."""
        return list(self._lines)

    def close(self) -> None:
        """Stop listening. May be called twice."""
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader
            self._thread.join()
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        while datagram := self._socket.recv(65536):
            self._lines.extend(datagram.decode(errors="replace").splitlines())
