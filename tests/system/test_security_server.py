"""A hostile or broken server: any answer is an error at worst and ends in a reconnect.
a reconnect.

tests/harness/liar.py stands between the daemon and PostgreSQL and falsifies one answer at a time.
LATCHKEY_FUZZ_SECONDS limits the random part, LATCHKEY_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import wire
from harness.liar import KINDS, LIES, LyingServer
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import Daemon
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation

GOOD, REVOKED, BUSY = (f"sk_{what}_0123456789abcdef" for what in ("good", "revoked", "busy"))

TABLE = """
CREATE TABLE t (id bigint PRIMARY KEY, key text NOT NULL, subject int, tenant smallint,
                scopes jsonb, expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz);
INSERT INTO t VALUES (1, %s, 7, 8, '["read"]', now() + interval '1 day', NULL),
                     (2, %s, 7, 8, '["read"]', NULL, now()), (3, %s, 9, 9, NULL, NULL, NULL);
"""


class Betrayed(Installation):
    """An installation with a lying database."""

    def __init__(self, cluster: PrivateCluster, dbname: str, liar: LyingServer) -> None:
        super().__init__(cluster, dbname)
        self.liar = liar
        self.database["conninfo"] = (
            f"host={liar.folder} port={cluster.port} dbname={dbname} user={PASSWORD_ROLE}"
        )
        self.freshness |= {"heartbeat": "50ms", "audit": "100ms"}
        self.more = '[last_used]\nflush = "1s"\n'
        roles = ("subject", "tenant", "scopes", "expires_at", "revoked_at", "last_used_at")
        self.source("main", table="public.t", id="id", key="key", **{role: role for role in roles})
        self.sql(TABLE, GOOD, REVOKED, BUSY)

    def disturb(self) -> None:
        """Cause one change to read and one use to write."""
        self.sql("UPDATE t SET tenant = (tenant + 1) % 100 WHERE id = 3")
        self.cli.verify([GOOD, BUSY])

    def betray(self, kind: str, name: str, rng: random.Random, deadline_s: float) -> bool:
        """Falsify one answer of this kind; False if the daemon did not ask for one in time."""
        told = self.liar.told
        self.liar.tell(kind, LIES[name], rng)
        if kind not in ("heartbeat", "rows", "digest", "last use"):
            self.liar.cut()
        limit = time.monotonic() + deadline_s
        while self.liar.told == told and time.monotonic() < limit:
            self.disturb()
        self.liar.honest()
        self.disturb()  # a change while it handles the lie
        return self.liar.told > told

    def recovers(self, daemon: Daemon, what: str) -> None:
        """The same process follows the honest server again and gives correct verdicts."""
        assert daemon.exit_code is None, f"{what}\n{daemon.log_tail()}"
        self.liar.cut()  # makes it read the table, and so forget well-formed lies
        self.cli.sync("30s")
        assert self.cli.verify([GOOD, REVOKED]).names == ["valid", "revoked"], what
        assert all(answer["fresh"] for answer in self.cli.verify([GOOD, REVOKED])), what


@pytest.fixture(scope="module")
def there(cluster: PrivateCluster, databases: Databases) -> Iterator[Betrayed]:
    with LyingServer(Path(cluster.socket_dir) / f".s.PGSQL.{cluster.port}") as liar:
        made = Betrayed(cluster, databases.new(), liar)
        yield made
        made.close()


class Witness:
    """Asks for a revoked key repeatedly."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self.let_in = 0
        self.answers = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(scaled(20))

    def _run(self) -> None:
        with Raw(self._path) as raw:
            while not self._stop.wait(0.002):
                raw.send(wire.verify([REVOKED.encode()]))
                reply = raw.receive()
                if reply is None:
                    return
                self.answers += 1
                self.let_in += reply.verdicts == ["valid"]


# The daemon asks for the others only at a start, and when an audit finds a difference.
ASKED_AGAIN = [kind for kind in KINDS if kind not in ("time zone", "digest of rows")]

# The question, the kind of lie, and the daemon's message.
NAMED = [
    ("heartbeat", "no row", "the server's answer to the heartbeat has no row 0"),
    ("heartbeat", "only done", "the server's answer to the heartbeat has no rows"),
    ("heartbeat", "nothing", "the server's answer to the heartbeat has no rows"),
    ("heartbeat", "all NULL", "the server's answer to the heartbeat is NULL"),
    ("heartbeat", "a column less", "the server's answer to the heartbeat has 3 columns instead of 4"),
    ("heartbeat", "a column more", "the server's answer to the heartbeat has 5 columns instead of 4"),
    ("heartbeat", "COPY", "the server's answer to the heartbeat is a COPY that nobody asked for"),
    ("heartbeat", "COPY IN", "the server's answer to the heartbeat is of an unexpected kind"),
    ("identity", "no row", "the server's answer to the question who it is has no row 0"),
    ("rights", "all NULL", "is NULL in column 0"),
    ("look-up", "no row", "the server's answer to the look-up of the table has no row 0"),
    ("look-up", "deep JSON", "the server's answer to the look-up of the table is not the JSON it should be"),
    ("load", "only done", "the server's answer to the load of a table is no COPY"),
    ("load", "rows", "the server's answer to the load of a table has rows instead of a COPY"),
    ("load", "empty COPY", "the COPY broke off before its end"),
    ("load", "torn COPY", None),
    ("rows", "only done", "the server's answer to the reading of changed rows has no rows"),
    ("rows", "no column", "the server's answer to the reading of changed rows has 0 columns"),
    ("rows", "other type", None),  # the table may have been altered: the daemon reads it again
    ("rows", "other format", "is not in the binary format"),
    ("digest", "all NULL", "the server's answer to the digest of the table is NULL"),
    ("digest", "COPY", "the server's answer to the digest of the table is a COPY that nobody asked for"),
    ("last use", "COPY", "the server's answer to the writing of last_used_at is a COPY"),
]  # fmt: skip


def test_each_wrong_answer_has_a_name(there: Betrayed) -> None:
    rng = random.Random(18)
    with there.serve() as daemon, Witness(there.socket) as witness:
        for kind, name, said in NAMED:
            what = f"{kind}: {name}"
            before, failures = len(daemon.log()), there.database_status()["failures"]

            def is_told() -> bool:
                """Whether the log has it; or the status, if the log has just said the same."""
                now = there.database_status()
                in_status = now["failures"] > failures and said in now.get("last_error", "")  # noqa: B023
                return in_status or said in daemon.log()[before:]  # noqa: B023

            assert there.betray(kind, name, rng, scaled(10)), f"{what}: never asked\n{daemon.log_tail()}"
            if said is not None:
                until(is_told, 10, f"{what}: {said}")
            there.recovers(daemon, what)
        assert witness.answers > 100 and witness.let_in == 0


def test_any_answer_may_be_wrong(there: Betrayed) -> None:
    seed = os.environ.get("LATCHKEY_FUZZ_SEED") or secrets.token_hex(8)
    print(f"LATCHKEY_FUZZ_SEED={seed}")
    rng = random.Random(seed)
    pairs = [(kind, name) for kind in ASKED_AGAIN for name in LIES]
    rng.shuffle(pairs)
    told = 0
    ends = time.monotonic() + float(os.environ.get("LATCHKEY_FUZZ_SECONDS", "8"))
    with there.serve() as daemon, Witness(there.socket) as witness:
        for kind, name in pairs:
            if time.monotonic() > ends:
                break
            told += there.betray(kind, name, rng, 1.5)
            there.recovers(daemon, f"seed {seed}: {kind}: {name}")
        log = daemon.log()
        assert witness.answers > 100 and witness.let_in == 0, f"seed {seed}"
    assert told > 0, f"seed {seed}: {log}"
    # The parser's errors would quote the offending text.
    assert "json.exception" not in log
