"""The age of answers while a server is away, and its text in `latchkey status`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

import pytest
from explained import conditions
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import PASSWORD, Databases, Installation


@pytest.fixture
def ageing(databases: Databases) -> Iterator[Installation]:
    """An installation over a private server, which the test may stop."""
    with PrivateCluster() as server:
        server.sql(f"CREATE ROLE latchkey LOGIN PASSWORD '{PASSWORD}'")
        server.createdb("app")
        with contextlib.closing(server.connect("app")) as conn:
            seeds.create_schema(conn, "external_credentials")
        there = Installation(server, "app")
        there.source("plain", preset="external_credentials")
        there.freshness |= {"heartbeat": "100ms", "bound": "4s", "max_stale": "12s"}
        seeds.insert_external(there.conn, "sk_ageing", 1, deleted=True)
        yield there
        there.close()


def status_words(there: Installation) -> str:
    done = there.cli.run("--socket", str(there.socket), "status").expect(0)
    lines = done.stdout.splitlines()
    # A path in an error may be longer.
    assert all(len(line) <= 80 or " " not in line.strip() for line in lines), done.stdout
    return done.stdout


def test_states_of_a_source_from_fresh_to_lost_to_unavailable_and_back(
    ageing: Installation,
) -> None:
    there = ageing

    def state() -> str:
        return str(there.source_status("plain")["state"])

    with there.serve() as daemon:
        until(lambda: state() == "fresh", 10, "fresh")
        database = there.database_status()
        assert database["last_error"] == "" and "last_error_age_s" not in database
        words = status_words(there)
        assert "! " not in words and "PROBLEM" not in words and "last error" not in words, words
        began = time.monotonic()
        until(lambda: there.source_status("plain")["since_s"] > 0.5, 10, "fresh for a while")

        # The daemon is connected and receives a change, but cannot read it: the table is locked.
        with contextlib.closing(there.cluster.connect("app")) as other, other.cursor() as cursor:
            cursor.execute("BEGIN; LOCK TABLE public.external_credentials")
            notice = json.dumps({"t": "public.external_credentials", "ids": ["1"]})
            there.sql("SELECT pg_notify('latchkey', %s)", notice)
            until(lambda: state() == "stale", 10, "stale")
            assert there.database_status()["state"] == "live"
            words = status_words(there)
            assert "! plain" in words and "stale" in words
            cursor.execute("ROLLBACK")
        until(lambda: state() == "fresh", 20, "fresh again")
        assert there.source_status("plain")["since_s"] < time.monotonic() - began

        there.cluster.stop()
        until(lambda: state() == "lost", 15, "lost")
        source, database = there.source_status("plain"), there.database_status()
        assert database["state"] == "lost" and database["last_error"]
        assert 0 <= database["last_error_age_s"] < 20
        assert source["since_s"] <= source["age_ms"] / 1000 - 4 + 0.01
        words = status_words(there)
        assert "! plain" in words and "lost" in words and "PROBLEM: " in words
        (told,) = there.cli.why("sk_ageing", expect=1).json_lines()
        assert told["verdict"] == "deleted" and not told["fresh"]
        (told,) = there.cli.why("sk_ageing", max_age="100ms", expect=3).json_lines()
        assert told["verdict"] == "unavailable"
        assert told["sources"][0]["too_old"] == "max_age"

        until(lambda: state() == "unavailable", 20, "unavailable")
        (told,) = there.cli.why("sk_ageing", expect=3).json_lines()
        assert told["verdict"] == "unavailable" and not told["active"]
        assert told["sources"][0]["too_old"] == "max_stale"
        # The last known row appears in the answer, and decides nothing.
        assert conditions(told) == ["deleted"] and told["rows"][0]["speaks"] is False
        done = there.cli.run("--socket", str(there.socket), "why", stdin=b"sk_ageing\n").expect(3)
        assert done.stdout.startswith("unavailable: no trustworthy answer")
        assert "`max_stale`" in done.stdout

        there.cluster.start()
        until(lambda: state() == "fresh", 20, "fresh once more")
        there.conn.close()
        there.conn = there.cluster.connect(there.dbname)
        assert there.source_status("plain")["since_s"] < 30
        # The last error stays visible with its age, marked as past.
        database = there.database_status()
        assert database["state"] == "live" and database["last_error"]
        before = database["last_error_age_s"]
        until(
            lambda: there.database_status()["last_error_age_s"] > before + 0.2, 10, "the error ages"
        )
        words = status_words(there)
        assert "over since; last error" in words and "PROBLEM" not in words
        assert "sk_ageing" not in daemon.log()
