"""DDL at the same time as loads, re-reads and the application's own statements."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from followed_table import (
    KEYS,
    PARTITIONED,
    PLAIN,
    REVOKE,
    Case,
    assert_follows,
    assert_no_fresh_yes,
    installed,
    served,
    waits,
)
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases


def test_a_partition_on_its_way_out_is_gone_for_all_who_come_later(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """DETACH CONCURRENTLY waits for old transactions. New transactions no longer see the partition's rows."""
    case = Case("ALTER TABLE k DETACH PARTITION p1 CONCURRENTLY", PARTITIONED, gone="unknown", server=14)
    with (
        served(cluster, databases, case) as site,
        contextlib.closing(cluster.connect(site.dbname, autocommit=False)) as old,
        contextlib.closing(cluster.connect(site.dbname)) as detaching,
    ):
        old.cursor().execute("SELECT FROM k")
        thread = threading.Thread(target=detaching.cursor().execute, args=case.transactions)
        thread.start()
        try:
            until(lambda: waits(site, "CONCURRENTLY"), 10, "the partition is being detached")
            assert site.value("SELECT count(*) FROM k WHERE key = 'gone'") == 0
            assert_no_fresh_yes(site, time.monotonic())
            assert_follows(site, case)
        finally:
            old.rollback()
            thread.join()
        assert_follows(site, case)


def test_a_row_is_never_read_as_the_table_was(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """A time becomes a flag, and a row changes before the next heartbeat. A NULL flag refuses, a NULL time does
    not: a re-read with the old query would admit a revoked key."""
    setup = f"{PLAIN.replace('revoked_at timestamptz', 'revoked_at timestamptz, who text')}; {REVOKE.format('gone')}"
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="who") as site:
        site.freshness |= {"heartbeat": "60s", "bound": "120s"}
        with site.serve():
            assert site.ask("gone", "stays").names == ["revoked", "valid"]

            def readings() -> int:
                status = site.source_status("k")
                return int(status["rereads"] + status["loads"])

            before = readings()
            site.sql("ALTER TABLE k ALTER revoked_at TYPE boolean USING CASE WHEN revoked_at IS NULL THEN false END")
            site.sql("UPDATE k SET who = 'somebody'")
            until(lambda: readings() > before, 10, "the rows are read")
            assert site.cli.verify("gone").names == ["revoked"]
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


# PostgreSQL manual, "Caveats" of concurrency control: to a snapshot taken before a TRUNCATE or a rewrite has
# committed, the table is empty afterwards. A COPY that waits for the table's lock has such a snapshot.
EMPTIED = {
    "rewritten": "ALTER TABLE k ALTER revoked_at TYPE timestamptz USING revoked_at + interval '0'",
    "filled anew": "CREATE TEMP TABLE was AS TABLE k; TRUNCATE k; INSERT INTO p1 SELECT * FROM was WHERE id = '1';"
    " INSERT INTO k SELECT * FROM was WHERE id <> '1'",
    "a part filled anew": "CREATE TEMP TABLE was AS TABLE p1; TRUNCATE p1; INSERT INTO p1 SELECT * FROM was",
}
TWO_ROWS = """CREATE TABLE k (id text PRIMARY KEY, key text NOT NULL, revoked_at timestamptz);
    CREATE TABLE p1 (LIKE k INCLUDING ALL); ALTER TABLE p1 INHERIT k; INSERT INTO p1 VALUES ('1', 'gone', now());
    INSERT INTO k VALUES ('2', 'gone', NULL), ('3', 'stays', NULL)"""


@pytest.mark.parametrize("statements", EMPTIED.values(), ids=EMPTIED.keys())
def test_a_load_that_waited_for_a_rewrite_sees_what_was_written(
    cluster: PrivateCluster, databases: Databases, statements: str
) -> None:
    """Two rows hold the key "gone", and the revoked one refuses it: if a load missed that row, the other would
    admit.
    """
    with (
        installed(cluster, databases, TWO_ROWS, revoked_at="revoked_at") as site,
        contextlib.closing(cluster.connect(site.dbname, autocommit=False)) as rewriting,
    ):
        site.freshness |= {"heartbeat": "1s", "bound": "10s"}
        with site.serve():
            assert site.ask("gone", "stays").names == ["revoked", "valid"]
            loads = site.source_status("k")["loads"]
            rewriting.cursor().execute(statements)
            for ask in ("all", "reload"):  # one of them starts a reload of the table
                site.sql("SELECT pg_notify('latchkey', %s)", f'{{"t": "public.k", "{ask}": true}}')
            until(lambda: waits(site, "COPY"), 10, "a load waits for the lock")
            rewriting.commit()
            seen = set()
            while site.source_status("k")["loads"] == loads:
                pass
            for _ in range(10):
                seen.add(tuple(site.cli.verify(["gone", "stays"]).names))
            assert seen == {("revoked", "valid")}
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


def test_a_row_read_from_another_table_of_that_name_does_not_stay(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Two schemas swap names and swap back between two heartbeats; meanwhile the loader reads a changed row."""
    setup = """CREATE SCHEMA app; CREATE TABLE app.k (id int PRIMARY KEY, key text, revoked_at timestamptz);
        INSERT INTO app.k VALUES (1, 'gone'), (2, 'stays'), (3, 'later'); CREATE SCHEMA green;
        CREATE TABLE green.k (LIKE app.k INCLUDING ALL); INSERT INTO green.k SELECT * FROM app.k;
        GRANT USAGE ON SCHEMA green TO public; GRANT SELECT ON green.k TO public"""
    with installed(cluster, databases, setup, table="app.k", revoked_at="revoked_at") as site:
        site.freshness |= {"heartbeat": "60s", "bound": "120s"}
        with site.serve():
            assert site.ask(*KEYS).names == ["valid"] * 3
            before = site.source_status("k")["rereads"]
            site.sql("ALTER SCHEMA app RENAME TO blue; ALTER SCHEMA green RENAME TO app")
            site.sql("UPDATE blue.k SET revoked_at = now() WHERE key = 'gone'")
            until(lambda: site.source_status("k")["rereads"] > before, 10, "the row is read")
            site.sql("ALTER SCHEMA app RENAME TO green; ALTER SCHEMA blue RENAME TO app")
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


HARM = {
    "renamed": "ALTER TABLE k RENAME revoked_at TO other",
    "dropped": "ALTER TABLE k DROP revoked_at",
    "id renamed": "ALTER TABLE k RENAME id TO other",
    "id dropped": "ALTER TABLE k DROP id",
    "of a type without equality": "ALTER TABLE k ALTER subject TYPE json USING to_json(subject)",
    "of a type that no text is made of": "ALTER TABLE k ALTER subject TYPE xid USING '7'::xid",
    "schema renamed": "ALTER SCHEMA latchkey RENAME TO other",
    "reading revoked": "REVOKE ALL ON k FROM application; GRANT UPDATE, DELETE, TRUNCATE ON k TO application",
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_the_triggers_fail_no_statement_of_the_applications(
    cluster: PrivateCluster, databases: Databases, harm: str
) -> None:
    """If the triggers cannot compare rows, they report a change of the whole table."""
    setup = """CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, subject text, note text, revoked_at timestamptz);
        INSERT INTO k VALUES (1, 'gone', 'x'), (2, 'stays', 'y'), (3, 'later', 'z');
        DO $$ BEGIN CREATE ROLE application LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT ALL ON k TO application"""
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="subject") as site, site.serve():
        assert site.ask(*KEYS).names == ["valid"] * 3
        site.sql(harm)
        with contextlib.closing(cluster.connect(site.dbname, "application")) as conn, conn.cursor() as cursor:
            cursor.execute("UPDATE k SET note = 'changed'")
            cursor.execute("DELETE FROM k")
            cursor.execute("TRUNCATE k")
        since = time.monotonic()
        assert_no_fresh_yes(site, since)
