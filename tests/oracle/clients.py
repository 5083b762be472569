"""Client processes that verify without pause and report each answer with its times."""

from __future__ import annotations

import random
import select
import struct
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from harness import wire
from harness.wait import scaled
from harness.wire import Raw

from .history import LONG_AGO, NS_PER_S
from .judge import Batch, Notice, now_ns

CONNECTIONS = 3  # of each client; the first one also requests syncs
_SYNC_MS = 2000
_SYNC_EVERY_NS = NS_PER_S // 2
# Clients send requests even while no reply comes, so that every moment is covered.
_PIPELINE_MAX = 24
_PATIENCE_NS = NS_PER_S // 10
_PAUSE_NS = NS_PER_S // 50  # leaves processor time to others, with two processors
_ANSWER_DEADLINE_S = 30.0
_REPORT_EVERY_NS = NS_PER_S // 50


def real_us() -> int:
    """The clock that decides expiry."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000


@dataclass
class _Asked:
    """A request under way; without keys, a sync."""

    id: int
    sent: int
    sent_real_us: int
    max_age_ms: int | None = None
    keys: Sequence[int] = ()


@dataclass
class _Line:
    """One connection and its requests under way."""

    raw: Raw
    asked: deque[_Asked] = field(default_factory=deque)
    last_sent: int = 0
    synced: int = LONG_AGO
    next_sync: int = 0


class Client:
    """The work of one process: `run` until the other end of `reports` is closed."""

    def __init__(
        self,
        socket: Path,
        texts: Sequence[bytes],
        sources: Sequence[str],
        seed: int,
        bound_ms: int,
        reports: Connection,
    ) -> None:
        self._socket = socket
        self._texts = texts
        self._by_source: dict[str, list[int]] = {}
        for index, source in enumerate(sources):
            self._by_source.setdefault(source, []).append(index)
        self._all = range(len(texts))
        self._dice = random.Random(seed)
        self._bound_ms = bound_ms
        self._pipe = reports
        self._reports: list[Batch | Notice] = []
        self._reported = now_ns()
        self._lines: list[_Line | None] = [None] * CONNECTIONS
        self._next_id = 1

    def run(self) -> None:
        """Send requests and report the answers."""
        while True:
            for i, line in enumerate(self._lines):
                try:
                    if line is None:
                        self._lines[i] = self._connect()
                    else:
                        self._send(line, may_sync=i == 0)
                except OSError:
                    self._lines[i] = None
            self._listen()
            if now_ns() - self._reported >= _REPORT_EVERY_NS and self._reports:
                self._pipe.send(self._reports)
                self._reports = []
                self._reported = now_ns()

    def _connect(self) -> _Line:
        line = _Line(Raw(self._socket, _ANSWER_DEADLINE_S))
        self._reports.append(Notice("connected"))
        return line

    # ---- requests

    def _send(self, line: _Line, *, may_sync: bool) -> None:
        pause = _PATIENCE_NS if line.asked else _PAUSE_NS
        if len(line.asked) >= _PIPELINE_MAX or now_ns() - line.last_sent < pause:
            return
        requests = []
        asked = []
        if may_sync and now_ns() >= line.next_sync:
            line.next_sync = now_ns() + _SYNC_EVERY_NS
            asked.append(_Asked(self._new_id(), 0, 0))
            body = _SYNC_MS.to_bytes(4, "little")
            requests.append(wire.frame(wire.SYNC, asked[-1].id, body))
        for _ in range(self._dice.choice([1, 1, 1, 3])):
            asked.append(_Asked(self._new_id(), 0, 0))
            requests.append(self._verify(asked[-1]))
        frames = b"".join(requests)
        sent, sent_real_us = now_ns(), real_us()
        for request in asked:
            request.sent, request.sent_real_us = sent, sent_real_us
        line.asked.extend(asked)
        line.last_sent = sent
        line.raw.send(frames)

    def _verify(self, asked: _Asked) -> bytes:
        dice = self._dice
        source = b""
        among: Sequence[int] = self._all
        if dice.random() < 0.3:
            name = dice.choice(list(self._by_source))
            source, among = name.encode(), self._by_source[name]
        asked.keys = array("H", dice.choices(among, k=dice.choice([1, 8, 24, 60])))
        if dice.random() < 0.2:
            asked.max_age_ms = dice.choice([50, 200, self._bound_ms, 3 * self._bound_ms])
        return wire.verify(
            [self._texts[index] for index in asked.keys],
            asked.id,
            flags=int(dice.random() < 0.2),
            source=source,
            max_age_ms=wire.MAX_AGE_ANY if asked.max_age_ms is None else asked.max_age_ms,
        )

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    # ---- replies

    def _listen(self) -> None:
        by_socket = {line.raw.socket: i for i, line in enumerate(self._lines) if line is not None}
        ready, _, _ = select.select(list(by_socket), [], [], 0.005)
        for socket in ready:
            i = by_socket[socket]
            line = self._lines[i]
            assert line is not None
            if not self._receive(line):
                socket.close()
                self._lines[i] = None
        limit = now_ns() - int(scaled(_ANSWER_DEADLINE_S) * NS_PER_S)
        for i, line in enumerate(self._lines):
            if line is not None and line.asked and line.asked[0].sent < limit:
                self._reports.append(Notice("no answer", f"for {_ANSWER_DEADLINE_S} s"))
                line.raw.socket.close()
                self._lines[i] = None

    def _receive(self, line: _Line) -> bool:
        """Receive one reply; False if the connection is unusable."""
        try:
            reply = line.raw.receive()
        except (AssertionError, OSError):
            return False  # the daemon was killed in the middle of a reply
        received, received_real_us = now_ns(), real_us()
        if reply is None or (reply.type == wire.ERROR and reply.error == "stopping"):
            return False
        if not line.asked or line.asked[0].id != reply.request_id:
            self._reports.append(Notice("wrong reply", f"type {reply.type}, {reply.request_id}"))
            return False
        asked = line.asked.popleft()
        if reply.type == wire.SYNCED and not asked.keys:
            line.synced = asked.sent
            self._reports.append(Notice("synced"))
        elif reply.type == wire.ERROR and not asked.keys and reply.error == "timed_out":
            self._reports.append(Notice("sync timed out"))
        elif reply.type == wire.VERIFIED and _count(reply.body) == len(asked.keys) > 0:
            self._reports.append(
                Batch(
                    asked.sent,
                    received,
                    asked.sent_real_us,
                    received_real_us,
                    asked.max_age_ms,
                    line.synced,
                    asked.keys,
                    reply.body,
                )
            )
        else:
            self._reports.append(Notice("wrong reply", f"type {reply.type}: {reply.body[:100]!r}"))
            return False
        return True


def _count(body: bytes) -> int:
    (count,) = struct.unpack_from("<H", body)
    return int(count)


def main(
    socket: Path,
    texts: Sequence[bytes],
    sources: Sequence[str],
    seed: int,
    bound_ms: int,
    reports: Connection,
) -> None:
    """The main function of a client process. It ends when its reports are no longer read."""
    try:
        Client(socket, texts, sources, seed, bound_ms, reports).run()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
