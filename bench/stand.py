"""The common parts of benchmarks over the socket: a private PostgreSQL with the generated keys of
latchkey-bench, a latchkeyd that serves them, and loads."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/system")]

from harness.child import User  # noqa: E402
from harness.generated import store_generated  # noqa: E402
from harness.postgres import PrivateCluster  # noqa: E402
from harness.programs import Daemon, program  # noqa: E402
from installation import PASSWORD, Installation  # noqa: E402

# Settings of a real server, except for durability: shared buffers that hold the table.
POSTGRES = {"shared_buffers": "'1GB'", "max_wal_size": "'4GB'"}


@contextlib.contextmanager
def server() -> Iterator[PrivateCluster]:
    """Start a PostgreSQL that has the daemon's role."""
    with PrivateCluster(settings=POSTGRES) as cluster:
        with contextlib.closing(cluster.connect()) as conn, conn.cursor() as cursor:
            cursor.execute("CREATE ROLE latchkey LOGIN PASSWORD %s", (PASSWORD,))
        yield cluster


# SIGTERM raises SystemExit, so that the context managers end the processes of the benchmark.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

PROCESSORS = sorted(os.sched_getaffinity(0))
# The server under test runs alone on the first processor; PostgreSQL, clients and measuring programs run on
# the last.
SERVER, CLIENTS = PROCESSORS[0], PROCESSORS[-1]
os.sched_setaffinity(0, {CLIENTS})


class Keys(Installation):
    """The first `rows` generated keys, stored as SHA-256 digests."""

    def __init__(self, cluster: PrivateCluster, rows: int) -> None:
        name = f"keys_{rows}"
        cluster.createdb(name)
        super().__init__(cluster, name)
        self.rows = rows
        store_generated(self.conn, rows)
        self.sql(
            "ALTER TABLE bench_key ADD subject text GENERATED ALWAYS AS ('user ' || id::text) STORED,"
            " ADD scopes text DEFAULT 'read write'"
        )
        self.sql("CREATE UNIQUE INDEX ON bench_key (digest)")
        self.sql("ANALYZE bench_key")
        self.source(
            "keys", table="public.bench_key", scheme="sha256", encoding="raw", id="id",
            key="digest", subject="subject", scopes="scopes",
        )  # fmt: skip
        self.freshness |= {"heartbeat": "1s", "bound": "5s"}
        self.listen["mode"] = "0666"


@contextlib.contextmanager
def served(there: Installation, processors: Sequence[int] = (SERVER,)) -> Iterator[Daemon]:
    """Start the installation's daemon, with all threads on the given processors."""
    there.install()
    with Daemon(there.config) as daemon:
        allowed = ",".join(map(str, processors))
        subprocess.run(
            ["taskset", "--all-tasks", "--cpu-list", "--pid", allowed, str(daemon.pid)],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        yield daemon


class Failed(Exception):
    """A load without figures; the text is its output."""


def load(*options: str, user: User | None = None, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run latchkey-bench once, as `user`; return its report. A wrong answer ends the program."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        if user is not None:
            os.chown(folder, user.uid, user.gid)
            before = (*before, "setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups")
        command = [*before, str(program("latchkey-bench", user)), "run", "--quiet",
                   "--json", str(report), *options]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 1:
            sys.exit(done.stderr)
        if done.returncode != 0:
            raise Failed(done.stderr)
        return dict(json.loads(report.read_text()))
