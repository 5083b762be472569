"""One connection through the proxy: two sockets, two pipes, and the messages of the protocol in them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .proxy_facts import Direction, Facts, Notification

if TYPE_CHECKING:
    from .proxy import ChaosProxy

_READ_BYTES = 65_536
_QUEUE_BYTES = 262_144  # for each direction of a connection; beyond it, the proxy stops reading
_WHOLE_BYTES = 65_536  # a longer message is never held back
_STATEMENTS = 50  # for each connection
_STATEMENT_CHARACTERS = 800  # enough for a LISTEN that follows the settings
_THROTTLE_SLICE_S = 0.02
_SAME_MOMENT_S = 0.001

_STARTUP, _CANCEL, _SSL, _GSS = 196_608, 80_877_102, 80_877_103, 80_877_104
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class _Piece(NamedTuple):
    type: str  # "" if it has no type: a startup packet, or encrypted bytes
    data: bytes
    last: bool  # whether the message ends here


class _Frames:
    """Cuts one direction into messages; only some kinds are held back until they are complete."""

    def __init__(self, whole: str, *, typed: bool) -> None:
        self._whole = whole
        self.typed = typed
        self.opaque = False
        self.one_byte = False  # the next byte answers a request for encryption
        self._held = bytearray()
        self._left = 0  # remaining bytes of the present message
        self._type = ""
        self._gather = False

    def feed(self, data: bytes) -> Iterator[_Piece]:
        self._held += data
        while self._held:
            if self.opaque or self.one_byte:
                size = 1 if self.one_byte else len(self._held)
                yield _Piece("", self._take(size), True)
                continue
            if not self._left and not self._begin():
                return
            if self._gather and len(self._held) < self._left:
                return
            piece = self._take(self._left)
            self._left -= len(piece)
            yield _Piece(self._type, piece, not self._left)

    def _begin(self) -> bool:
        header = 5 if self.typed else 4
        if len(self._held) < header:
            return False
        length = int.from_bytes(self._held[header - 4 : header], "big")
        self._type = chr(self._held[0]) if self.typed else ""
        self._left = max(4, length) + header - 4
        wanted = not self.typed or self._type in self._whole
        self._gather = wanted and self._left <= _WHOLE_BYTES
        return True

    def _take(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


class Pipe:
    """One direction of one connection: bytes received and not yet forwarded."""

    def __init__(self, link: Link, direction: Direction, sink: socket.socket) -> None:
        to_server = direction is Direction.TO_SERVER
        self.link = link
        self.direction = direction
        self.sink = sink
        self.frames = _Frames("QP" if to_server else "A", typed=not to_server)
        self.between = True  # whether the last byte received ended a message
        self.blocked = False  # whether the sink accepts no more at the moment
        self.ended = False  # whether the source has closed
        self.passed_end = False
        self.passed = 0
        self.taken = 0  # forwarded or still queued
        self._queue: deque[tuple[float, bytearray]] = deque()
        self._queued = 0
        self._free_at = 0.0
        self._lossy = False

    @property
    def has_room(self) -> bool:
        return not self.ended and self._queued < _QUEUE_BYTES

    def put(self, data: bytes) -> None:
        now = time.monotonic()
        last = self._queue[-1] if self._queue else None
        if last is not None and now - last[0] < _SAME_MOMENT_S and len(last[1]) < _READ_BYTES:
            last[1].extend(data)  # one system call per row would be slow
        else:
            self._queue.append((now, bytearray(data)))
        self._queued += len(data)
        self.taken += len(data)

    def pump(self, now: float) -> float | None:
        """Forward bytes that are due; returns the time of the next step, if it depends on time."""
        proxy = self.link.proxy
        self.blocked = False
        while not self._holds_back() and self.link.facts.open:
            cut = proxy.rule("cut", self)
            if cut is not None and self.passed >= cut.value:
                proxy.count.cut += 1
                self.link.end(reset=True)
                return None
            if not self._queue:
                self._pass_end()
                return None
            delay, throttle = proxy.rule("delay", self), proxy.rule("throttle", self)
            arrived, data = self._queue[0]
            due, limit = arrived + (delay.value if delay else 0.0), len(data)
            if throttle is not None:
                due = max(due, self._free_at)
                limit = min(limit, max(1, int(throttle.value * _THROTTLE_SLICE_S)))
            if due > now:
                return due
            if cut is not None:
                limit = min(limit, int(cut.value) - self.passed)
            part, flipped = self._flipped(bytes(data[:limit]))
            try:
                sent = self.sink.send(part)
            except BlockingIOError:
                self.blocked = True
                return None
            except OSError:
                self.link.end()
                return None
            self._sent(sent)
            proxy.count.flipped += 0 <= flipped < sent
            if throttle is not None:
                self._free_at = now + sent / throttle.value
        return None

    def _holds_back(self) -> bool:
        proxy = self.link.proxy
        if self._lossy or proxy.rule("lose", self):
            self._lossy = self._lossy or self._queued > 0
            proxy.count.bytes_swallowed += self._queued
            self._queue.clear()
            self._queued = 0
            return True
        return proxy.rule("keep", self) is not None

    def _flipped(self, data: bytes) -> tuple[bytes, int]:
        """The data with the byte to flip inverted, and its position."""
        flip = self.link.proxy.rule("flip", self)
        at = -1 if flip is None else int(flip.value) - self.passed
        if not 0 <= at < len(data):
            return data, -1
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :], at

    def _sent(self, count: int) -> None:
        data = self._queue[0][1]
        if count < len(data):
            del data[:count]
        else:
            self._queue.popleft()
        self._queued -= count
        self.passed += count

    def _pass_end(self) -> None:
        if self.ended and not self.passed_end:
            self.passed_end = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Link:
    """One connection: two sockets, two pipes, and the queue of expected answers."""

    def __init__(
        self, proxy: ChaosProxy, facts: Facts, client: socket.socket, server: socket.socket
    ) -> None:
        self.proxy = proxy
        self.facts = facts
        self._client = client
        self._server = server
        self._to_client = Pipe(self, Direction.TO_CLIENT, client)
        self._to_server = Pipe(self, Direction.TO_SERVER, server)
        # One entry per expected ReadyForQuery: whether it answers an injected statement.
        self._turns: deque[bool] = deque([False])  # the first one ends the startup
        self._unsaid: list[str] = []
        self._uninjected: list[bytes] = []
        self._series = True  # whether the client is inside a series of messages
        self._watch()

    def ready(self, opened: socket.socket, events: int) -> None:
        """The selector reports events on a socket."""
        if not events & selectors.EVENT_READ:
            return  # the next pump writes
        pipe = self._to_server if opened is self._client else self._to_client
        try:
            data = opened.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.end()
            return
        if not data:
            pipe.ended = True
        take = self._from_client if pipe is self._to_server else self._from_server
        for piece in pipe.frames.feed(data):
            if take(piece):
                pipe.put(piece.data)
                pipe.between = piece.last
                if piece.last:
                    self._between()

    def pump(self, now: float) -> float | None:
        """Forward all that can be forwarded; returns the time of the next step, if it depends on time."""
        times = [pipe.pump(now) for pipe in (self._to_client, self._to_server) if self.facts.open]
        if not self.facts.open:
            return None
        self.facts.to_client, self.facts.to_server = self._to_client.passed, self._to_server.passed
        if self._to_client.passed_end and self._to_server.passed_end:
            self.end()
            return None
        self._watch()
        return min((at for at in times if at is not None), default=None)

    def end(self, *, reset: bool = False) -> None:
        """Close both sides."""
        if not self.facts.open:
            return
        self.facts.open = False
        self.facts.to_client, self.facts.to_server = self._to_client.passed, self._to_server.passed
        if reset and self._client.family != socket.AF_UNIX:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for opened in (self._client, self._server):
            self.proxy.watch(opened, 0, self)
            opened.close()
        self.proxy.forget(self)

    def inject(self, notification: Notification) -> None:
        """Insert a notification before the server's next message."""
        self.proxy.count.notifications_injected += 1
        texts = [text.encode() + b"\0" for text in (notification.channel, notification.payload)]
        body = struct.pack("!i", 1) + b"".join(texts)
        self._uninjected.append(b"A" + struct.pack("!i", len(body) + 4) + body)
        self._between()

    def say(self, sql: str) -> None:
        """Insert a statement before the client's next one."""
        self.proxy.count.statements_injected += 1
        self._unsaid.append(sql)
        self._between()

    def _between(self) -> None:
        if self._to_client.between:
            for message in self._uninjected:
                self._to_client.put(message)
            self._uninjected.clear()
        if self._to_server.between and not self._series:
            for sql in self._unsaid:
                body = sql.encode() + b"\0"
                self._to_server.put(b"Q" + struct.pack("!i", len(body) + 4) + body)
                self._turns.append(True)
            self._unsaid.clear()

    def _from_client(self, piece: _Piece) -> bool:
        if piece.type == "":
            self._from_stranger(piece)
        elif piece.type in "QP":
            text = piece.data[5:] if piece.type == "Q" else piece.data[5:].partition(b"\0")[2]
            statement = text.partition(b"\0")[0].decode(errors="replace")
            self.facts.statements.append(statement[:_STATEMENT_CHARACTERS])
            del self.facts.statements[:-_STATEMENTS]
        if piece.last and piece.type in ("Q", "S"):
            self._turns.append(False)
            self._series = False
        elif piece.type:
            self._series = True
        return True

    def _from_stranger(self, piece: _Piece) -> None:
        """A startup packet, or encrypted bytes."""
        code = int.from_bytes(piece.data[4:8], "big")
        if code == _STARTUP:
            self._to_server.frames.typed = True
        elif code in (_SSL, _GSS):
            self._to_client.frames.one_byte = True

    def _from_server(self, piece: _Piece) -> bool:
        frames = self._to_client.frames
        if piece.type == "":
            if frames.one_byte and piece.data != b"N":  # both sides agree on encryption
                frames.opaque = self._to_server.frames.opaque = True
            frames.one_byte = False
            return True
        if piece.type == "A" and piece.last and len(piece.data) > 9:
            channel, payload = (
                text.decode(errors="replace") for text in piece.data[9:].split(b"\0")[:2]
            )
            return self.proxy.hear(Notification(self.facts.number, channel, payload), self.facts)
        if piece.type == "H":
            self.facts.copy_begins, self.facts.copy_ends = self._to_client.taken, 0
        elif piece.type == "c":
            self.facts.copy_ends = self._to_client.taken + len(piece.data)
        ours = bool(self._turns) and self._turns[0]
        if piece.type == "Z" and piece.last:
            if self._turns:
                self._turns.popleft()
            if ours:
                self.proxy.count.injected_answered += 1
            if not self._turns:
                self._series = False
        return not ours or piece.type in "ANS"

    def _watch(self) -> None:
        for opened, source, sink in (
            (self._client, self._to_server, self._to_client),
            (self._server, self._to_client, self._to_server),
        ):
            events = selectors.EVENT_READ if source.has_room else 0
            events |= selectors.EVENT_WRITE if sink.blocked else 0
            self.proxy.watch(opened, events, self)
