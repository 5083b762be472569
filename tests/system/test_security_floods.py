"""A login of the database that owns nothing can do next to nothing by NOTIFY.

PostgreSQL has no rights for channels, so eve may notify on Latchkey's as fast as she likes. Her
notifications may delay the tables that they name a little, and others not at all. None of them hides
a change.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Daemon, sanitized
from harness.wait import scaled, until
from installation import Databases, Installation

# Under a sanitizer, the daemon is several times slower and can read only this many notifications.
# bench/fairness measures the throughput.
IDS_PAUSE_S = 2.0 if sanitized() else 0.01
# Sanitizers keep freed memory for a while.
MEMORY_MAX_KIB = (1 << 20) if sanitized() else (24 << 10)
EVE = "eve_who_floods"  # a role that owns nothing and may read nothing

TRUNCATED = {"t": "public.named", "all": True}


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """Two tables with numeric ids, and two with ids of text."""
    made = Installation(cluster, databases.new())
    made.sql(
        f"DO $$ BEGIN CREATE ROLE {EVE} LOGIN;"
        " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    for table, kind in {"named": "bigint", "other": "bigint", "words": "text"}.items():
        made.sql(f"CREATE TABLE {table} (id {kind} PRIMARY KEY, key text UNIQUE NOT NULL, status text)")
        made.sql(f"INSERT INTO {table} SELECT i, '{key(table, '')}' || i, 'active'"
                 " FROM generate_series(1, 1000) AS i")  # fmt: skip
        made.source(table, table=f"public.{table}", id="id", key="key", status="status")
    yield made
    made.close()


def key(table: str, number: object) -> str:
    """The key of a row: long enough to cause no finding."""
    return f"sk_of_a_table_{table}_{number}"


def revoke(site: Installation, table: str, number: int) -> None:
    site.sql(f"UPDATE {table} SET status = 'revoked' WHERE id = '{number}'")


@contextlib.contextmanager
def eve(site: Installation, statement: str, pause_s: float = 0.01) -> Iterator[Callable[[], int]]:
    """Eve runs this statement repeatedly. Yields a function that counts the runs."""
    stop = threading.Event()
    times = 0
    conn = site.cluster.connect(site.dbname, EVE)

    def run() -> None:
        nonlocal times
        with conn.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(statement)
                times += 1
                stop.wait(pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: times > 0, 10, "she has begun")
        yield lambda: times
    finally:
        stop.set()
        thread.join()
        conn.close()


def forged(**notice: object) -> str:
    """A statement that sends 10 notifications. Blanks make the payloads differ."""
    text = json.dumps(notice)
    return f"SELECT pg_notify('latchkey', '{text}' || repeat(' ', i)) FROM generate_series(1, 10) AS i"


def oldest(site: Installation, keys: list[str], enough: Callable[[], bool]) -> list[float]:
    """The greatest age of each key's answers in seconds, until `enough` returns true."""
    ages = [0] * len(keys)

    def ask() -> bool:
        answers = site.cli.verify(keys)
        ages[:] = [max(age, answer["age_ms"]) for age, answer in zip(ages, answers, strict=True)]
        return enough()

    until(ask, 60, "asked for long enough")
    return [age / 1000 for age in ages]


def test_a_forged_all_reloads_no_table_whose_truncate_would_show(site: Installation) -> None:
    with site.serve():
        assert site.verdict(key("named", 1)) == "valid"
        before = site.source_status("named")["loads"], site.database_status()["heartbeats"]
        begin = time.monotonic()
        with eve(site, forged(**TRUNCATED)) as times:
            until(lambda: times() >= 100, 20, "a thousand were sent")
            revoke(site, "named", 1)
            assert site.verdict(key("named", 1)) == "revoked"
        site.cli.sync("30s")
        status, heartbeats = site.source_status("named"), site.database_status()["heartbeats"]
        assert status["loads"] == before[0]
        # At most one look for each tenth of a heartbeat, and one for each sync.
        assert heartbeats - before[1] <= (time.monotonic() - begin) / 0.01 + 10


@pytest.mark.parametrize("table", ["words", "named"])
def test_a_forged_reload_holds_back_the_proof_of_its_own_table_alone(
    site: Installation, table: str
) -> None:
    """Such a notification may be true: no trigger can send the ids of some changed rows."""
    site.freshness |= {"heartbeat": "50ms"}
    tables = sorted(("words", "named", "other"), key=lambda other: other != table)
    with site.serve():
        loads = site.source_status(table)["loads"]
        with eve(site, forged(t=f"public.{table}", reload=True)):
            # Reloads start at least a second apart.
            enough = lambda: site.source_status(table)["loads"] >= loads + 5  # noqa: E731
            its, *others = oldest(site, [key(one, 1) for one in tables], enough)
        assert its > 0.5, "its proof waits for the reload"
        assert max(others) < its / 2, (its, others)
        assert [site.source_status(other)["loads"] for other in tables[1:]] == [1, 1]


def test_a_truncate_is_in_force_at_once_however_many_are_forged(site: Installation) -> None:
    with site.serve(), eve(site, forged(**TRUNCATED)):
        assert site.ask(key("named", 1), key("other", 1)).names == ["valid", "valid"]
        site.sql("TRUNCATE named")
        assert site.ask(key("named", 1), key("other", 1)).names == ["unknown", "valid"]
        # A TRUNCATE among other changes of one transaction.
        new = key("named", "new")
        site.sql(f"BEGIN; INSERT INTO named VALUES (1, '{new}', 'active');"
                 " UPDATE other SET status = 'revoked' WHERE id = 1;"
                 f" TRUNCATE named; INSERT INTO named VALUES (2, '{new}', 'active'); COMMIT")  # fmt: skip
        assert site.ask(new, key("other", 1)).names == ["valid", "revoked"]
        # A TRUNCATE that is rolled back.
        site.sql("BEGIN; TRUNCATE named; ROLLBACK")
        assert site.verdict(new) == "valid"
        # A TRUNCATE as the last change.
        site.sql("BEGIN; DELETE FROM other; TRUNCATE named; COMMIT")
        assert site.ask(new, key("other", 2)).names == ["unknown", "unknown"]


def test_a_truncate_during_a_load_is_in_force(site: Installation) -> None:
    """Another load follows the one under way, regardless of the rows that it has read."""
    with site.serve():
        for round_ in range(10):
            name = key("named", f"round {round_}")
            site.sql("INSERT INTO named VALUES (%s, %s, 'active')", 10_000 + round_, name)
            assert site.verdict(name) == "valid"
            site.reload("public.named")
            site.sql("TRUNCATE named")
            assert site.verdict(name) == "unknown"


def test_a_truncate_of_a_partition_is_in_force_within_a_heartbeat(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """No trigger of the partitioned table fires, but the partition gets a new file."""
    site = Installation(cluster, databases.new())
    site.sql("""CREATE TABLE parted (id bigint PRIMARY KEY, key text NOT NULL) PARTITION BY RANGE (id);
                CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
                CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5);
                CREATE TABLE high PARTITION OF parted FOR VALUES FROM (10) TO (20)""")
    site.sql("INSERT INTO parted SELECT i, %s || i FROM unnest(ARRAY[1, 11]) AS i", key("parted", ""))
    site.source("parted", table="public.parted", id="id", key="key")
    site.freshness["audit"] = "0s"
    keys = [key("parted", 1), key("parted", 11)]
    with site.serve():
        assert site.ask(*keys).names == ["valid", "valid"]
        site.sql("TRUNCATE lowest")
        assert site.ask(*keys).names == ["unknown", "valid"]
        site.sql("ALTER TABLE parted DETACH PARTITION high")
        assert site.ask(*keys).names == ["unknown", "unknown"]
        reasons = site.source_status("parted")["loads_by_reason"]
        assert reasons["table_changed"] == 2
        # A new file with the same rows costs one load, and nothing else.
        site.sql("VACUUM FULL parted")
        site.cli.sync("30s")
        site.wait_source("parted", loads=4)
    site.close()


def memory_kib(daemon: Daemon) -> int:
    """The peak resident memory so far."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(peak)


@pytest.mark.parametrize("table", ["named", "words", "of_nobody"])
def test_ids_that_no_trigger_would_name_cost_no_memory_and_no_heartbeat(
    site: Installation, table: str
) -> None:
    """60,000 notifications of 8 KB each must cost neither much memory nor the connection."""
    flood = f"""SELECT count(pg_notify('latchkey', json_build_object('t', 'public.{table}', 'ids',
                       json_build_array(i || repeat('x', 7800)))::text))
                FROM generate_series(1, 6000) AS i"""
    site.freshness["bound"] = f"{scaled(10):g}s"
    with site.serve() as daemon:
        before, peak = site.database_status(), memory_kib(daemon)
        with eve(site, flood) as times:
            until(lambda: times() >= 10, 60, "they are sent")
        revoke(site, "other", 1)
        assert site.verdict(key("other", 1)) == "revoked"
        site.cli.sync("60s")
        after = site.database_status()
        assert (after["failures"], after["state"]) == (before["failures"], "live"), after["last_error"]
        assert after["notifications"] - before["notifications"] >= 60_000
        assert memory_kib(daemon) - peak < MEMORY_MAX_KIB
        if table != "of_nobody":
            # The daemon counts the ids, unless too many arrived at once and it dropped them unread.
            status = site.source_status(table)
            assert status["malformed_ids"] > 0 or status["loads_by_reason"].get("many_ids")
        assert site.source_status("other")["loads"] == 1


def test_ids_of_another_table_delay_no_single_change(site: Installation) -> None:
    """More than 100,000 payloads that look like ids."""
    flood = """SELECT count(pg_notify('latchkey',
                      json_build_object('t', 'public.named', 'ids', ids)::text))
               FROM (SELECT json_agg((random() * 1e15)::bigint::text) AS ids
                     FROM generate_series(1, 200000) AS i GROUP BY i / 400) AS parts"""
    with site.serve():
        with eve(site, flood, IDS_PAUSE_S) as times:
            until(lambda: times() >= 2, 60, "she has sent some")
            for number in range(1, 6):
                revoke(site, "other", number)
                begin = time.monotonic()
                assert site.cli.verify([key("other", 1000)]).names == ["valid"]
                until(
                    lambda: site.cli.verify([key("other", number)]).names == ["revoked"],  # noqa: B023
                    10,
                    "it is in force",
                )
                # The limit is the promised bound; bench/fairness measures the delay.
                assert time.monotonic() - begin < scaled(5.0)
        assert site.database_status()["failures"] == 0


def test_what_a_flood_of_ids_hides_from_audits_is_found_by_loads(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """An audit omits the rows named by notifications: with this many, it cannot decide anything."""
    if sanitized():
        pytest.skip("needs audits that end while ids come in faster than a sanitizer reads them")
    site = Installation(cluster, databases.new())
    site.sql(
        f"""DO $$ BEGIN CREATE ROLE {EVE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
            CREATE TABLE parted (id bigint PRIMARY KEY, key text NOT NULL, off timestamptz)
              PARTITION BY HASH (id);
            CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
            INSERT INTO parted SELECT i, '{key("parted", "")}' || i FROM generate_series(1, 100000) AS i"""
    )
    site.source("parted", table="public.parted", id="id", key="key", revoked_at="off")
    site.freshness |= {"audit": "100ms", "bound": "10s"}
    flood = """SELECT count(pg_notify('latchkey', json_build_object('t', 'public.parted', 'ids', ids)::text))
               FROM (SELECT json_agg((random() * 1e15)::bigint::text) AS ids
                     FROM generate_series(1, 150000) AS i GROUP BY i / 400) AS parts"""
    with site.serve(), eve(site, flood):
        until(lambda: site.source_status("parted")["audits_unsure"] >= 3, 60, "audits decide nothing")
        # A statement on a partition does not fire its parent's triggers.
        site.sql("UPDATE parted_0 SET off = now() WHERE id = 1")
        until(lambda: site.cli.verify(key("parted", 1)).names == ["revoked"], 30, "it is found")
        status = site.source_status("parted")
        assert status["audit_mismatches"] == 0
        assert {"audit_unsure", "many_ids"} & set(status["loads_by_reason"]), status["loads_by_reason"]
    site.close()


def test_one_odd_row_told_of_again_and_again_writes_a_line_a_minute(site: Installation) -> None:
    site.sql("UPDATE named SET status = 'paused' WHERE id IN (1, 2)")
    flood = """SELECT pg_notify('latchkey',
                      '{"t" : "public.named", "ids" : ["1", "2"]}' || repeat(' ', i))
               FROM generate_series(1, 20) AS i"""
    with site.serve() as daemon:
        before = site.source_status("named")["rereads"]
        with eve(site, flood) as times:
            until(lambda: times() >= 100, 60, "she has sent some")
            until(lambda: site.source_status("named")["rereads"] - before > 200, 60, "all are read")
        site.cli.sync("30s")
        told = re.findall(r"L204: \d+ changed rows", daemon.log())
        assert len(told) == 1, told
        lines = daemon.log().count("\n")
        assert lines < 40, "nor is there another way"


def test_one_huge_transaction_of_notifications_stops_nobody(site: Installation) -> None:
    """On Latchkey's channel, and on another one."""
    site.freshness["bound"] = f"{scaled(10):g}s"
    with site.serve() as daemon:
        before, peak = site.database_status(), memory_kib(daemon)
        for channel, payload in {"latchkey": "{\"t\" : \"public.named\", \"ids\" : [\"", "else": ""}.items():
            flood = f"""SELECT count(pg_notify('{channel}', '{payload}' || i || repeat('x', 7900)))
                        FROM generate_series(1, 10000) AS i"""
            with eve(site, flood, 60) as times:
                until(lambda: times() >= 1, 60, "it is sent")  # noqa: B023
            revoke(site, "other", 1 if channel == "latchkey" else 2)
            site.cli.sync("60s")
        assert site.cli.verify([key("other", 1), key("other", 2)]).names == ["revoked"] * 2
        after = site.database_status()
        assert (after["failures"], after["state"]) == (before["failures"], "live"), after["last_error"]
        assert after["notifications"] - before["notifications"] >= 10_000
        assert memory_kib(daemon) - peak < MEMORY_MAX_KIB


@pytest.mark.parametrize("encoding", ["WIN1252", "SQL_ASCII", "LATIN1"])
def test_bytes_that_cannot_be_converted_cost_no_connection(
    cluster: PrivateCluster, encoding: str
) -> None:
    """PostgreSQL would have to convert the names, fail, and end the connection."""
    dbname = f"in_{encoding.lower()}"
    cluster.sql(f"CREATE DATABASE {dbname} TEMPLATE template0 ENCODING '{encoding}'"
                " LC_COLLATE 'C' LC_CTYPE 'C'")  # fmt: skip
    site = Installation(cluster, dbname)
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text NOT NULL, off timestamptz)")
    site.sql("INSERT INTO t VALUES (1, 'some key or other')")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    byte = "convert_from(decode('81', 'hex'), getdatabaseencoding())"
    with site.serve():
        failures, loads = site.database_status()["failures"], site.source_status("t")["loads"]
        before = site.database_status()["notifications"]
        for payload in (f"'no table' || {byte}", byte, f"'{{\"t\":\"public.x' || {byte} || '\",\"ids\":[]}}'"):
            site.sql(f"SELECT pg_notify('latchkey', {payload})")
        site.sql(f"SELECT pg_notify('latchkey', '{{\"t\" : \"public.t\", \"ids\" : [\"' || {byte} || '\"]}}')")
        until(lambda: site.database_status()["notifications"] == before + 4, 10, "all are heard")
        until(lambda: site.source_status("t")["loads"] == loads + 1, 10, "the last one names the table")
        site.sql("UPDATE t SET off = now()")
        assert site.verdict("some key or other") == "revoked"
        assert site.database_status()["failures"] == failures
    site.close()
