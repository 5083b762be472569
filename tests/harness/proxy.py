"""A proxy between a program and PostgreSQL that injects network faults for tests.

`with ChaosProxy(target) as proxy:` listens on a Unix socket that libpq finds in `proxy.folder`
(`host=`), optionally on 127.0.0.1 too, and forwards every connection to `target`. It follows the
protocol (PostgreSQL manual, "Message Formats"), so it can lose, forge and repeat single
notifications, speak in the client's name, and tell the connections apart.

Methods switch faults on, from any thread, at any time; they apply to present and new connections
until `heal()`. When a method returns, its fault is in force. One thread owns all state; queues are
bounded; nothing is random.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import fnmatch
import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from .folder import TemporaryFolder
from .wait import scaled

T = TypeVar("T")

_READ_BYTES = 65_536
_QUEUE_BYTES = 262_144  # for each direction of a connection; beyond it, the proxy stops reading
_WHOLE_BYTES = 65_536  # a longer message is never held back
_REMEMBERED = 1000  # notifications, and ended connections
_STATEMENTS = 50  # for each connection
_STATEMENT_CHARACTERS = 800  # enough for a LISTEN that follows the settings
_THROTTLE_SLICE_S = 0.02
_SAME_MOMENT_S = 0.001
_ANSWER_S = 30.0

_STARTUP, _CANCEL, _SSL, _GSS = 196_608, 80_877_102, 80_877_103, 80_877_104
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class Direction(enum.Flag):
    """The direction of bytes."""

    TO_CLIENT = 1
    TO_SERVER = 2
    BOTH = 3


class Notification(NamedTuple):
    """A notification from the server, forwarded or not."""

    connection: int
    channel: str
    payload: str


@dataclass
class Facts:
    """The state of one connection."""

    number: int  # from 1, in the order of arrival
    open: bool = True
    to_client: int = 0  # bytes forwarded
    to_server: int = 0
    statements: list[str] = field(default_factory=list)  # the last ones, truncated
    # The last COPY ... TO STDOUT: the server's bytes before it, and including its end (0: not yet).
    copy_begins: int = 0
    copy_ends: int = 0

    @property
    def listens(self) -> bool:
        """Whether the connection has sent a LISTEN."""
        return any("LISTEN " in statement for statement in self.statements)

    @property
    def loads(self) -> bool:
        """Whether the connection has sent a COPY."""
        return any("COPY (" in statement for statement in self.statements)


@dataclass
class Counters:
    """Counters of the proxy's actions."""

    accepted: int = 0
    refused: int = 0  # by `refuse`
    unreachable: int = 0  # the server did not accept a connection
    cut: int = 0  # by `cut` and `cut_after`
    flipped: int = 0  # bytes
    bytes_swallowed: int = 0
    notifications: int = 0  # from the server
    notifications_swallowed: int = 0
    notifications_injected: int = 0
    statements_injected: int = 0
    injected_answered: int = 0  # injected statements that the server has finished


Where = Callable[[Facts], bool]


def everywhere(_: Facts) -> bool:
    """Every connection."""
    return True


@dataclass
class _Rule:
    kind: str
    where: Where
    direction: Direction = Direction.BOTH
    value: float = 0.0
    channel: str = "*"
    left: int | None = None


class ChaosProxy:
    """A proxy (see the module). `target` is the server's socket, `.s.PGSQL.<port>` in some folder."""

    def __init__(self, target: Path, *, tcp: bool = False) -> None:
        self._target = target
        self._folder = TemporaryFolder()
        self.folder = self._folder.path
        self._rules: list[_Rule] = []
        self._links: dict[int, _Link] = {}
        self._ended: deque[Facts] = deque(maxlen=_REMEMBERED)
        self._heard: deque[Notification] = deque(maxlen=_REMEMBERED)
        self._counters = Counters()
        self._selector = selectors.DefaultSelector()
        self._tasks: deque[Callable[[], None]] = deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._wake_read.setblocking(False)
        self._listeners = [self._listen_unix(self.folder / target.name)]
        self.tcp_port = 0
        if tcp:
            listener = socket.create_server(("127.0.0.1", 0))
            self.tcp_port = listener.getsockname()[1]
            self._listeners.append(listener)
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, None)
        self._stopping = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="chaos proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> ChaosProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close()
        if kind is None and self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End every connection, and stop listening. May be called twice."""
        if self._thread.is_alive():
            with contextlib.suppress(AssertionError):
                self._do(self._stop)
            self._thread.join(scaled(_ANSWER_S))
        for opened in [*self._listeners, self._wake_read, self._wake_write]:
            opened.close()
        self._selector.close()
        self._folder.close()

    # ---- faults

    def delay(
        self, seconds: float, direction: Direction = Direction.BOTH, where: Where = everywhere
    ) -> None:
        """Forward every byte this much later."""
        self._add(_Rule("delay", where, direction, seconds))

    def throttle(
        self,
        bytes_per_second: float,
        direction: Direction = Direction.BOTH,
        where: Where = everywhere,
    ) -> None:
        """Limit each direction of each connection to this rate."""
        self._add(_Rule("throttle", where, direction, bytes_per_second))

    def cut_after(
        self,
        n_bytes: int,
        direction: Direction = Direction.TO_CLIENT,
        where: Where = everywhere,
    ) -> None:
        """End a connection after this many bytes in this direction, counted from its beginning.

        A connection that is past this already ends at once. Over TCP, the client sees a reset.
        """
        self._add(_Rule("cut", where, direction, n_bytes))

    def flip(
        self,
        offset: int,
        direction: Direction = Direction.TO_CLIENT,
        where: Where = everywhere,
    ) -> None:
        """Invert all bits of the byte at this offset of a connection."""
        self._add(_Rule("flip", where, direction, offset))

    def blackhole(
        self,
        direction: Direction = Direction.BOTH,
        where: Where = everywhere,
        *,
        lose: bool = False,
    ) -> None:
        """Forward nothing in this direction, not even the end; the connections stay open.

        The proxy keeps the bytes and forwards them after `heal`, as TCP would. With `lose` it
        discards them; a connection that has lost bytes is unusable, and stays a black hole.
        """
        self._add(_Rule("lose" if lose else "keep", where, direction))

    def swallow_notifications(
        self, count: int | None = None, *, channel: str = "*", where: Where = everywhere
    ) -> None:
        """Drop the next `count` notifications (None: all) on channels that match `channel`.

        `channel` is a pattern as in file names, e.g. "latchkey" or "latchkey_heartbeat_*".
        """
        self._add(_Rule("swallow", where, channel=channel, left=count))

    def refuse(self) -> None:
        """Close new connections at once."""
        self._add(_Rule("refuse", everywhere))

    def retarget(self, target: Path) -> None:
        """Forward new connections to another server."""

        def change() -> None:
            self._target = target

        self._do(change)

    def cut(self, where: Where = everywhere) -> int:
        """End present connections now; returns their number."""
        return self._do(lambda: self._cut(where))

    def inject(self, notification: Notification) -> bool:
        """Send this notification to the client of its connection. False if that has ended."""
        return self._with(notification.connection, lambda link: link.inject(notification))

    def say(self, connection: int, sql: str) -> bool:
        """Run a statement in the client's name, between two of its own; the client gets no answer.

        False if the connection has ended. Does not wait for the server; see
        counters.injected_answered.
        """
        return self._with(connection, lambda link: link.say(sql))

    def heal(self) -> None:
        """End all faults. Lost bytes stay lost."""
        self._do(self._rules.clear)

    # ---- observations

    @property
    def counters(self) -> Counters:
        """The counters so far."""
        return self._do(lambda: copy.copy(self._counters))

    @property
    def connections(self) -> list[Facts]:
        """The open connections, oldest first."""
        return self._do(lambda: [copy.deepcopy(link.facts) for link in self._links.values()])

    @property
    def ended(self) -> list[Facts]:
        """The last ended connections, in the order of their end."""
        return self._do(lambda: copy.deepcopy(list(self._ended)))

    @property
    def notifications(self) -> list[Notification]:
        """The last notifications from the server, oldest first."""
        return self._do(lambda: list(self._heard))

    # ---- the caller's thread

    def _add(self, rule: _Rule) -> None:
        self._do(lambda: self._rules.append(rule))

    def _with(self, connection: int, task: Callable[[_Link], None]) -> bool:
        def run() -> bool:
            link = self._links.get(connection)
            if link is not None:
                task(link)
            return link is not None

        return self._do(run)

    def _do(self, task: Callable[[], T]) -> T:
        """Run a task in the proxy's thread; returns its result."""
        done, results, errors = threading.Event(), [], []

        def run() -> None:
            try:
                results.append(task())
            except Exception as error:
                errors.append(error)
            done.set()

        self._tasks.append(run)
        with contextlib.suppress(OSError):
            self._wake_write.send(b"x")
        if not done.wait(scaled(_ANSWER_S) if self._thread.is_alive() else 0):
            raise AssertionError(f"the proxy does not run any more: {self._failure!r}")
        if errors:
            raise errors[0]
        return results[0]

    # ---- the proxy's thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._step(self._pump_all())
        except Exception as error:  # raised in the next caller
            self._failure = error
        finally:
            self._cut(everywhere)

    def _step(self, wake_at: float | None) -> None:
        timeout = None if wake_at is None else max(0.0, wake_at - time.monotonic())
        for key, events in self._selector.select(timeout):
            if key.fileobj is self._wake_read:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
            elif key.data is None:
                self._accept(key.fileobj)  # type: ignore[arg-type]
            elif key.data.facts.open:
                key.data.ready(key.fileobj, events)
        while self._tasks:
            self._tasks.popleft()()

    def _pump_all(self) -> float | None:
        """Forward all that can be forwarded; returns the time of the next step, if it depends on time."""
        now = time.monotonic()
        times = [link.pump(now) for link in list(self._links.values())]
        return min((at for at in times if at is not None), default=None)

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        self._counters.accepted += 1
        if any(rule.kind == "refuse" for rule in self._rules):
            self._counters.refused += 1
            client.close()
            return
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.setblocking(False)
        try:
            server.connect(str(self._target))
        except OSError:
            self._counters.unreachable += 1
            client.close()
            server.close()
            return
        client.setblocking(False)
        link = _Link(self, Facts(self._counters.accepted), client, server)
        self._links[link.facts.number] = link

    def _cut(self, where: Where) -> int:
        victims = [link for link in self._links.values() if where(link.facts)]
        for link in victims:
            self._counters.cut += 1
            link.end(reset=True)
        return len(victims)

    def _stop(self) -> None:
        self._stopping = True

    @staticmethod
    def _listen_unix(path: Path) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        os.chmod(path, 0o777)  # the client may run as another user
        listener.listen(64)
        return listener

    # ---- for the links

    def rule(self, kind: str, pipe: _Pipe) -> _Rule | None:
        """The latest rule of this kind for this direction of this connection."""
        for rule in reversed(self._rules):
            if rule.kind == kind and rule.direction & pipe.direction:
                if rule.where(pipe.link.facts):
                    return rule
        return None

    def hear(self, notification: Notification, facts: Facts) -> bool:
        """Record a notification; returns whether to forward it."""
        self._counters.notifications += 1
        self._heard.append(notification)
        for rule in self._rules:
            if rule.kind != "swallow" or rule.left == 0 or not rule.where(facts):
                continue
            if fnmatch.fnmatchcase(notification.channel, rule.channel):
                if rule.left is not None:
                    rule.left -= 1
                self._counters.notifications_swallowed += 1
                return False
        return True

    def watch(self, opened: socket.socket, events: int, link: _Link) -> None:
        """With no events to wait for, the socket is unregistered: a closed peer would wake the thread for ever."""
        known = opened in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(opened)
        elif not known:
            self._selector.register(opened, events, link)
        elif self._selector.get_key(opened).events != events:
            self._selector.modify(opened, events, link)

    def forget(self, link: _Link) -> None:
        """Remove a connection that has ended."""
        del self._links[link.facts.number]
        self._ended.append(link.facts)

    @property
    def count(self) -> Counters:
        """The counters themselves, not a copy."""
        return self._counters


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


class _Pipe:
    """One direction of one connection: bytes received and not yet forwarded."""

    def __init__(self, link: _Link, direction: Direction, sink: socket.socket) -> None:
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


class _Link:
    """One connection: two sockets, two pipes, and the queue of expected answers."""

    def __init__(
        self, proxy: ChaosProxy, facts: Facts, client: socket.socket, server: socket.socket
    ) -> None:
        self.proxy = proxy
        self.facts = facts
        self._client = client
        self._server = server
        self._to_client = _Pipe(self, Direction.TO_CLIENT, client)
        self._to_server = _Pipe(self, Direction.TO_SERVER, server)
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
