"""`last_used_at` under load, locks and failures: a use is not lost, and costs callers nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from harness.postgres import PrivateCluster
from harness.cli import Cli
from harness.programs import Daemon
from harness.wait import until
from installation import Databases, Installation
from last_uses import LATE, SOON, last_used, rows, table, used, wait_used, writing_soon


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    with writing_soon(cluster, databases) as there:
        yield there


def test_what_waits_is_written_at_the_end(site: Installation) -> None:
    table(site)
    rows(site, 1)
    site.more = LATE
    with site.serve() as daemon:
        assert site.verdict("key 1") == "valid"
        assert used(site) is None
    assert used(site) is not None
    assert "was not written" not in daemon.log()


def test_many_keys_in_one_period(site: Installation) -> None:
    """More than half a ring: the daemon drains it long before the next write."""
    table(site)
    site.sql("INSERT INTO t SELECT g, 'key ' || g FROM generate_series(1, 5000) g")
    site.more = LATE
    with site.serve():
        answers = site.cli.verify([f"key {i}" for i in range(1, 5001)])
        assert answers.names == ["valid"] * 5000
        until(lambda: last_used(site)["pending"] >= 4096, 30, "the ring is emptied")
        assert last_used(site)["written"] == 0
    assert site.value("SELECT count(*) FROM t WHERE used IS NOT NULL") == 5000


def test_a_database_that_is_down_costs_no_answer_and_no_time(databases: Databases) -> None:
    with PrivateCluster() as server:
        server.sql("CREATE ROLE latchkey LOGIN PASSWORD 'geheim'")
        site = Installation(server, "postgres")
        site.more = SOON
        table(site)
        rows(site, 1)
        with site.serve() as daemon:
            site.cli.sync("30s")
            site.conn.close()
            server.stop()
            until(lambda: site.database_status()["state"] == "lost", 30, "the stop is noticed")
            assert site.cli.verify("key 1").names == ["valid"]
            until(lambda: last_used(site)["pending"] == 1, 30, "the use waits")
            assert last_used(site)["written"] == 0
            server.start()
            site.conn = server.connect()
            wait_used(site, 1)
            assert site.verdict("key 1") == "valid"
            # The server stays down: pending uses are lost, and the daemon reports this.
            until(lambda: last_used(site)["pending"] == 0, 30, "nothing waits")
            site.conn.close()
            server.stop()
            until(lambda: site.database_status()["state"] == "lost", 30, "the stop is noticed")

            def waits() -> bool:
                assert site.cli.verify("key 1").names == ["valid"]
                return last_used(site)["pending"] == 1

            until(waits, 30, "a use waits")
        assert "last_used_at of 1 rows was not written: the database cannot be" in daemon.log()
        site.close()


def test_a_row_that_somebody_has_locked_holds_up_nothing(site: Installation) -> None:
    table(site)
    rows(site, 1, 2, 3)
    with site.serve() as daemon, contextlib.closing(site.cluster.connect(site.dbname)) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SELECT FROM t WHERE id = 1 FOR UPDATE")
        assert site.ask("key 1", "key 2", "key 3").names == ["valid"] * 3
        wait_used(site, 2, 3)
        until(lambda: last_used(site)["pending"] == 1, 10, "the locked row waits")
        site.sql("UPDATE t SET off = now() WHERE id = 3")
        assert site.ask("key 1", "key 2", "key 3").names == ["valid", "valid", "revoked"]
        assert used(site, 1) is None
        assert site.database_status()["failures"] == 0
        other.rollback()
        wait_used(site, 1)
        assert last_used(site)["failures"] == 0
        assert daemon.log().count("cannot be written") == 0


def test_a_table_that_somebody_has_locked_is_tried_again(site: Installation) -> None:
    table(site)
    rows(site, 1)
    with site.serve() as daemon, contextlib.closing(site.cluster.connect(site.dbname)) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("LOCK TABLE t IN SHARE MODE")
        assert site.verdict("key 1") == "valid"
        until(lambda: last_used(site)["failures"] >= 2, 60, "writing fails")
        assert site.verdict("key 1") == "valid"
        status = site.database_status()
        assert (status["state"], status["failures"], status["connects"]) == ("live", 0, 1)
        assert daemon.log().count("lock timeout") == 1, "said once"
        other.rollback()
        wait_used(site, 1)
        until(lambda: "is written again" in daemon.log(), 10, "the recovery is said")


def test_a_row_that_cannot_be_written_does_not_keep_others_from_it(site: Installation) -> None:
    table(site)
    rows(site, *range(1, 8))
    site.sql("ALTER TABLE t ADD CHECK (id <> 3 OR used IS NULL)")
    with site.serve() as daemon:
        assert site.ask(*(f"key {i}" for i in range(1, 8))).names == ["valid"] * 7
        wait_used(site, 1, 2, 4, 5, 6, 7)
        until(lambda: last_used(site)["pending"] == 1, 10, "the one that cannot be written waits")
        failures = last_used(site)["failures"]
        until(lambda: last_used(site)["failures"] > failures, 60, "it is tried again")
        assert used(site, 3) is None
        assert daemon.log().count("cannot be written") == 1, "said once"
        site.sql("ALTER TABLE t DROP CONSTRAINT t_check")
        wait_used(site, 3)
        until(lambda: "is written again" in daemon.log(), 10, "the recovery is said")


def test_two_daemons_do_not_stand_in_each_others_way(site: Installation) -> None:
    table(site)
    site.sql("INSERT INTO t SELECT g, 'key ' || g FROM generate_series(1, 2000) g")
    keys = [f"key {i}" for i in range(1, 2001)]
    other = site.folder / "other.sock"
    with site.serve(), Daemon(site.config.replace(str(site.socket), str(other))):
        clients = [site.cli, Cli(other)]
        for _ in range(3):
            for client, asked in zip(clients, (keys, keys[::-1]), strict=True):
                assert client.verify(asked).names == ["valid"] * 2000

        def settled() -> bool:
            written = [client.status()["sources"][0]["last_used"] for client in clients]
            assert all(counts["failures"] == 0 for counts in written)
            # One daemon need not write a use that the other has written, unless its own is later.
            enough = sum(counts["written"] for counts in written) >= 2000
            return enough and all(counts["pending"] == 0 for counts in written)

        until(settled, 30, "both have written what they had to")
    assert site.value("SELECT count(*) FROM t WHERE used IS NULL") == 0


def test_its_connection_may_be_ended_at_any_time(site: Installation) -> None:
    table(site)
    rows(site, 1)
    backends = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE '%%older AS MATERIALIZED%%'
                     AND pid <> pg_backend_pid()"""
    with site.serve():
        assert site.verdict("key 1") == "valid"
        wait_used(site, 1)
        first = used(site)
        until(lambda: site.sql(backends) == [(True,)], 10, "its connection is ended")

        def moved() -> bool:
            assert site.verdict("key 1") == "valid"
            return used(site) > first

        until(moved, 30, "it is written over another connection")
        status = site.database_status()
        assert (status["state"], status["failures"], status["connects"]) == ("live", 0, 1)
