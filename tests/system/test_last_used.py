"""`last_used_at`, written back: off by default, forward only, and without cost to callers."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Cli, Daemon, check_config
from harness.wait import until
from installation import Databases, Installation

SOON = '[last_used]\nflush = "1s"\n'
LATE = '[last_used]\nflush = "10m"\n'  # later than the daemon's end

DAY = 86400


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    there = Installation(cluster, databases.new())
    there.more = SOON
    yield there
    there.close()


def table(
    site: Installation, column: str = "timestamptz", id_type: str = "int", **settings: Any
) -> None:
    """Create a table with a column for the last use, mapped unless `last_used_at` is false."""
    site.sql(
        f"CREATE TABLE t (id {id_type} PRIMARY KEY, key text, off timestamptz, used {column})"
    )
    mapped = {"last_used_at": "used"} | settings
    if mapped["last_used_at"] is False:
        del mapped["last_used_at"]
    site.source("t", table="public.t", id="id", key="key", revoked_at="off", **mapped)


def rows(site: Installation, *numbers: int) -> None:
    for number in numbers:
        site.sql("INSERT INTO t VALUES (%s, %s)", number, f"key {number}")


def used(site: Installation, row_id: int | str = 1) -> Any:
    return site.value("SELECT used FROM t WHERE id = %s", row_id)


def last_used(site: Installation) -> dict[str, int]:
    return site.source_status("t")["last_used"]


def wait_used(site: Installation, *row_ids: int | str) -> None:
    def all_written() -> bool:
        return all(used(site, row_id) is not None for row_id in row_ids)

    until(all_written, 30, f"the last use of {row_ids} is written")


# ---- off, on


def test_nothing_is_written_unless_the_column_is_mapped(site: Installation) -> None:
    table(site, last_used_at=False)
    rows(site, 1)
    site.sql("ALTER TABLE t RENAME used TO last_used_at")
    with site.serve():
        assert site.verdict("key 1") == "valid"
        assert "last_used" not in site.source_status("t")
    assert site.value("SELECT last_used_at FROM t") is None
    assert "UPDATE" not in site.cli.sql("grant", site.config)


def test_seconds_are_not_written_among_milliseconds(site: Installation) -> None:
    """The application's writes to that column must not look like a lost change to an audit."""
    table(site, "bigint")
    site.sql("CREATE TABLE u (LIKE t INCLUDING ALL)")
    site.source("u", table="public.u", id="id", key="key", last_used_at="used")
    site.sql("INSERT INTO t VALUES (1, 'key 1', NULL, 1790000000000), (2, 'key 2', NULL, NULL)")
    site.sql("INSERT INTO u VALUES (1, 'other 1')")
    site.freshness["audit"] = "200ms"
    with site.serve():
        assert site.ask("key 2", "other 1").names == ["valid", "valid"]
        until(lambda: site.value("SELECT used FROM u") is not None, 30, "others are written")
        assert (used(site, 2), last_used(site)["written"]) == (None, 0)
        site.sql("UPDATE t SET used = 1790000000000 WHERE id = 2")
        audits = site.source_status("t")["audits"]
        until(lambda: site.source_status("t")["audits"] >= audits + 3, 30, "it is audited")
        assert site.source_status("t")["audit_mismatches"] == 0
        site.sql("UPDATE t SET used = NULL")
        site.reload("public.t")
        site.wait_source("t", loads=2)
        assert site.ask("key 2").names == ["valid"]
        wait_used(site, 2)


@pytest.mark.parametrize("preset", ["external_credentials", "auth_api_key", "api_keys"])
def test_no_preset_maps_it(site: Installation, preset: str) -> None:
    site.source("t", preset=preset, **({"peppers": "/"} if preset == "api_keys" else {}))
    assert "UPDATE" not in site.cli.sql("grant", site.config)


@pytest.mark.parametrize(
    ("column", "zone", "epoch", "resolution_s"),
    [
        ("timestamptz", "Asia/Tokyo", "used", 0),
        ("timestamp", "UTC", "used AT TIME ZONE 'UTC'", 0),
        ("timestamp(0)", "Asia/Tokyo", "used AT TIME ZONE 'Asia/Tokyo'", 1),
        ("date", "Asia/Tokyo", "used::timestamp AT TIME ZONE 'Asia/Tokyo'", DAY),
        ("integer", "UTC", "to_timestamp(used)", 1),
        ("bigint", "UTC", "to_timestamp(used)", 1),
    ],
)
def test_each_type_of_column_holds_the_time(
    site: Installation, column: str, zone: str, epoch: str, resolution_s: int
) -> None:
    table(site, column, time_zone=zone)
    rows(site, 1)
    with site.serve():
        before = time.time()
        assert site.verdict("key 1") == "valid"
        after = time.time()
        wait_used(site, 1)
        written = float(site.value(f"SELECT extract(epoch FROM {epoch}) FROM t"))
        assert before - resolution_s <= written <= after + resolution_s
        site.wait_source(
            "t",
            last_used={"written": 1, "pending": 0, "deferred": 0, "dropped": 0, "failures": 0},
        )
        told = site.cli.run("--socket", str(site.socket), "status").expect(0).stdout
        assert "last_used_at: written 1 pending 0 deferred 0 dropped 0 failures 0" in told


ODD_ID = "back\\slash, {brace} \"quote\" 'single' \t ünï"


@pytest.mark.parametrize(
    ("id_type", "row_id"),
    [
        ("bigint", "-9223372036854775808"),
        ("smallint", "7"),
        ("uuid", str(uuid.UUID(int=2**128 - 1))),
        ("text", ODD_ID),
        ("text", ""),
        ("varchar(100)", ODD_ID),
        ("char(8)", "short"),
        ("numeric", "1.50"),
    ],
)
def test_rows_are_found_by_ids_of_any_type(
    site: Installation, id_type: str, row_id: str
) -> None:
    table(site, id_type=id_type)
    site.sql("INSERT INTO t VALUES (%s, 'the key')", row_id)
    with site.serve():
        assert site.verdict("the key") == "valid"
        wait_used(site, row_id)


def test_names_are_quoted(site: Installation) -> None:
    odd = "it's \"odd\" \\ ünï"
    quoted = '"' + odd.replace('"', '""') + '"'
    site.sql(f"CREATE SCHEMA {quoted}")
    site.sql(f'CREATE TABLE {quoted}.{quoted} ("I d" int PRIMARY KEY, key text, {quoted} date)')
    site.sql(f"INSERT INTO {quoted}.{quoted} VALUES (1, 'the key')")
    site.source(
        "t", table=f"{quoted}.{quoted}", id="I d", key="key", last_used_at=odd, time_zone="UTC"
    )
    with site.serve():
        assert site.verdict("the key") == "valid"
        where = f"SELECT {quoted} FROM {quoted}.{quoted}"
        until(lambda: site.value(where) is not None, 30, "the last use is written")


def test_partitioned_tables(site: Installation) -> None:
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text, used date) PARTITION BY HASH (id)")
    for part in (0, 1):
        site.sql(
            f"CREATE TABLE t{part} PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER {part})"
        )
    site.source("t", table="public.t", id="id", key="key", last_used_at="used")
    site.sql("INSERT INTO t SELECT g, 'key ' || g FROM generate_series(1, 9) g")
    with site.serve():
        assert site.ask(*(f"key {i}" for i in range(1, 10))).names == ["valid"] * 9
        wait_used(site, *range(1, 10))


# ---- the written value


def test_it_moves_forward_only(site: Installation) -> None:
    """A later time written by the application is kept, and so is an infinity."""
    table(site)
    rows(site, 1, 2, 3, 4)
    site.sql("UPDATE t SET used = '2999-01-01' WHERE id = 1")
    site.sql("UPDATE t SET used = 'infinity' WHERE id = 2")
    site.sql("UPDATE t SET used = '1999-01-01' WHERE id = 3")
    with site.serve():
        assert site.ask("key 1", "key 2", "key 3", "key 4").names == ["valid"] * 4
        wait_used(site, 4)
        site.wait_source(
            "t",
            last_used={"written": 2, "pending": 0, "deferred": 0, "dropped": 0, "failures": 0},
        )
    years = site.sql("SELECT extract(year FROM used)::text FROM t WHERE id < 4 ORDER BY id")
    assert years[:2] == [("2999",), ("Infinity",)]
    assert years[2] > ("2000",)


def test_it_is_written_again_when_a_key_is_used_again(site: Installation) -> None:
    table(site)
    rows(site, 1)
    with site.serve():
        assert site.verdict("key 1") == "valid"
        wait_used(site, 1)
        first = used(site)

        def moved() -> bool:
            assert site.verdict("key 1") == "valid"
            return used(site) > first

        until(moved, 30, "a later use is written")


def test_a_period_costs_a_key_one_update(site: Installation) -> None:
    table(site)
    rows(site, 1)
    site.more = LATE
    with site.serve():
        for _ in range(3):
            assert site.ask(*["key 1"] * 50).names == ["valid"] * 50
    updates = "SELECT pg_stat_force_next_flush(), n_tup_upd FROM pg_stat_user_tables"
    until(lambda: site.sql(updates)[0][1] == 1, 30, "one update is counted")


def test_refused_keys_were_not_used(site: Installation) -> None:
    table(site, scopes="note", expires_at="until")
    site.sql("ALTER TABLE t ADD note text, ADD until timestamptz")
    rows(site, 1, 2, 3, 4)
    site.sql("UPDATE t SET off = now() WHERE id = 2")
    site.sql("UPDATE t SET until = '1999-01-01' WHERE id = 3")
    with site.serve():
        answers = site.ask("key 2", "key 3", "key 5")
        assert answers.names == ["revoked", "expired", "unknown"]
        assert site.verdict("key 4", scopes=["admin"]) == "insufficient_scope"
        assert site.verdict("key 1") == "valid"
    assert site.sql("SELECT id FROM t WHERE used IS NOT NULL") == [(1,)]


def test_a_use_before_the_revocation_still_counts(site: Installation) -> None:
    table(site)
    rows(site, 1)
    site.more = LATE
    with site.serve():
        assert site.verdict("key 1") == "valid"
        site.sql("UPDATE t SET off = now()")
        assert site.verdict("key 1") == "revoked"
    assert used(site) < site.value("SELECT off FROM t")


def test_we_do_not_notify_ourselves(site: Installation) -> None:
    table(site)
    rows(site, 1, 2, 3)
    with site.serve():
        site.sql("UPDATE t SET key = key || '!' WHERE id = 3")
        assert site.ask("key 1", "key 2", "key 3!").names == ["valid"] * 3
        before = site.database_status()["notifications"]
        assert before >= 1, "the triggers work"
        wait_used(site, 1, 2, 3)
        site.cli.sync("30s")  # notifications of those updates would have arrived
        assert site.database_status()["notifications"] == before


# ---- rights


def test_the_grant_gives_update_on_this_column_and_nothing_else(site: Installation) -> None:
    table(site)
    site.install()
    rights = site.sql(
        "SELECT privilege_type, string_agg(column_name, ' ' ORDER BY column_name)"
        "  FROM information_schema.column_privileges"
        " WHERE grantee = 'latchkey' AND table_name = 't' GROUP BY 1 ORDER BY 1"
    )
    assert rights == [("SELECT", "id key off used"), ("UPDATE", "used")]
    whole = "SELECT count(*) FROM information_schema.table_privileges WHERE grantee = 'latchkey'"
    assert site.value(whole) == 0


def test_without_the_right_it_is_refused_with_the_remedy(site: Installation) -> None:
    table(site)
    site.install()
    site.check()
    site.sql("REVOKE UPDATE (used) ON t FROM latchkey")
    done = check_config(site.config)
    assert done.exit_code == 1
    assert 'may not update column "used" of public.t' in done.stdout
    assert "latchkey sql grant --source t" in done.stdout
    site.grant()
    site.check()


def test_a_column_of_another_type_is_refused(site: Installation) -> None:
    table(site, "text")
    site.install()
    done = check_config(site.config)
    assert done.exit_code == 1
    assert "is of type text; last_used_at must be a timestamp" in done.stdout


# ---- failures


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
