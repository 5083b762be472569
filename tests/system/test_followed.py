"""A table that cannot be followed as it should be: its answers say so, and no other table suffers.

What the heartbeat looks at besides (triggers, row level security, which table it is) closes the gap
that a notification cannot tell of: a change made while nobody would have told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import check_config
from harness.wait import until
from installation import Databases, Installation

TABLE = "CREATE TABLE {0} (id bigint PRIMARY KEY, key text NOT NULL, off timestamptz)"


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """Two tables with a source and a key each, and a role that no other test gives rights to."""
    made = Installation(cluster, databases.new(), user="follower")
    for name in ("one", "two"):
        made.sql(TABLE.format(name))
        made.sql(f"INSERT INTO {name} VALUES (1, 'key of {name}')")
        made.source(name, table=f"public.{name}", id="id", key="key", revoked_at="off")
    made.freshness |= {"bound": "1s", "heartbeat": "100ms", "audit": "0s"}
    yield made
    made.close()


def revoke(site: Installation, table: str) -> None:
    """Take the table's key back."""
    site.sql(f"UPDATE {table} SET off = now()")


def answer(site: Installation, table: str) -> dict[str, Any]:
    """The answer on the table's key, as it is just now."""
    return site.cli.verify(f"key of {table}")[0]


def wait_state(site: Installation, source: str, **expected: Any) -> None:
    """Until `status` says all that."""
    site.wait_source(source, **expected)


def assert_other_is_followed(site: Installation) -> None:
    """Source "two" hears of changes as if nothing had happened."""
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
    """Nothing is notified, and after it everything looks as before."""
    if "RENAME" in silence:
        # The other table brings triggers and grants with it.
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
        # A change, so that it is noticed even where the heartbeat does not see it.
        site.sql("SELECT pg_notify('latchkey', '{\"t\": \"public.one\", \"ids\": [\"1\"]}')")
        wait_state(site, "one", suspended=True)
        # At first in PostgreSQL's words, then with advice.
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
        # Forged: no LATIN1 text holds a euro sign.
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
    """One table, audited all the time."""
    made = Installation(cluster, databases.new("external_credentials"))
    made.source("external", preset="external_credentials")
    made.freshness["audit"] = "200ms"
    yield made
    made.close()


def test_audits_agree_while_rows_of_every_kind_come_and_go(audited: Installation) -> None:
    """No false alarm: odd rows, metadata, nulls, and changes during the audits."""
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


def test_an_audit_names_the_rows_and_reads_the_table_anew(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """A statement on a partition fires no trigger of its parent."""
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
