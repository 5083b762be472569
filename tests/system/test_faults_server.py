"""Servers that hang, are full, refuse the daemon, are read-only, or grant it few rights."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from faulty import BOUND_S, Faulty, Witness, faulty_on, mortal_cluster, refuses_connections
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import Daemon
from harness.wait import scaled, until
from installation import PASSWORD, Databases
from psycopg2.extensions import connection as Connection


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivateCluster]:
    """A server with settings and roles that tests may change. They restore them."""
    with mortal_cluster(max_connections="12") as server:
        yield server


@pytest.fixture(scope="module")
def mortal_databases(mortal: PrivateCluster) -> Databases:
    return Databases(mortal)


@pytest.fixture
def site(mortal: PrivateCluster, mortal_databases: Databases) -> Iterator[Faulty]:
    with faulty_on(mortal, mortal_databases) as made:
        yield made


# ---- hanging commits


def set_synchronous_standby(server: PrivateCluster, name: str) -> None:
    server.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    server.sql("SELECT pg_reload_conf()")


@contextlib.contextmanager
def commits_hang(site: Faulty) -> Iterator[None]:
    """Commits wait for a standby that does not exist, from the block's start to its end.

    Sessions see the setting before they obey it: they obey a flag that the checkpointer sets once
    it has read the file. So the test commits until one commit is seen to wait.
    """
    waits = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    site.sql("CREATE TABLE probe (i int)")
    probes: list[threading.Thread] = []

    def commit() -> None:
        with contextlib.closing(site.cluster.connect(site.dbname)) as conn:
            conn.cursor().execute("INSERT INTO probe VALUES (1)")

    def one_waits() -> bool:
        if not probes or not probes[-1].is_alive():
            probes.append(threading.Thread(target=commit))
            probes[-1].start()
        return bool(site.value(waits))

    set_synchronous_standby(site.cluster, "nobody")
    try:
        until(one_waits, 10, "a commit waits for the standby")
        yield
    finally:
        set_synchronous_standby(site.cluster, "")
        for probe in probes:
            probe.join()


def test_commits_that_wait_for_a_dead_standby_make_answers_stale(site: Faulty) -> None:
    """Fault 18: the first change that hangs delays every notification, heartbeats included.

    PostgreSQL delivers notifications in commit order. Before the first change, no commit hangs: a
    heartbeat alone writes no WAL that a standby would have to confirm.
    """
    tokens, steady = site.several("sk_revoked", 1), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        hanging = threading.Thread(target=site.revoke, args=tokens)
        with commits_hang(site):
            hanging.start()
            witness.wait_stale(5 * BOUND_S)
            until(lambda: site.state() == "lost", 10, "it is noticed")
            assert "heartbeat" in site.database_status()["last_error"]
            assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
            assert hanging.is_alive()
        hanging.join()
        witness.revoked(*tokens)


def test_a_session_that_pins_the_notification_queue_does_not_disturb(site: Faulty) -> None:
    """Fault 20: another session listens and stays in one transaction while others send many notifications."""
    site.freshness["bound"] = "5s"
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)
    with (
        site.serve(),
        Witness(site, tokens, steady, bound_s=5.0) as witness,
        contextlib.closing(site.cluster.connect(site.dbname)) as pin,
    ):
        with pin.cursor() as cursor:
            cursor.execute("LISTEN elsewhere")
            cursor.execute("BEGIN; SELECT 1")
        failures = site.database_status()["failures"]
        for token in tokens:
            site.sql("SELECT pg_notify('elsewhere', i || repeat('x', 7900))"
                     " FROM generate_series(1, 1000) AS i")  # fmt: skip
            witness.revoke(token)
            witness.wait_in_force()
        assert site.value("SELECT pg_notification_queue_usage()") > 0.002, "the queue is pinned"
        site.wait_fresh(steady[0])
        assert site.database_status()["failures"] == failures


# ---- refused connections


@contextlib.contextmanager
def no_connection_left(site: Faulty) -> Iterator[str]:
    site.sql("CREATE ROLE greedy LOGIN")
    held: list[Connection] = []
    try:
        stop = time.monotonic() + scaled(10)
        # The daemon's sessions are terminated while others wait for their slots.
        while time.monotonic() < stop:
            try:
                held.append(site.cluster.connect(site.dbname, "greedy"))
            except psycopg2.OperationalError as error:
                assert refuses_connections(error), error
                mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'latchkeyd'"
                if site.value(mine) == 0:
                    break
                site.cut_backends()
        yield "connection"
    finally:
        for conn in held:
            conn.close()
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'greedy'"
        until(lambda: site.value(gone), 10, "they have left")
        site.sql("DROP ROLE greedy")


@contextlib.contextmanager
def another_password(site: Faulty) -> Iterator[str]:
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} PASSWORD 'another'")
    try:
        site.cut_backends()
        yield "password authentication failed"
    finally:
        site.sql(f"ALTER ROLE {PASSWORD_ROLE} PASSWORD '{PASSWORD}'")


@contextlib.contextmanager
def no_such_role(site: Faulty) -> Iterator[str]:
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} RENAME TO somebody_else")
    try:
        site.cut_backends()
        yield PASSWORD_ROLE  # PostgreSQL conceals from strangers which roles exist
    finally:
        site.sql(f"ALTER ROLE somebody_else RENAME TO {PASSWORD_ROLE}")


@pytest.mark.parametrize("way", [no_connection_left, another_password, no_such_role])
def test_a_server_that_does_not_let_us_in_is_not_battered(
    site: Faulty, way: Callable[[Faulty], contextlib.AbstractContextManager[str]]
) -> None:
    """Fault 21: max_connections exhausted, wrong password, missing role."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve() as daemon, Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        with way(site) as reason:
            witness.revoke(tokens[0])
            witness.wait_stale(5 * BOUND_S)
            site.wait_told(reason)
            assert site.state() == "lost"
            connects, started = site.database_status()["connects"], time.monotonic()
            witness.wait_past_bound()
            # The delay between attempts grows from 50 ms to 5 s.
            attempts = site.database_status()["connects"] - connects
            assert attempts <= 3 + 4 * (time.monotonic() - started), "no attempt after the other"
            assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
        site.cli.sync("30s")
        assert site.cli.verify(tokens).names == ["revoked", "valid"]
        witness.revoke(tokens[1])
    assert PASSWORD not in daemon.log()


def test_a_new_password_needs_no_restart(site: Faulty) -> None:
    """Fault 21, as a planned change: the operator changes the role's password, then the file."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve() as daemon, Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        with another_password(site) as reason:
            witness.revoke(tokens[0])
            site.wait_told(reason)
            site.password_file.unlink()
            site.wait_told("cannot read the secret")
            site.password_file.touch(mode=0o600)
            site.wait_told("is empty")
            site.password_file.write_text("another\n")
            site.wait_fresh(tokens[0], "revoked")
            site.password_file.write_text(PASSWORD + "\n")
        site.cut_backends()
        witness.revoke(tokens[1])
    assert PASSWORD not in daemon.log() and "another" not in daemon.log()


def read_only_role(site: Faulty) -> str:
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} SET default_transaction_read_only = on")
    return f"ALTER ROLE {PASSWORD_ROLE} RESET ALL"


def cautious_role(site: Faulty) -> str:
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} SET default_transaction_isolation = 'serializable'")
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} SET default_transaction_read_only = on")
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} SET default_transaction_deferrable = on")
    return f"ALTER ROLE {PASSWORD_ROLE} RESET ALL"


def read_only_database(site: Faulty) -> str:
    site.sql(f"ALTER DATABASE {site.dbname} SET default_transaction_read_only = on")
    return f"ALTER DATABASE {site.dbname} RESET ALL"


def read_only_server(site: Faulty) -> str:
    site.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    site.sql("SELECT pg_reload_conf()")
    return "ALTER SYSTEM RESET default_transaction_read_only; SELECT pg_reload_conf()"


@pytest.mark.parametrize("moment", ["before the start", "while it runs"])
@pytest.mark.parametrize(
    "switch", [read_only_role, cautious_role, read_only_database, read_only_server]
)
def test_what_is_read_only_by_default_is_followed(
    site: Faulty, switch: Callable[[Faulty], str], moment: str
) -> None:
    """Fault 69: with this default, sessions can still write if they ask for it, and revoke keys."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    site.source("api_keys", preset="api_keys", peppers=str(site.peppers), last_used_at="last_used_at")
    site.more = '[last_used]\nflush = "1s"\n'
    site.sql("SET default_transaction_read_only = off")
    site.install()
    undo = "SELECT 1"
    try:
        if moment == "before the start":
            undo = switch(site)
        with (
            # Deferrable transactions wait for this transaction.
            contextlib.closing(site.cluster.connect(site.dbname, autocommit=False)) as other,
            Daemon(site.config) as daemon,
            Witness(site, tokens, steady) as witness,
        ):
            other.cursor().execute(
                "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ WRITE; SELECT 1"
            )
            if moment != "before the start":
                site.wait_fresh(steady[0])
                undo = switch(site)
                witness.revoke(tokens[0])
                witness.wait_in_force()
            site.cut_backends()
            witness.revoke(*tokens)
            witness.wait_in_force()
            used = "SELECT last_used_at IS NOT NULL FROM api_keys WHERE name = %s"
            until(lambda: site.value(used, steady[0]), 10, "the last use is written")
            assert daemon.exit_code is None
    finally:
        for statement in undo.split("; "):
            site.sql(statement)


SIDE_RIGHTS = [
    "REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_control_checkpoint() FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn(), pg_current_wal_insert_lsn() FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_current_wal_flush_lsn(), pg_walfile_name(pg_lsn) FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time(), pg_is_in_recovery() FROM PUBLIC",
    "REVOKE EXECUTE ON FUNCTION pg_notification_queue_usage() FROM PUBLIC",
    "REVOKE SELECT ON pg_subscription_rel, pg_stat_activity FROM PUBLIC;"
    " REVOKE SELECT (srrelid) ON pg_subscription_rel FROM PUBLIC",
]


@pytest.mark.parametrize("revoked", [*SIDE_RIGHTS, "; ".join(SIDE_RIGHTS)], ids=["control", "wal", "timeline", "start", "queue", "catalogues", "all"])
def test_rights_that_everybody_has_may_be_missing(
    cluster: PrivateCluster, databases: Databases, revoked: str
) -> None:
    """Fault 70: the daemon knows less of the server and reports so. It still follows the keys."""
    site = Faulty(cluster, databases.new("api_keys"))
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)

    def findings() -> list[str]:
        return [each["number"] for each in site.source_status("api_keys")["findings"]]

    # The daemon runs: the heartbeat is refused, and the next connection requests less.
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        assert "L003" not in findings()
        site.sql(revoked)
        witness.revoke(tokens[0])
        witness.wait_in_force()
        site.cut_backends()
        witness.revoke(tokens[1])
        witness.wait_in_force()
        until(lambda: "L003" in findings(), 10, "it is said")
    # From the start.
    assert "L003 note: " in site.check()
    with Daemon(site.config), Witness(site, tokens[2:], steady) as witness:
        assert "L003" in findings()
        witness.revoke(tokens[2])
        witness.wait_in_force()
    site.close()
