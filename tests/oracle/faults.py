"""The faults of a run: every kind once, in an order that depends on the seed, then again."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from harness import child
from harness.postgres import PrivateCluster
from harness.cli import Cli
from harness.programs import Daemon
from harness.proxy import ChaosProxy, Direction
from harness.wait import until

from .judge import Judge, now_ns
from .shifter import Breaking

_RECOVERY_S = 30.0
_FOUND_S = 30.0  # until an audit has found the lost changes
_MAY_HOLD_ANOTHER = ("server", "link")
_SECOND = ["daemon stopped", "backends terminated"]
_OURS = "FROM pg_stat_activity WHERE application_name = 'latchkeyd' AND query <> ''"
# The listening connection notifies itself; the other one reads.
_LISTENER = "query ~ '(LISTEN|pg_notify)'"
_READER = "query !~ '(LISTEN|pg_notify)'"


class Faults:
    """Injects one fault after the other in the thread that calls `one`, and keeps a log."""

    def __init__(
        self,
        cluster: PrivateCluster,
        proxy: ChaosProxy,
        daemon: Daemon,
        cli: Cli,
        judge: Judge,
        bound_s: float,
        dice: random.Random,
        breaking: Breaking,
        only: list[str],
    ) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._daemon = daemon
        self._cli = cli
        self._judge = judge
        self._bound_s = bound_s
        self._dice = dice
        self._breaking = breaking
        self._stop = threading.Event()  # never set before the end: serves as an interruptible sleep
        self.kinds = only or list(KINDS)
        self._queue: list[str] = []
        self._second: str | None = None  # to inject during the present fault
        self.injected: Counter[str] = Counter()
        self.recovered: Counter[str] = Counter()
        self.log: list[str] = []

    def one(self) -> None:
        """Inject the next fault, undo it, and wait until every source is fresh again."""
        if not self._queue:
            self._queue = list(self.kinds)
            self._dice.shuffle(self._queue)
        kind = self._queue.pop()
        if kind.startswith(_MAY_HOLD_ANOTHER) and self._dice.random() < 0.3:
            self._second = self._dice.choice(_SECOND)
        self._say(f"{kind}: begins")
        try:
            KINDS[kind](self)
        finally:
            self._second = None
            self._heal()
        self.injected[kind] += 1
        ended = now_ns()
        self._say(f"{kind}: over")
        until(
            lambda: self._judge.fresh_since(ended) or self._judge.violations,
            _RECOVERY_S,
            f"fresh answers of every source after: {kind}",
        )
        self.recovered[kind] += 1
        self._say("fresh again")

    def calm(self, at_least: float, at_most: float) -> None:
        """Wait without a fault, but not past a violation."""
        end = time.monotonic() + self._dice.uniform(at_least, at_most)
        while (left := end - time.monotonic()) > 0 and not self._judge.violations:
            self._stop.wait(min(left, 0.1))

    def _bounds(self, at_least: float, at_most: float) -> None:
        """Keep the present fault for this many bounds; sometimes inject a second one."""
        second, self._second = self._second, None
        if second == "daemon stopped":
            self._say("the daemon is stopped, too")
            self._stop_daemon()
        elif second == "backends terminated" and self._cluster.running:
            self._say("backends are terminated, too")
            self._terminate()
        self.calm(at_least * self._bound_s, at_most * self._bound_s)

    def _say(self, text: str) -> None:
        self.log.append(f"{(now_ns() - self._judge.started) / 1e9:.6f} s  {text}")

    def _heal(self) -> None:
        self._proxy.heal()
        self._daemon.thaw()
        self._cluster.start()

    # ---- PostgreSQL

    def _terminate(self) -> None:
        which = self._dice.choice(["true", "true", _LISTENER, _READER])
        for _ in range(self._dice.choice([1, 1, 3])):
            self._sql(f"SELECT pg_terminate_backend(pid) {_OURS} AND {which}")
            self._bounds(0.0, 0.5)

    def _stop_server(self, how: str) -> None:
        if how == "kill9":
            self._cluster.kill9()
        else:
            self._cluster.stop(how)
        self._say("the server is down")
        self._bounds(0.0, 2.0)
        self._cluster.start()

    def _stop_backend(self, which: str) -> None:
        found = until(lambda: self._sql(f"SELECT pid {_OURS} AND {which}"), 10, "our backend")
        pids = [pid for (pid,) in found]
        try:
            for pid in pids:
                child.send(pid, signal.SIGSTOP)
            self._bounds(1.7, 2.5)
        finally:
            for pid in pids:
                child.send(pid, signal.SIGCONT)

    def _sql(self, text: str) -> list[tuple[int]]:
        with contextlib.closing(self._cluster.connect()) as conn, conn.cursor() as cursor:
            cursor.execute(text)
            return [(int(row[0]),) for row in cursor.fetchall()]

    # ---- latchkeyd

    def _stop_daemon(self) -> None:
        self._daemon.freeze()
        self._bounds(1.7, 2.7)
        self._daemon.thaw()

    def _restart_daemon(self) -> None:
        with self._breaking.held_off():
            self._daemon.restart()

    def _kill_daemon(self) -> None:
        self._daemon.kill()
        self._bounds(0.0, 0.5)
        with self._breaking.held_off():
            self._daemon.start().wait_ready()

    # ---- the network between them

    def _direction(self) -> Direction:
        return self._dice.choice([Direction.TO_CLIENT, Direction.TO_SERVER, Direction.BOTH])

    def _delay(self) -> None:
        self._proxy.delay(self._dice.uniform(0.05, 0.6) * self._bound_s, self._direction())
        self._bounds(1.5, 2.5)

    def _throttle(self) -> None:
        """All tables load so slowly that many changes commit meanwhile."""
        direction = self._dice.choice([Direction.TO_CLIENT, Direction.BOTH])
        self._proxy.throttle(self._dice.uniform(15_000, 60_000), direction)
        self._proxy.cut()
        self._bounds(2.0, 3.5)

    def _cut(self) -> None:
        """New connections end after some bytes: in the greeting, in a load, or a bit later."""
        self._proxy.cut()
        for _ in range(3):
            self._proxy.heal()
            where = int(10 ** self._dice.uniform(0, 5.3))
            self._proxy.cut_after(where, self._direction())
            self._bounds(0.2, 0.6)

    def _blackhole(self, direction: Direction) -> None:
        lose = self._dice.random() < 0.5
        self._proxy.blackhole(direction, lose=lose)
        self._bounds(1.7, 2.7)
        if lose:
            # A connection that has lost bytes would stay silent for ever. Closing it saves the time
            # until the daemon gives it up.
            self._proxy.heal()
            self._proxy.cut()

    def _swallow(self) -> None:
        """Notifications get lost unnoticed: until an audit finds the changes, old answers are legal."""
        before = now_ns()
        with self._breaking.held_off():
            self._cli.sync("30s")
        # Everything committed before the sync is in force, so it cannot be lost.
        self._judge.begin_loss(before)
        swallowed = self._proxy.counters.notifications_swallowed
        self._proxy.swallow_notifications(channel="latchkey")
        self._bounds(0.3, 0.8)
        until(
            lambda: self._proxy.counters.notifications_swallowed > swallowed,
            10,
            "a notification has been swallowed",
        )
        self._proxy.heal()
        self._say("no more is swallowed")
        # The first audit to end may have begun before now, and a reload follows an audit that finds
        # a lost change: the fourth comes after all of these.
        for _ in range(4):
            known = self._reads()
            until(
                lambda: all(now > then for now, then in zip(self._reads(), known)),
                _FOUND_S,
                "each source is audited",
            )
        self._judge.end_loss()

    def _reads(self) -> list[int]:
        """The number of complete comparisons of each source with its table."""
        sources = self._cli.status()["sources"]
        return [source["loads"] + source.get("audits", 0) for source in sources]



KINDS: dict[str, Callable[[Faults], None]] = {
    "backends terminated": Faults._terminate,
    "server stopped fast": lambda faults: faults._stop_server("fast"),
    "server stopped immediate": lambda faults: faults._stop_server("immediate"),
    "server killed": lambda faults: faults._stop_server("kill9"),
    "listener stopped": lambda faults: faults._stop_backend(_LISTENER),
    "reader stopped": lambda faults: faults._stop_backend(_READER),
    "daemon stopped": Faults._stop_daemon,
    "daemon restarted": Faults._restart_daemon,
    "daemon killed": Faults._kill_daemon,
    "link delayed": Faults._delay,
    "link throttled": Faults._throttle,
    "link cut": Faults._cut,
    "link mute to daemon": lambda faults: faults._blackhole(Direction.TO_CLIENT),
    "link mute to server": lambda faults: faults._blackhole(Direction.TO_SERVER),
    "notifications swallowed": Faults._swallow,
}
