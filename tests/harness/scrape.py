"""Reads /metrics, /livez and /readyz as a monitoring system does."""

from __future__ import annotations

import http.client
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from .wait import scaled

_SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Response:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: str


class UnixHttp(http.client.HTTPConnection):
    """HTTP over a Unix socket. Every wait has a deadline."""

    def __init__(self, path: Path, deadline_s: float = 15.0) -> None:
        super().__init__("localhost", timeout=scaled(deadline_s))
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def ask(self, target: str, method: str = "GET") -> Response:
        """One exchange; the connection may be used again."""
        self.request(method, target)
        reply = self.getresponse()
        return Response(reply.status, dict(reply.getheaders()), reply.read().decode())


def get(path: Path, target: str) -> Response:
    """One exchange on a new connection."""
    connection = UnixHttp(path)
    try:
        return connection.ask(target)
    finally:
        connection.close()


def _full(name: str) -> str:
    return name if name.startswith("process_") else "latchkey_" + name


class Samples:
    """A parsed scrape."""

    def __init__(self, text: str) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = _SAMPLE.match(line)
            assert match, f"not a sample: {line!r}"
            key = (match["name"], frozenset(_LABEL.findall(match["labels"] or "")))
            assert key not in self.values, f"told twice: {line!r}"
            self.values[key] = float(match["value"])

    def get(self, name: str, **labels: str) -> float:
        """The value of exactly this series. `name` lacks the metrics' common prefix."""
        return self.values[_full(name), frozenset(labels.items())]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series with at least these labels."""
        wanted = set(labels.items())
        return sum(
            value
            for (found, told), value in self.values.items()
            if found == _full(name) and wanted <= told
        )


def scrape(path: Path) -> Samples:
    """All metrics of the daemon at this moment."""
    response = get(path, "/metrics")
    assert response.status == 200, response
    return Samples(response.body)
