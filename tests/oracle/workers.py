"""The workers change keys: each thread owns some keys of one table, which no other thread touches.

Their common part: one transaction at a time, and its outcome even if the connection is lost.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import psycopg2.errors
from harness.postgres import PrivateCluster
from harness.wait import until
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from .history import ABSENT, Version
from .judge import Judge
from .tables import Key, Source

# A stopped server is started again after seconds; a busy machine takes longer.
RECONNECT_S = 60.0
_CHANGER_PAUSE_S = (0.01, 0.1)
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
            (happened,) = until(self._outcome, RECONNECT_S, "what became of a COMMIT")
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

        self._conn = until(connect, RECONNECT_S, f"worker {self._number} is connected again")
        return self._conn


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
