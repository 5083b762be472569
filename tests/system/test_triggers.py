"""The triggers' cost for the application, and their notifications: no error, and no change missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import psycopg2
import pytest
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import check_config
from harness.proxy import ChaosProxy
from harness.wait import until
from installation import Databases, Installation, prepare

WIDE = "jsonb_build_object('x', (SELECT string_agg(md5(i::text || {0}::text), '') FROM generate_series(1, 2000) i))"


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table of keys with some metadata, and a short heartbeat."""
    made = Installation(cluster, databases.new())
    made.sql("CREATE TABLE t (id bigint PRIMARY KEY, key text NOT NULL, subject text, off timestamptz,"
             " meta jsonb, other int)")  # fmt: skip
    made.sql("INSERT INTO t SELECT i, 'key number ' || i, 'alice', NULL, '{}', 0"
             " FROM generate_series(1, 20) AS i")  # fmt: skip
    made.source("t", table="public.t", id="id", key="key", subject="subject", revoked_at="off",
                metadata="meta")  # fmt: skip
    made.freshness |= {"bound": "1s", "audit": "0s"}
    yield made
    made.close()


def no_longer_valid(site: Installation, key: str) -> bool:
    (answer,) = site.cli.verify(key)
    return answer["verdict"] != "valid" or not answer["fresh"]


@pytest.mark.parametrize(
    ("alter", "back"),
    [
        ("ALTER TABLE t RENAME subject TO sub", "ALTER TABLE t RENAME sub TO subject"),
        ("ALTER TABLE t RENAME off TO offline", "ALTER TABLE t RENAME offline TO off"),
        ("ALTER TABLE t RENAME meta TO metadata", "ALTER TABLE t RENAME metadata TO meta"),
        ("ALTER TABLE t RENAME id TO number", "ALTER TABLE t RENAME number TO id"),
        ("ALTER TABLE t DROP subject", "ALTER TABLE t ADD subject text DEFAULT 'bob'"),
    ],
    ids=lambda value: value.removeprefix("ALTER TABLE t ") if isinstance(value, str) else None,
)
@pytest.mark.parametrize(
    "change", ["DELETE FROM t WHERE key = 'key number 1'", "UPDATE t SET key = 'new ' || key"]
)
def test_a_mapped_column_that_is_gone_fails_no_statement(
    site: Installation, alter: str, back: str, change: str
) -> None:
    with site.serve():
        assert site.verdict("key number 1") == "valid"
        site.sql(alter)
        site.sql(change)
        site.sql("INSERT INTO t (key, other) SELECT 'x', 1 WHERE false")
        site.sql("UPDATE t SET other = 1")
        until(lambda: no_longer_valid(site, "key number 1"), 5, "not valid and fresh")
        site.sql(back)
        site.grant()  # the DROP has removed the column's grants
        until(lambda: site.source_status("t")["suspended"] is False, 10, "read again")
        assert site.verdict("key number 1") == "unknown"


def test_a_change_of_very_many_rows_is_told_of_in_one_word(site: Installation) -> None:
    site.sql("INSERT INTO t SELECT i, 'key number ' || i FROM generate_series(21, 100020) AS i")
    with site.serve():
        before = site.database_status()["notifications"]
        site.sql("UPDATE t SET off = now() WHERE id <= 100000")
        assert site.ask("key number 7").names == ["revoked"]
        few = site.database_status()["notifications"] - before
        assert few > 1, "each by its id"
        before += few
        site.sql("UPDATE t SET subject = 'bob'")
        asked = site.ask("key number 7", "key number 100020")
        assert asked.names == ["revoked", "valid"]
        assert asked[1]["sub"] == "bob"
        assert site.database_status()["notifications"] - before == 1


def test_metadata_that_are_not_served_are_not_compared(site: Installation) -> None:
    """Metadata too large to be served, before and after: the trigger has nothing to report."""
    site.more = "[[allow]]\nuid = 0\nmetadata = true\nreasons = true\n"

    def served() -> object:
        return site.ask("key number 1", metadata=True)[0].get("metadata")

    with site.serve():
        assert served() == "{}"
        site.sql(f"UPDATE t SET meta = {WIDE.format(1)} WHERE id = 1")
        assert served() is None
        before = site.database_status()["notifications"]
        site.sql(f"UPDATE t SET meta = {WIDE.format(2)} WHERE id = 1")
        site.sql("UPDATE t SET other = 2")
        site.sql("UPDATE t SET meta = '{\"tier\":\"gold\"}' WHERE id = 1")
        assert served() == '{"tier": "gold"}'
        assert site.database_status()["notifications"] - before == 1
        site.sql(f"UPDATE t SET meta = {WIDE.format(3)} WHERE id = 1")
        assert served() is None


def letters(count: int) -> str:
    """SQL for a text of this length that does not compress."""
    blocks = f"SELECT md5(j::text) FROM generate_series(1, {count // 32 + 1}) AS j"
    return f"(SELECT left(string_agg(b.md5, ''), {count}) FROM ({blocks}) AS b)"


# SQL: documents around each limit. Their stored size differs a lot from their size as text.
SHAPES = {
    "none": "NULL::jsonb",
    "small": "jsonb_build_object('x', 1)",
    "3 KB": f"jsonb_build_object('x', {letters(3000)})",
    "6 KB": f"jsonb_build_object('x', {letters(6000)})",
    "25 KB": f"jsonb_build_object('x', {letters(25000)})",
    "3 KB that compress": "jsonb_build_object('x', repeat('x', 3000))",
    "100 KB that compress": "jsonb_build_object('x', repeat('x', 100000))",
    "700 KB that compress to 8 KB": "jsonb_build_object('x', repeat('x', 700000))",
    "numbers, 16 KB in memory": "(SELECT jsonb_agg(j % 10) FROM generate_series(1, 1000) AS j)",
    "numbers, 6 KB in memory": "(SELECT jsonb_agg(j % 10) FROM generate_series(1, 400) AS j)",
}


@pytest.mark.parametrize("storage", ["EXTENDED", "EXTERNAL"])
def test_metadata_of_any_shape_are_told_of(site: Installation, storage: str) -> None:
    """Each shape follows each other one; the daemon serves the same as after a load."""
    site.more = "[[allow]]\nuid = 0\nmetadata = true\nreasons = true\n"
    site.freshness["audit"] = "200ms"
    site.sql(f"ALTER TABLE t ALTER meta SET STORAGE {storage}, ALTER meta DROP NOT NULL")
    expected = (
        "SELECT CASE WHEN pg_column_size(meta) <= 5120 AND octet_length(meta::text) < 4000"
        " THEN meta::text END FROM t WHERE id = 1"
    )
    with site.serve():
        seen = set()
        for shape in (shape for pair in itertools.combinations(SHAPES.values(), 2) for shape in pair):
            site.sql(f"UPDATE t SET meta = {shape} WHERE id = 1")
            (answer,) = site.ask("key number 1", metadata=True)
            assert answer.get("metadata") == site.value(expected), shape
            seen.add(answer.get("metadata"))
            site.sql("UPDATE t SET other = 2 WHERE id = 1")
        assert len(seen) >= 4
        audits = site.source_status("t")["audits"]
        until(lambda: site.source_status("t")["audits"] > audits + 1, 10, "audits go on")
        status = site.source_status("t")
        assert (status["audit_mismatches"], status["loads"]) == (0, 1)


# ---- re-reads

ID_TYPES = {
    "smallint": "(i % 30000)::smallint",
    "integer": "i",
    "bigint": "i::bigint",
    "uuid": "lpad(i::text, 32, '0')::uuid",
    "numeric": "i + 0.50",
    "numeric(20,3)": "i",
    "text": "'k' || i",
    "varchar(20)": "'k' || i",
    "char(12)": "'k' || i",
    "bytea": "decode(lpad(i::text, 8, '0'), 'hex')",
    "whole": "i",  # a domain over bigint
    "code": "'k' || i",  # a domain over a domain over char(8)
}


@pytest.mark.parametrize("id_type", ID_TYPES)
def test_changes_are_read_by_index(
    cluster: PrivateCluster, databases: Databases, id_type: str
) -> None:
    site = Installation(cluster, databases.new())
    site.sql("CREATE DOMAIN whole AS bigint; CREATE DOMAIN letters AS char(8); CREATE DOMAIN code AS letters")
    site.sql(f"CREATE TABLE t (id {id_type} PRIMARY KEY, key text NOT NULL, off timestamptz)")
    site.sql(f"INSERT INTO t SELECT {ID_TYPES[id_type]}, 'key number ' || i FROM generate_series(1, 20000) i")
    site.sql("CREATE INDEX ON t (key); ANALYZE t")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.freshness |= {"audit": "0s"}

    def scans(kind: str) -> int:
        return int(site.value(f"SELECT {kind}_scan FROM pg_stat_user_tables"))

    with site.serve():
        assert site.verdict("key number 5") == "valid"
        before = site.value("SELECT count(*) FROM pg_stat_activity")  # a new statement, no snapshot
        assert before
        site.sql("UPDATE t SET off = now() WHERE key = 'key number 5'")
        assert site.verdict("key number 5") == "revoked"
        assert site.source_status("t")["malformed_ids"] == 0
        assert site.source_status("t")["rereads"] == 1
    # A session reports its statistics at the latest when it ends. Two found the row by an index:
    # the UPDATE and the re-read. The load, CREATE INDEX and ANALYZE read the whole table.
    until(lambda: scans("idx") >= 2, 10, "both are in the statistics")
    assert scans("seq") <= 3
    site.close()


def test_a_re_read_that_takes_long_is_given_the_time(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Ten seconds without a message from the server are too long; half a minute of rows is not."""
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text NOT NULL, subject text)")
    site.sql("INSERT INTO t SELECT i, 'key number ' || i, repeat('a', 700) FROM generate_series(1, 900) i")
    site.source("t", table="public.t", id="id", key="key", subject="subject")
    site.freshness |= {"bound": "60s", "heartbeat": "1s", "audit": "0s"}
    with ChaosProxy(cluster.socket_dir / f".s.PGSQL.{cluster.port}") as proxy:
        site.database["conninfo"] = cluster.conninfo(site.dbname, PASSWORD_ROLE, host=str(proxy.folder))
        with site.serve():
            failures = site.database_status()["failures"]
            proxy.throttle(40_000)
            site.sql("UPDATE t SET subject = repeat('b', 700)")
            (answer,) = site.cli.verify("key number 1")
            assert answer["sub"] == "a" * 700
            until(lambda: site.cli.verify("key number 900")[0]["sub"] == "b" * 700, 60, "read")
            assert site.database_status()["failures"] == failures
            proxy.heal()
    site.close()


def test_prepared_transactions_are_told_of() -> None:
    """PostgreSQL refuses PREPARE TRANSACTION after a NOTIFY. (Without prepared transactions, there is no finding.)"""
    with PrivateCluster(settings={"max_prepared_transactions": "1"}) as cluster:
        prepare(cluster, ())
        site = Installation(cluster, Databases(cluster).new())
        site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE NOT NULL)")
        site.source("t", table="public.t", id="id", key="key")
        site.install()
        assert "L408 note: source \"t\"" in check_config(site.config).stdout
        with pytest.raises(psycopg2.errors.FeatureNotSupported):
            site.sql("BEGIN; INSERT INTO t VALUES (1, 'k'); PREPARE TRANSACTION 'two-phase'")
        site.close()


def test_metadata_that_shrink_when_they_are_stored_are_told_of(site: Installation) -> None:
    """A name takes 64 bytes in memory, hardly any compressed, and few as text."""
    site.sql("ALTER TABLE t DROP meta; ALTER TABLE t ADD meta name[]")
    site.sql("UPDATE t SET meta = (SELECT array_agg(md5(i::text)::name) FROM generate_series(1, 1200) i)")
    site.more = "[[allow]]\nuid = 0\nmetadata = true\nreasons = true\n"
    with site.serve():
        assert "metadata" not in site.ask("key number 1", metadata=True)[0]
        site.sql("UPDATE t SET meta = array_fill('a'::name, ARRAY[400])")
        (answer,) = site.ask("key number 1", metadata=True)
        assert answer["metadata"] == "{" + ",".join("a" * 400) + "}"
