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
import fnmatch
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .folder import TemporaryFolder
from .proxy_facts import Counters, Direction, Facts, Notification, Rule, Where, everywhere
from .proxy_link import Link, Pipe
from .wait import scaled

T = TypeVar("T")

_REMEMBERED = 1000  # notifications, and ended connections
_ANSWER_S = 30.0


class ChaosProxy:
    """A proxy (see the module). `target` is the server's socket, `.s.PGSQL.<port>` in some folder."""

    def __init__(self, target: Path, *, tcp: bool = False) -> None:
        self._target = target
        self._folder = TemporaryFolder()
        self.folder = self._folder.path
        self._rules: list[Rule] = []
        self._links: dict[int, Link] = {}
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
        self._add(Rule("delay", where, direction, seconds))

    def throttle(
        self,
        bytes_per_second: float,
        direction: Direction = Direction.BOTH,
        where: Where = everywhere,
    ) -> None:
        """Limit each direction of each connection to this rate."""
        self._add(Rule("throttle", where, direction, bytes_per_second))

    def cut_after(
        self,
        n_bytes: int,
        direction: Direction = Direction.TO_CLIENT,
        where: Where = everywhere,
    ) -> None:
        """End a connection after this many bytes in this direction, counted from its beginning.

        A connection that is past this already ends at once. Over TCP, the client sees a reset.
        """
        self._add(Rule("cut", where, direction, n_bytes))

    def flip(
        self,
        offset: int,
        direction: Direction = Direction.TO_CLIENT,
        where: Where = everywhere,
    ) -> None:
        """Invert all bits of the byte at this offset of a connection."""
        self._add(Rule("flip", where, direction, offset))

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
        self._add(Rule("lose" if lose else "keep", where, direction))

    def swallow_notifications(
        self, count: int | None = None, *, channel: str = "*", where: Where = everywhere
    ) -> None:
        """Drop the next `count` notifications (None: all) on channels that match `channel`.

        `channel` is a pattern as in file names, e.g. "latchkey" or "latchkey_heartbeat_*".
        """
        self._add(Rule("swallow", where, channel=channel, left=count))

    def refuse(self) -> None:
        """Close new connections at once."""
        self._add(Rule("refuse", everywhere))

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

    def _add(self, rule: Rule) -> None:
        self._do(lambda: self._rules.append(rule))

    def _with(self, connection: int, task: Callable[[Link], None]) -> bool:
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
        link = Link(self, Facts(self._counters.accepted), client, server)
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

    def rule(self, kind: str, pipe: Pipe) -> Rule | None:
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

    def watch(self, opened: socket.socket, events: int, link: Link) -> None:
        """With no events to wait for, the socket is unregistered: a closed peer would wake the thread for ever."""
        known = opened in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(opened)
        elif not known:
            self._selector.register(opened, events, link)
        elif self._selector.get_key(opened).events != events:
            self._selector.modify(opened, events, link)

    def forget(self, link: Link) -> None:
        """Remove a connection that has ended."""
        del self._links[link.facts.number]
        self._ended.append(link.facts)

    @property
    def count(self) -> Counters:
        """The counters themselves, not a copy."""
        return self._counters
