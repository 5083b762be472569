"""`last_used_at`, written back: off by default, forward only, for each type of id and of column."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from harness.postgres import PrivateCluster
from harness.programs import check_config
from harness.wait import until
from installation import Databases, Installation
from last_uses import LATE, last_used, rows, table, used, wait_used, writing_soon


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    with writing_soon(cluster, databases) as there:
        yield there


DAY = 86400


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
