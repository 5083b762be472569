"""A worker that owns all rows of a small table, and also changes its definition."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import psycopg2.errors
from harness.postgres import PrivateCluster
from harness.wait import until
from psycopg2.extensions import cursor as Cursor

from .history import Version
from .judge import Judge
from .shifting import Shifting
from .tables import Key
from .workers import RECONNECT_S, Worker

_SHIFTER_PAUSE_S = (0.05, 0.25)  # each of its transactions reads the table

# The pause between two changes of a table's definition is often longer than the bound, so that one
# does not mask a change that the daemon missed. A table with many kinds has less time for each.
_SHIFT_PAUSE_S = (0.4, 4.0)
_SHORTER_PAUSE_S = (0.3, 2.2)
_MANY_KINDS = 10
_BROKEN_S = (1.3, 2.2)
_WHOLE_S = (3.0, 6.0)


class Breaking:
    """Which table is unreadable, if any.

    An unreadable table makes every sync fail and keeps a daemon from starting. So at most one is broken at a
    time, with a pause before the next one, and none while `held_off` is active.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._broken = False
        self._held = 0
        self._next = 0.0

    def begin(self) -> bool:
        """Whether the caller may break its table now. If so, it must call `end`."""
        with self._lock:
            if self._broken or self._held or time.monotonic() < self._next:
                return False
            self._broken = True
            return True

    def end(self, pause_s: float) -> None:
        """The table is readable again."""
        with self._lock:
            self._broken = False
            self._next = time.monotonic() + pause_s

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Within the block, every table is readable."""
        with self._lock:
            self._held += 1
        try:
            until(lambda: not self._broken, RECONNECT_S, "every table can be read")
            yield
        finally:
            with self._lock:
                self._held -= 1


class Shifter(Worker):
    """Changes rows, settings and the definition of its own table."""

    _table: Shifting
    _pause_s = _SHIFTER_PAUSE_S

    def __init__(
        self,
        number: int,
        table: Shifting,
        judge: Judge,
        cluster: PrivateCluster,
        dbname: str,
        seed: int,
        breaking: Breaking,
        log: Callable[[str], None],
        only: Iterable[str] = (),
    ) -> None:
        super().__init__(number, table, table.keys, judge, cluster, dbname, seed)
        self.kinds = [kind for kind in table.kinds if not only or kind in only]
        self._queue: list[str] = []
        self._shift_pause_s = _SHORTER_PAUSE_S if len(self.kinds) > _MANY_KINDS else _SHIFT_PAUSE_S
        self._next_shift = 0.0
        self._broken = False
        self._breaking = breaking
        self._log = log

    def fill(self) -> None:
        for _ in range(20):
            self._write()

    def _step(self) -> None:
        if time.monotonic() < self._next_shift:
            self._write()
        elif self._broken:
            self._mend()
        else:
            self._shift()

    def _write(self) -> bool:
        return self._do(lambda cursor: self._table.write(cursor, self._dice))

    def _shift(self) -> None:
        """Start the next kind: each once, in an order that depends on the seed, then again."""
        self._next_shift = time.monotonic() + self._dice.uniform(*self._shift_pause_s)
        if not self._queue:
            self._queue = self._dice.sample(self.kinds, len(self.kinds))
        if not self._queue:
            return
        kind = self._table.kinds[self._queue[-1]]
        if kind.breaks and not self._breaking.begin():
            self._queue.insert(0, self._queue.pop())
            return
        done = False

        def shift(cursor: Cursor) -> None:
            nonlocal done
            done = kind.do(self._table, cursor, self._dice)

        happened = self._do(shift)
        if kind.breaks and not happened:
            self._breaking.end(0)
        if not happened:
            return  # the kind is tried again
        name = self._queue.pop()
        self.counts.kinds[name] += done
        self._log(f"{self._table.source}: {name}")
        if kind.breaks:
            self._broken = True
            self._next_shift = time.monotonic() + self._dice.uniform(*_BROKEN_S)

    def _mend(self) -> None:
        if self._do(self._table.mend):
            self._log(f"{self._table.source}: mended")
            self._broken = False
            self._breaking.end(self._dice.uniform(*_WHOLE_S))
            self._next_shift = time.monotonic() + self._dice.uniform(*self._shift_pause_s)

    def _do(self, statements: Callable[[Cursor], object]) -> bool:
        def change(cursor: Cursor) -> dict[Key, Version]:
            # A reader may hold the table's lock for as long as the network takes.
            cursor.execute("SET LOCAL lock_timeout = '1s'")
            try:
                statements(cursor)
            except psycopg2.Error as error:
                if "latchkey." in (error.diag.context or ""):
                    self._judge.failed(f"a statement of the application's failed in our trigger: {error}")
                raise
            truth = self._table.read(cursor)
            return {key: version for key, version in truth.items() if version != self._now[key]}

        return self._transact(change)
