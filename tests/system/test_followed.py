"""A table that cannot be followed: its answers say so, and no other table suffers.

The heartbeat also compares triggers, row-level security and the table's identity. This covers
changes that no notification can report: those made while the triggers were absent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import check_config
from harness.wait import until
from harness.proxy import ChaosProxy
from installation import Databases, Installation

TABLE = "CREATE TABLE {0} (id bigint PRIMARY KEY, key text NOT NULL, off timestamptz)"


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """Two tables with a source and a key each, and a role that has no rights from other tests."""
    made = Installation(cluster, databases.new(), user="follower")
    for name in ("one", "two"):
        made.sql(TABLE.format(name))
        made.sql(f"INSERT INTO {name} VALUES (1, 'key of {name}')")
        made.source(name, table=f"public.{name}", id="id", key="key", revoked_at="off")
    made.freshness |= {"bound": "1s", "heartbeat": "100ms", "audit": "0s"}
    yield made
    made.close()


def revoke(site: Installation, table: str) -> None:
    """Revoke the table's key."""
    site.sql(f"UPDATE {table} SET off = now()")


def answer(site: Installation, table: str) -> dict[str, Any]:
    """The present answer on the table's key, without a sync."""
    return site.cli.verify(f"key of {table}")[0]


def wait_state(site: Installation, source: str, **expected: Any) -> None:
    """Return once `status` has these values."""
    site.wait_source(source, **expected)


def assert_other_is_followed(site: Installation) -> None:
    """Source "two" receives changes undisturbed."""
    assert answer(site, "two")["fresh"]
    before = site.database_status()["failures"]
    site.sql("UPDATE two SET off = NULL")
    until(lambda: answer(site, "two")["verdict"] == "valid", 5, "restored")
    revoke(site, "two")
    until(lambda: answer(site, "two")["verdict"] == "revoked", 5, "revoked")
    assert answer(site, "two")["fresh"]
    assert site.database_status()["failures"] == before, "no connection was lost"


def test_without_its_triggers_a_table_is_read_again_and_again(site: Installation) -> None:
    with site.serve() as daemon:
        site.sql("ALTER TABLE one DISABLE TRIGGER latchkey_update")
        wait_state(site, "one", polled=True)
        assert any("not ENABLE ALWAYS" in line for line in site.source_status("one")["problems"])
        revoke(site, "one")
        until(lambda: answer(site, "one")["verdict"] == "revoked", 10, "read again")
        assert_other_is_followed(site)
        site.sql("ALTER TABLE one ENABLE ALWAYS TRIGGER latchkey_update")
        wait_state(site, "one", polled=False, suspended=False)
        assert "problems" not in site.source_status("one")
        site.sql("UPDATE one SET off = NULL")
        assert site.ask("key of one").names == ["valid"]
        assert answer(site, "one")["fresh"]
        log = daemon.log()
    assert log.count("not ENABLE ALWAYS") == 1, "said once, not at each reading"
    assert "followed again" in log


@pytest.mark.parametrize(
    "silence",
    [
        "ALTER TABLE one DISABLE TRIGGER latchkey_update; {};"
        " ALTER TABLE one ENABLE ALWAYS TRIGGER latchkey_update",
        "CREATE TABLE other (LIKE one INCLUDING ALL); INSERT INTO other SELECT id, key, now() FROM"
        " one; ALTER TABLE one RENAME TO old; ALTER TABLE other RENAME TO one",
    ],
    ids=["triggers switched off and on", "another table of the same name"],
)
def test_what_happened_in_between_is_found_by_the_next_heartbeat(
    site: Installation, silence: str
) -> None:
    """No notification is sent, and afterwards the table looks as before."""
    if "RENAME" in silence:
        # The other table has its own triggers and grants.
        installed = site.cli.sql("grant", site.config, "one") + site.cli.sql(
            "install", site.config, "one"
        )
    with site.serve():
        assert answer(site, "one")["verdict"] == "valid"
        before = site.database_status()["notifications"]
        site.sql("BEGIN; " + silence.format("UPDATE one SET off = now()") + "; COMMIT")
        if "RENAME" in silence:
            site.cluster.psql(installed, site.dbname)
        assert site.database_status()["notifications"] == before, "nobody told"
        assert site.ask("key of one").names == ["revoked"], "sync waits for what it found"
        wait_state(site, "one", polled=False, suspended=False)
        until(lambda: answer(site, "one")["fresh"], 5, "followed")


@pytest.mark.parametrize(
    ("damage", "repair", "words"),
    [
        ("ALTER TABLE one RENAME TO gone", "ALTER TABLE gone RENAME TO one", "there is no table"),
        (
            "REVOKE SELECT ON one FROM follower; REVOKE SELECT (id, key, off) ON one FROM follower",
            "GRANT SELECT (id, key, off) ON one TO follower",
            "may not read column",
        ),
        (
            "ALTER TABLE one RENAME COLUMN off TO switched_off",
            "ALTER TABLE one RENAME COLUMN switched_off TO off",
            'has no column "off"',
        ),
        (
            "ALTER TABLE one ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE one DISABLE ROW LEVEL SECURITY",
            "row level security hides rows",
        ),
    ],
    ids=["table", "grant", "column", "row level security"],
)
def test_a_table_that_cannot_be_read_ages_alone(
    site: Installation, damage: str, repair: str, words: str
) -> None:
    with site.serve() as daemon:
        site.sql(damage)
        # A change, so that the daemon detects the damage even where the heartbeat does not see it.
        site.sql("SELECT pg_notify('latchkey', '{\"t\": \"public.one\", \"ids\": [\"1\"]}')")
        wait_state(site, "one", suspended=True)
        # First with PostgreSQL's message, then with advice.
        until(
            lambda: any(words in line for line in site.source_status("one").get("problems", [])),
            10,
            f"status says {words}",
        )
        until(lambda: not answer(site, "one")["fresh"], 5, "its answers are not fresh")
        assert answer(site, "one")["verdict"] == "valid", "served, with its age"
        assert_other_is_followed(site)
        site.cli.sync("1s", expect=3)
        site.sql(repair)
        wait_state(site, "one", suspended=False)
        revoke(site, "one")
        assert site.ask("key of one").names == ["revoked"]
        until(lambda: answer(site, "one")["fresh"], 5, "followed again")
        assert words in daemon.log()


def test_a_lock_on_one_table_holds_back_no_other(site: Installation) -> None:
    with site.serve():
        locker = site.cluster.connect(site.dbname, autocommit=False)
        with locker.cursor() as cursor:
            cursor.execute("UPDATE one SET off = now()")
            cursor.execute("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
            site.sql("SELECT pg_notify('latchkey', '{\"t\": \"public.one\", \"ids\": [\"1\"]}')")
            wait_state(site, "one", suspended=True)
            assert any("lock timeout" in line for line in site.source_status("one")["problems"])
            until(lambda: answer(site, "two")["fresh"], 5, "the other goes on")
            revoke(site, "two")
            until(lambda: answer(site, "two")["verdict"] == "revoked", 10, "followed")
            assert site.database_status()["failures"] == 0
        locker.commit()
        locker.close()
        assert site.ask("key of one").names == ["revoked"]
        wait_state(site, "one", suspended=False)


def test_what_looks_like_a_race_for_ever_is_told_of(site: Installation) -> None:
    """The daemon silently repeats a read that fails because the table was just altered. Code of the
    table's owner may raise the same error each time."""
    with site.serve():
        site.sql(
            """CREATE FUNCTION moody(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                IF current_user = 'follower' THEN
                    RAISE EXCEPTION USING ERRCODE = 'invalid_text_representation';
                END IF;
                RETURN 1; END $$;
            CREATE INDEX ON one (key) WHERE moody(1) = 1"""
        )
        revoke(site, "one")
        wait_state(site, "one", suspended=True)
        (found,) = [f for f in site.source_status("one")["findings"] if f["severity"] == "error"]
        assert found["number"] == "L115" and "22P02" in found["text"]
        assert_other_is_followed(site)
        site.sql("DROP FUNCTION moody CASCADE")
        wait_state(site, "one", suspended=False)
        until(lambda: answer(site, "one")["fresh"], 10, "followed again")
        assert answer(site, "one")["verdict"] == "revoked"


def test_a_lock_on_a_partitioned_table_holds_back_no_other(site: Installation) -> None:
    """This includes a lock that keeps the table from being looked up."""
    site.sql(TABLE.format("parted") + " PARTITION BY RANGE (id)")
    site.sql("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10)")
    site.sql("INSERT INTO parted VALUES (1, 'key of parted')")
    site.source("parted", table="public.parted", id="id", key="key", revoked_at="off")
    with site.serve():
        assert answer(site, "parted")["fresh"]
        with contextlib.closing(site.cluster.connect(site.dbname)) as other:
            other.autocommit = False
            other.cursor().execute("LOCK TABLE parted; UPDATE parted SET off = now()")
            site.sql("""SELECT pg_notify('latchkey', '{"t":"public.parted","reload":true}')""")
            wait_state(site, "parted", suspended=True)
            assert_other_is_followed(site)
            other.commit()
        until(lambda: answer(site, "parted")["verdict"] == "revoked", 10, "revoked")
        wait_state(site, "parted", suspended=False)


def test_an_id_that_the_database_cannot_spell_cuts_no_connection(
    cluster: PrivateCluster, databases: Databases
) -> None:
    cluster.sql(
        "CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    )
    site = Installation(cluster, "latin1")
    site.sql("CREATE TABLE t (id text PRIMARY KEY, key text, off timestamptz)")
    site.sql("INSERT INTO t VALUES ('\u00e9t\u00e9', 'the key')")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    with site.serve():
        assert site.verdict("the key") == "valid"
        before = site.database_status()["failures"]
        # The notification is forged: no LATIN1 text holds a euro sign.
        notice = '{"t": "public.t", "ids": ["\\u20ac"]}'
        site.sql("SELECT pg_notify('latchkey', %s)", notice)
        site.sql("UPDATE t SET off = now()")
        assert site.verdict("the key") == "revoked", "a real id that is not ASCII"
        assert site.database_status()["failures"] == before
    site.close()
    databases.drop("latin1")


def test_ids_that_may_be_no_text_are_refused_at_the_start(
    cluster: PrivateCluster, databases: Databases
) -> None:
    cluster.sql("CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    site = Installation(cluster, "ascii")
    site.sql("CREATE TABLE t (id text PRIMARY KEY, number bigint UNIQUE NOT NULL, key text)")
    site.source("t", table="public.t", id="id", key="key")
    site.install()
    assert "SQL_ASCII" in check_config(site.config).expect(1).stdout
    site.source("t", table="public.t", id="number", key="key")
    site.install()
    site.check()
    site.close()
    databases.drop("ascii")


# ---- audits


@pytest.fixture
def audited(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """One table under continuous audits."""
    made = Installation(cluster, databases.new("external_credentials"))
    made.source("external", preset="external_credentials")
    made.freshness["audit"] = "200ms"
    yield made
    made.close()


def test_audits_agree_while_rows_of_every_kind_come_and_go(audited: Installation) -> None:
    """No false alarm for odd rows, metadata, nulls, and changes during the audits."""
    for i in range(50):
        seeds.insert_external(audited.conn, f"sk_{i}", i, {"row": i}, deleted=i % 3 == 0)
    with audited.serve():
        for i in range(200):
            audited.sql("UPDATE external_credentials SET data = %s WHERE copper_id = %s", "{}", i % 50)
            if i % 10 == 0:
                audited.sql("DELETE FROM external_credentials WHERE copper_id = %s", i % 50)
            if i % 7 == 0:
                seeds.insert_external(audited.conn, f"sk_more_{i}", 1000 + i, {"x": "y" * 5000})
        until(lambda: audited.source_status("external")["audits"] >= 3, 10, "audits went on")
        status = audited.source_status("external")
        assert status["audit_mismatches"] == 0 and status["audits_failed"] == 0
        assert status["loads"] == 1, "nothing was read anew"
        assert status["audited_ago_s"] < 10
        assert status["unseen_s"] <= status["unseen_max_s"] < 20


def test_an_audit_names_the_rows_and_reads_the_table_anew(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """A statement on a partition does not fire its parent's triggers."""
    site = Installation(cluster, databases.new())
    site.sql(
        """CREATE TABLE t (id bigint PRIMARY KEY, key text, off timestamptz) PARTITION BY HASH (id);
           CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);
           INSERT INTO t SELECT i, 'key ' || i FROM generate_series(1, 5000) AS i"""
    )
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.freshness["audit"] = "300ms"
    with site.serve() as daemon:
        assert site.verdict("key 17") == "valid"
        site.sql("UPDATE t_0 SET off = now() WHERE id IN (17, 23)")
        site.sql("DELETE FROM t_0 WHERE id = 99")
        site.sql("INSERT INTO t_0 VALUES (7777, 'key 7777')")
        keys = ("key 17", "key 23", "key 99", "key 7777", "key 1")
        expected = ["revoked", "revoked", "unknown", "valid", "valid"]
        until(lambda: site.cli.verify(keys).names == expected, 10, "found")
        status = site.source_status("t")
        assert status["audit_mismatches"] >= 1 and status["audits"] >= 1
        log = daemon.log()
    assert "AUDIT" in log
    assert any(number in log for number in ("id 17", "17,", "23", "99", "7777"))
    site.close()


def test_an_audit_that_fails_costs_no_connection(audited: Installation) -> None:
    seeds.insert_external(audited.conn, "sk_1", 1)
    with audited.serve():
        until(lambda: audited.source_status("external")["audits"] >= 1, 10, "audited")
        locker = audited.cluster.connect(audited.dbname, autocommit=False)
        with locker.cursor() as cursor:
            cursor.execute("LOCK TABLE external_credentials IN ACCESS EXCLUSIVE MODE")
            until(
                lambda: audited.source_status("external")["audits_failed"] >= 1, 10, "it failed"
            )
            assert audited.cli.verify("sk_1")[0]["fresh"]
        locker.rollback()
        locker.close()
        audits = audited.source_status("external")["audits"]
        until(lambda: audited.source_status("external")["audits"] > audits, 10, "the next one")
        assert audited.database_status()["failures"] == 0
        assert audited.source_status("external")["audit_mismatches"] == 0


def test_while_one_table_is_read_for_long_the_others_stay_fresh(site: Installation) -> None:
    """Meanwhile the reading connection cannot send heartbeats. A third connection does, in turn with audits."""
    site.sql("INSERT INTO one SELECT i, repeat('x', 1000) || i FROM generate_series(2, 3000) AS i")
    site.freshness["audit"] = "300ms"
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'follower'"
    with ChaosProxy(site.cluster.socket_dir / f".s.PGSQL.{site.cluster.port}") as proxy:
        site.database["conninfo"] = site.cluster.conninfo(
            site.dbname, "follower", host=str(proxy.folder)
        )
        with site.serve():
            loads = site.source_status("one")["loads"]
            proxy.throttle(20_000, where=lambda facts: facts.loads)
            site.reload("public.one")
            until(lambda: site.source_status("one")["loading"], 10, "it is being read")
            failures, heartbeats = (site.database_status()[n] for n in ("failures", "heartbeats"))
            fresh: list[bool] = []

            def beats() -> bool:
                fresh.append(answer(site, "two")["fresh"])
                assert site.value(sessions) <= 3
                return bool(site.database_status()["heartbeats"] > heartbeats + 20)

            until(beats, 30, "heartbeats go on")
            assert site.source_status("one")["loading"], "all the while"
            assert fresh.count(False) <= len(fresh) // 10, "a busy machine may be late once"
            proxy.heal()
            until(lambda: site.source_status("one")["loads"] > loads, 20, "it is read")
            assert_other_is_followed(site)
            assert site.database_status()["failures"] == failures
            until(lambda: site.source_status("two")["audits"] > 0, 20, "audits have their turn again")
