"""PostgreSQL's notification queue is long or full: the daemon does not make it worse, and reports it.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import Faulty, Witness, mortal_cluster, socket_of
from harness import child
from harness.liar import Answer, LyingServer, message
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import Daemon
from harness.wait import NotInTime, until
from installation import Databases

STEP_S = 10.0  # the deadline of any other step


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivateCluster]:
    """A private server: all databases of a server share its queue."""
    with mortal_cluster() as server:
        yield server


@pytest.fixture
def site(mortal: PrivateCluster) -> Iterator[Faulty]:
    made = Faulty(mortal, Databases(mortal).new("api_keys"))
    yield made
    made.close()
    Databases(mortal).drop(made.dbname)


@contextlib.contextmanager
def pinned(site: Faulty, megabytes: int) -> Iterator[None]:
    """A session listens and stays in one transaction, while others send this many megabytes."""
    with contextlib.closing(site.cluster.connect(site.dbname)) as pin, pin.cursor() as cursor:
        cursor.execute("LISTEN elsewhere")
        cursor.execute("BEGIN; SELECT 1")
        site.sql(
            "SELECT count(pg_notify('elsewhere', i || repeat('x', 7900)))"
            " FROM generate_series(1, %s) AS i", megabytes * 125
        )  # fmt: skip
        yield


@contextlib.contextmanager
def slow_listen(site: Faulty) -> Iterator[None]:
    """Make the daemon reconnect while the backend that serves its LISTEN hardly runs."""
    at_it = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%LISTEN %' AND state = 'active'"
    at_it += " AND application_name = 'latchkeyd'"

    def stopped() -> int | None:
        for (pid,) in site.sql(at_it):
            child.send(pid, signal.SIGSTOP)
            until(lambda: child.state(pid) == "T", 5, "the backend stands still")  # noqa: B023
            if site.value("SELECT state = 'active' FROM pg_stat_activity WHERE pid = %s", pid):
                return int(pid)
            child.send(pid, signal.SIGCONT)
            site.cut_backends()
        return None

    site.cut_backends()
    pid = until(stopped, 30, "LISTEN is under way")
    assert pid is not None
    over = threading.Event()
    begun = time.monotonic(), child.running_seconds(pid)

    def run_a_bit() -> None:
        # Wait until the backend has really run: it may hold a lock that others need, and on a busy
        # machine it would otherwise stand still for longer than they wait.
        ran = child.running_seconds(pid)
        child.send(pid, signal.SIGCONT)
        with contextlib.suppress(NotInTime):
            until(lambda: over.is_set() or child.running_seconds(pid) > ran + 1e-4, 2, "it runs")
        child.send(pid, signal.SIGSTOP)

    def allowed() -> bool:
        # The backend runs for longer than its share, and makes up for that later.
        return child.running_seconds(pid) - begun[1] < (time.monotonic() - begun[0]) / 400

    def slow_down() -> None:
        stood_still = 0
        while not over.wait(0.15):
            # It never stands still for long, because it may hold the lock.
            stood_still = 0 if allowed() else stood_still + 1
            if stood_still % 10 == 0:
                run_a_bit()
        child.send(pid, signal.SIGCONT)

    thread = threading.Thread(target=slow_down)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_listen_that_has_to_pass_a_long_queue_is_given_the_time(site: Faulty) -> None:
    """Fault 20: if the daemon gave up, it would start at the queue's tail again, and block all others there."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve() as daemon, Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        with pinned(site, 250):
            with slow_listen(site):
                connects, over = site.database_status()["connects"], time.monotonic() + STEP_S + 3
                witness.revoke(tokens[0])
                until(lambda: site.database_status().get("trouble", ""), 10, "it is said")
                trouble = site.database_status().get("trouble", "")
                assert "LISTEN has to pass PostgreSQL's notification queue" in trouble
                assert "pg_terminate_backend" in trouble
                until(lambda: time.monotonic() > over, 30, "longer than any other step may take")
                assert site.database_status()["connects"] == connects
                assert site.state() == "lost", "and LISTEN is still under way"
            witness.wait_in_force()
            assert site.database_status()["connects"] == connects
            until(lambda: not site.database_status().get("trouble", ""), 10, "it is over")
            assert site.database_status()["notification_queue"] > 0.02
        witness.revoke(tokens[1])
        assert "notification queue" in daemon.log()


def test_a_start_is_given_the_time_to_pass_a_long_queue(site: Faulty) -> None:
    """A service that restarts during this never gets through the queue."""
    site.freshness["start_timeout"] = "3s"
    tokens = site.several("sk_revoked", 1)
    site.install()
    with pinned(site, 250), Daemon(site.config, wait=False) as daemon:
        with slow_listen(site):
            over = time.monotonic() + STEP_S + 3
            until(lambda: time.monotonic() > over, 30, "longer than any step may take")
            assert daemon.exit_code is None, daemon.log_tail()
        daemon.wait_ready()
        site.revoke(*tokens)
        assert site.ask(*tokens).names == ["revoked"]


def refused(sqlstate: str, text: str):  # type: ignore[no-untyped-def]
    """A lie: the server refuses the statement."""

    def lie(answer: Answer, _: random.Random) -> Answer:
        body = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode()
        return [message("E", body), *(one for one in answer if one[:1] == b"Z")]

    return lie


def test_a_full_queue_is_waited_for_on_the_connections_that_there_are(site: Faulty) -> None:
    """Fault 20: a new connection must pass the queue, so the daemon keeps its old ones. (A full queue
    has 8 GB; the lying server pretends it.)
    """
    full = refused("54000", "too many notifications in the NOTIFY queue")
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    rng = random.Random(1)
    with LyingServer(Path(site.cluster.socket_dir) / socket_of(site.cluster)) as liar:
        site.database["conninfo"] = (
            f"host={liar.folder} port={site.cluster.port} dbname={site.dbname} user={PASSWORD_ROLE}"
        )
        with site.serve() as daemon, Witness(site, tokens, steady) as witness:
            site.wait_fresh(steady[0])
            connects = site.database_status()["connects"]

            def is_full() -> bool:
                return "queue is full" in site.database_status().get("trouble", "")

            liar.tell("notify", full, rng, always=True)
            until(lambda: is_full() and liar.told > 5, 20, "the heartbeats are refused")
            assert site.database_status()["connects"] == connects, "nobody has gone"
            assert "pg_terminate_backend" in daemon.log()
            human = site.cli.run("--socket", str(site.socket), "status").expect(0).stdout
            assert "PROBLEM: PostgreSQL's notification queue is full" in human
            liar.honest()
            witness.revoke(tokens[0])
            witness.wait_in_force()
            assert site.database_status()["connects"] == connects
            until(lambda: not site.database_status().get("trouble", ""), 10, "it is over")
            # The daemon must not send LISTEN in vain when the queue is already full.
            told = liar.told
            liar.tell("notify", full, rng, always=True)
            liar.cut()
            until(lambda: is_full() and liar.told > told + 3, 20, "the meeting is refused")
            liar.honest()
            witness.revoke(tokens[1])
            witness.wait_in_force()
            assert site.database_status()["connects"] <= connects + 2
