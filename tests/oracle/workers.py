"""The workers change keys: each thread owns some keys of one table, which no other thread touches.

A Changer changes rows. A Shifter owns all rows of a small table, and also changes its definition.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import psycopg2
import psycopg2.errors
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import changed_for_a_while
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from .history import ABSENT, UNKNOWN, Version
from .judge import Judge
from .shifting import Shifting
from .tables import Key, Source, Table

# A stopped server is started again after seconds; a busy machine takes longer.
_RECONNECT_S = 60.0
_CHANGER_PAUSE_S = (0.01, 0.1)
_SHIFTER_PAUSE_S = (0.05, 0.25)  # each of its transactions reads the table
# PostgreSQL's message for COMMIT: a query.
_COMMIT = b"Q" + (4 + len(b"COMMIT\0")).to_bytes(4, "big") + b"COMMIT\0"
# Session settings that change the text of values.
_SETTINGS = (
    "bytea_output = escape",
    "DateStyle = German",
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'Postgres, MDY'",
    "IntervalStyle = sql_standard",
    "IntervalStyle = iso_8601",
    "IntervalStyle = postgres_verbose",
    "TimeZone = 'Asia/Kathmandu'",
    "TimeZone = 'America/St_Johns'",
    "extra_float_digits = -15",
    "extra_float_digits = 3",
    "quote_all_identifiers = on",
)
# The pause between two changes of a table's definition is often longer than the bound, so that one
# does not mask a change that the daemon missed. A table with many kinds has less time for each.
_SHIFT_PAUSE_S = (0.4, 4.0)
_SHORTER_PAUSE_S = (0.3, 2.2)
_MANY_KINDS = 10
_BROKEN_S = (1.3, 2.2)
_WHOLE_S = (3.0, 6.0)


@dataclass
class Counts:
    """Counters of the workers."""

    commits: int = 0
    rollbacks: int = 0
    changes: int = 0
    unknown: int = 0  # commits without an outcome reported by the connection
    settings: int = 0  # transactions in a session with odd settings
    locked: int = 0  # transactions given up because a lock was not available
    kinds: Counter[str] = field(default_factory=Counter)  # changes of a table's definition


def prepare(execute: Callable[[str], object]) -> None:
    """Create a table in which each transaction records its number, as a proof that it happened."""
    execute("CREATE TABLE public.oracle_commits (worker int PRIMARY KEY, number bigint NOT NULL)")


class Worker(ABC):
    """A worker. `run` until `stop`; `failure` holds an error of the test itself."""

    _pause_s = _CHANGER_PAUSE_S

    def __init__(
        self,
        number: int,
        table: Source,
        keys: Iterable[Key],
        judge: Judge,
        cluster: PrivateCluster,
        dbname: str,
        seed: int,
    ) -> None:
        self.counts = Counts()
        self.failure: Exception | None = None
        self._number = number
        self._table = table
        self._now: dict[Key, Version] = {key: ABSENT for key in keys}
        self._judge = judge
        self._cluster = cluster
        self._dbname = dbname
        self._dice = random.Random(seed)
        self._transaction = 0
        self._connections = 0
        self._conn: Connection | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"worker {number}", daemon=True)
        with cluster.connect(dbname) as conn, conn.cursor() as cursor:
            cursor.execute("INSERT INTO public.oracle_commits VALUES (%s, 0)", (number,))
        conn.close()

    # ---- life

    @abstractmethod
    def fill(self) -> None:
        """Insert the first rows, before clients ask."""

    @abstractmethod
    def _step(self) -> None:
        """Do one step."""

    def start(self) -> None:
        """Change keys until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the present transaction."""
        self._stop.set()

    def join(self, deadline_s: float) -> None:
        """Wait for the end."""
        until(lambda: not self._thread.is_alive(), deadline_s, f"worker {self._number} ends")
        if self._conn is not None:
            self._conn.close()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._dice.uniform(*self._pause_s)):
                self._step()
        except Exception as error:  # a thread's failure fails the run
            self.failure = error

    # ---- one transaction

    def _transact(self, change: Callable[[Cursor], dict[Key, Version]]) -> bool:
        """Do one transaction and report it to the judge; returns whether it happened.

        If the connection breaks before COMMIT, the transaction is rolled back.
        """
        conn = self._connected()
        try:
            with conn.cursor() as cursor:
                self._before(cursor)
                cursor.execute("BEGIN")
                if self._dice.random() < 0.4:
                    cursor.execute(f"SET LOCAL {self._dice.choice(_SETTINGS)}")
                    self.counts.settings += 1
                become = change(cursor)
                cursor.execute(
                    "UPDATE public.oracle_commits SET number = %s WHERE worker = %s",
                    (self._transaction + 1, self._number),
                )
                if self._dice.random() < 0.1:
                    cursor.execute("ROLLBACK")
                    self.counts.rollbacks += 1
                    return False
                return self._commit(cursor, become)
        except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
            conn.rollback()
            self.counts.locked += 1
        except psycopg2.Error as error:
            if not _broken(conn, error):
                raise
            conn.close()
        return False

    def _before(self, cursor: Cursor) -> None:
        """Hook before a transaction."""

    def _commit(self, cursor: Cursor, become: dict[Key, Version]) -> bool:
        hang_up = self._dice.random() < 0.02
        self._transaction += 1
        changes = self._judge.begin(become)
        try:
            if hang_up:
                _commit_and_hang_up(cursor.connection, self._dice.randrange(2, len(_COMMIT) * 2))
            cursor.execute("COMMIT")
        except psycopg2.Error as error:
            if not _broken(cursor.connection, error):
                raise
            cursor.connection.close()
            self.counts.unknown += 1
            (happened,) = until(self._outcome, _RECONNECT_S, "what became of a COMMIT")
            if not happened:
                self._judge.aborted(changes)
                return False
        self._judge.committed(changes)
        self._now |= become
        self.counts.commits += 1
        self.counts.changes += len(become)
        return True

    def _outcome(self) -> tuple[bool] | None:
        """Whether the last transaction happened; None while that is uncertain."""
        name = _connection_name(self._number, self._connections)
        try:
            with self._cluster.connect(self._dbname) as conn, conn.cursor() as cursor:
                # Once its backend is gone, the transaction can no longer commit.
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", (name,)
                )
                if cursor.fetchall() != [(0,)]:
                    return None
                cursor.execute(
                    "SELECT number FROM public.oracle_commits WHERE worker = %s", (self._number,)
                )
                ((number,),) = cursor.fetchall()
            conn.close()
        except psycopg2.Error:
            return None  # the server is down or stopping: ask again
        return (number == self._transaction,)

    # ---- connections

    def _connected(self) -> Connection:
        """A connection that works as far as is known."""
        if self._conn is not None and not self._conn.closed:
            return self._conn
        self._connections += 1
        name = _connection_name(self._number, self._connections)

        def connect() -> Connection | None:
            try:
                return self._cluster.connect(self._dbname, application_name=name)
            except psycopg2.OperationalError:
                return None

        self._conn = until(connect, _RECONNECT_S, f"worker {self._number} is connected again")
        return self._conn


class Changer(Worker):
    """Changes rows of a table with a fixed definition."""

    _table: Table

    def fill(self) -> None:
        while not self.counts.commits:
            self._change({key: self._wish() for key in self._now})

    def _before(self, cursor: Cursor) -> None:
        """Sometimes force a reload of the table, while others change it."""
        if self._dice.random() >= 0.03:
            return
        change = changed_for_a_while(self._table.table)
        with contextlib.suppress(psycopg2.errors.LockNotAvailable):
            cursor.execute(f"SET lock_timeout = '1s'; {change}")
        cursor.execute("RESET lock_timeout")

    def _step(self) -> None:
        dice = self._dice
        keys = list(self._now)
        count = dice.choices([1, dice.randint(2, 8), dice.randint(20, 50)], [70, 27, 3])[0]
        chosen = dice.sample(keys, min(count, len(keys)))
        whole = len(keys) == len(self._table.keys)
        if whole and dice.random() < 0.04:
            self._change({key: self._wish() for key in keys}, truncate=True)
        elif dice.random() < 0.05:
            self._rotate()
        elif dice.random() < 0.1:
            self._change(dict.fromkeys(chosen, self._wish()))  # the same state for all of them
        else:
            self._change({key: self._wish() for key in chosen})

    def _wish(self) -> Version:
        return self._table.wish(self._dice, _real_us())

    def _rotate(self) -> None:
        there = [key for key, version in self._now.items() if version.row]
        absent = [key for key, version in self._now.items() if not version.row]
        if not there or not absent:
            return
        old, new = self._dice.choice(there), self._dice.choice(absent)
        version = self._now[old]

        def rotate(cursor: Cursor) -> dict[Key, Version]:
            if self._table.rotate(cursor, version.row, new):
                return {old: ABSENT, new: version}
            return {}

        self._transact(rotate)

    def _change(self, wishes: dict[Key, Version], *, truncate: bool = False) -> None:
        stays_empty = self._dice.random() < 0.4
        in_vain = self._dice.random() < 0.1

        def change(cursor: Cursor) -> dict[Key, Version]:
            if in_vain:
                self._try_in_vain(cursor, list(wishes))
            become: dict[Key, Version] = {}
            if truncate and self._table.truncate(cursor):
                become = dict.fromkeys(wishes, ABSENT)
                if stays_empty:
                    return become
            elif len(wishes) > 1 and len(set(wishes.values())) == 1:
                return self._bring_together(cursor, wishes)
            for key, wish in wishes.items():
                old = become.get(key, self._now[key])
                become[key] = self._table.bring(cursor, key, old, wish)
            return become

        self._transact(change)

    def _bring_together(self, cursor: Cursor, wishes: dict[Key, Version]) -> dict[Key, Version]:
        """One statement for all existing rows."""
        (wish,) = set(wishes.values())
        there = {key: self._now[key].row for key in wishes if self._now[key].row}
        rows = list(there.values())
        if wish.verdict == UNKNOWN:
            self._table.delete(cursor, rows)
            return dict.fromkeys(there, ABSENT)
        self._table.update(cursor, rows, wish)
        return {key: wish._replace(row=row) for key, row in there.items()}

    def _try_in_vain(self, cursor: Cursor, keys: list[Key]) -> None:
        """A part of a transaction that is rolled back, and must never be seen."""
        cursor.execute("SAVEPOINT in_vain")
        for key in keys[:5]:
            self._table.bring(cursor, key, self._now[key], self._wish())
        cursor.execute("ROLLBACK TO SAVEPOINT in_vain")


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
            until(lambda: not self._broken, _RECONNECT_S, "every table can be read")
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


def _commit_and_hang_up(conn: Connection, size: int) -> None:
    """Send this many bytes of a COMMIT (or all of it), and do not wait for the answer."""
    with contextlib.suppress(OSError):  # it may be cut already
        os.write(conn.fileno(), _COMMIT[:size])
    conn.close()


def _broken(conn: Connection, error: psycopg2.Error) -> bool:
    """Whether the connection is unusable; if not, the statement was wrong."""
    kinds = (psycopg2.OperationalError, psycopg2.InterfaceError)
    # An error without a code is not from the server, and not every loss has its own class.
    return bool(conn.closed) or isinstance(error, kinds) or error.pgcode is None


def _connection_name(worker: int, number: int) -> str:
    return f"oracle-worker-{worker}-{number}"


def _real_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
