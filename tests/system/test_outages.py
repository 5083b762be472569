"""Outages of the server, of connections, of the daemon and of one database of two: answers age, and every
change is in force afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import child, seeds, wire
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.wait import until
from harness.wire import Raw
from installation import Databases, Installation, Keys, prepare, toml_section
from revocations import BOUND_S, QUICK, assert_sync_gives_up_in_time, is_fresh, names, revoke

RESTRICTED = 4001  # a caller's uid


# ---- a server that stops, crashes or hangs


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivateCluster]:
    """A server that tests may stop, kill and freeze. They leave it running."""
    with PrivateCluster() as server:
        prepare(server, ("api_keys", "external_credentials"))
        yield server


@pytest.fixture(scope="module")
def mortal_databases(mortal: PrivateCluster) -> Databases:
    return Databases(mortal)


@pytest.fixture
def hurt(mortal: PrivateCluster, mortal_databases: Databases) -> Iterator[Keys]:
    """An installation over the mortal server, with a short heartbeat and a short bound."""
    mortal.thaw()
    mortal.start()
    site = Keys(mortal, mortal_databases.new("api_keys"))
    site.freshness |= QUICK
    yield site
    site.close()


def reconnect(site: Installation) -> None:
    """Open a new owner's connection: the old one ended with the server."""
    site.conn.close()
    site.conn = site.cluster.connect(site.dbname)


def test_answers_go_on_with_their_age_while_the_server_is_stopped(hurt: Keys) -> None:
    row = hurt.issue("sk_on")
    hurt.issue("sk_off", status="revoked")
    with hurt.serve():
        until(lambda: is_fresh(hurt, "sk_on"), 5, "answers are fresh")
        hurt.cluster.stop()
        until(lambda: not is_fresh(hurt, "sk_on"), 5, "answers say that they are not fresh")
        stale = hurt.cli.verify(["sk_on", "sk_off"])
        assert (stale.names, stale.exit_code) == (["valid", "revoked"], 1)
        for answer in stale:
            assert not answer["fresh"] and answer["age_ms"] > 1000 * BOUND_S
        # The answer is past the bound; the caller's max_age decides whether that is too old.
        assert hurt.cli.verify("sk_on", max_age="1h").names == ["valid"]
        too_old = hurt.cli.verify("sk_on", max_age="300ms")
        assert (too_old.names, too_old.exit_code) == (["unavailable"], 3)
        assert_sync_gives_up_in_time(hurt, 0.5)
        # The age is that of the last confirmed state, and grows.
        older = hurt.cli.verify("sk_on")[0]
        assert older["age_ms"] >= stale[0]["age_ms"] + 500
        assert hurt.source_status("api_keys")["state"] == "lost"
        status = hurt.database_status()
        assert status["state"] == "lost" and status["failures"] > 0 and status["last_error"]
        hurt.cluster.start()
        until(lambda: is_fresh(hurt, "sk_on"), 10, "answers are fresh again")
        reconnect(hurt)
        revoke(hurt, row)
        assert hurt.verdict("sk_on") == "revoked"
        assert hurt.database_status()["state"] == "live"


def test_past_max_stale_there_is_no_answer(hurt: Keys) -> None:
    hurt.freshness["max_stale"] = "600ms"
    hurt.issue("sk_on")
    hurt.issue("sk_off", status="revoked")
    tokens = ["sk_on", "sk_off", "sk_never"]
    with hurt.serve():
        known = ["valid", "revoked", "unknown"]
        until(lambda: names(hurt, *tokens) == known, 5, "answers are there")
        hurt.cluster.stop()
        until(lambda: set(names(hurt, *tokens)) == {"unavailable"}, 5, "no answer any more")
        asked = hurt.cli.verify(tokens)
        assert asked.exit_code == 3
        for answer in asked:
            assert set(answer) == {"active", "verdict", "fresh", "age_ms"}
            assert not answer["active"] and not answer["fresh"]
        assert hurt.source_status("api_keys")["state"] == "unavailable"
        hurt.cli.ping()
        hurt.cluster.start()
        until(lambda: names(hurt, *tokens) == known, 10, "answers are back")


@pytest.mark.parametrize("listening", [True, False], ids=["reconnecting", "deaf"])
@pytest.mark.parametrize("end", ["kill9", "stop"])
def test_what_changed_while_nobody_listened_is_in_force_afterwards(
    hurt: Keys, end: str, listening: bool
) -> None:
    """With "deaf", the daemon is frozen from before the crash until after the changes: it misses
    them all.
    """
    revoked, gone, restored = hurt.issue("sk_revoked"), hurt.issue("sk_gone"), hurt.issue("sk_back")
    hurt.issue("sk_steady")
    revoke(hurt, restored)
    tokens = ("sk_revoked", "sk_gone", "sk_back", "sk_steady", "sk_new")
    with hurt.serve() as daemon:
        assert hurt.ask(*tokens).names == ["valid", "valid", "revoked", "valid", "unknown"]
        if not listening:
            daemon.freeze()
        getattr(hurt.cluster, end)()
        hurt.cluster.start()
        reconnect(hurt)
        hurt.sql(
            f"""
            UPDATE public.api_keys SET status = 'revoked' WHERE id = {revoked};
            DELETE FROM public.api_keys WHERE id = {gone};
            UPDATE public.api_keys SET status = 'active' WHERE id = {restored};
            """
        )
        hurt.issue("sk_new")
        daemon.thaw()
        expected = ["revoked", "unknown", "valid", "valid", "valid"]
        until(lambda: names(hurt, *tokens) == expected, 10, "all changes are in force")
        assert hurt.ask(*tokens).names == expected


def test_a_sync_under_way_outlives_a_restart_of_the_server(hurt: Keys) -> None:
    row = hurt.issue("sk_restarted")
    with hurt.serve(), Raw(hurt.socket, 30) as raw:
        hurt.cli.sync("30s")
        hurt.cluster.stop()
        raw.send(wire.frame(wire.SYNC, 7, (30_000).to_bytes(4, "little")))
        hurt.cluster.start()
        reconnect(hurt)
        reply = raw.receive()
        assert reply is not None and reply.type == wire.SYNCED
        revoke(hurt, row)
        assert hurt.verdict("sk_restarted") == "revoked"


def test_a_hanging_server_makes_answers_stale_until_it_runs_on(hurt: Keys) -> None:
    row = hurt.issue("sk_hung")
    with hurt.serve():
        until(lambda: is_fresh(hurt, "sk_hung"), 5, "answers are fresh")
        hurt.cluster.freeze()
        until(lambda: not is_fresh(hurt, "sk_hung"), 5, "answers say that they are not fresh")
        assert names(hurt, "sk_hung") == ["valid"]
        assert_sync_gives_up_in_time(hurt, 0.3)
        until(lambda: hurt.database_status()["state"] == "lost", 5, "the silence is noticed")
        assert "heartbeat" in hurt.database_status()["last_error"]
        hurt.cluster.thaw()
        until(lambda: is_fresh(hurt, "sk_hung"), 10, "answers are fresh again")
        revoke(hurt, row)
        assert hurt.verdict("sk_hung") == "revoked"


OUR_BACKENDS = {
    "both": "true",
    "the one that listens": "query LIKE '%json_agg(v.version%'",
    "the one that reads": "query NOT LIKE '%json_agg(v.version%'",
}


@pytest.mark.parametrize("which", OUR_BACKENDS.values(), ids=OUR_BACKENDS.keys())
def test_revocations_are_in_force_though_our_connections_are_cut(
    cluster: PrivateCluster, databases: Databases, which: str
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    cut = f"""SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {which}
              AND application_name = 'latchkeyd' AND datname = current_database()"""
    update = "UPDATE public.api_keys SET status = 'revoked' WHERE id = {}"
    orders: list[Callable[[int], str]] = [
        lambda row: f"{cut}; {update.format(row)}",
        lambda row: f"{update.format(row)}; {cut}",
        lambda row: f"BEGIN; {cut}; {update.format(row)}; COMMIT",
    ]
    with site.serve():
        for number, order in enumerate(orders * 3):
            token = f"sk_cut_{number}"
            row = site.issue(token)
            assert site.verdict(token) == "valid"
            site.sql(order(row))
            assert site.verdict(token) == "revoked"
        status = site.database_status()
        assert status["failures"] >= 9 and status["connects"] >= 10, "the cuts hit"
    site.close()


# ---- a stopped daemon


def test_a_daemon_that_was_stopped_does_not_answer_from_its_past(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.freshness |= QUICK
    with site.serve() as daemon:
        for number in range(3):
            token = f"sk_asleep_{number}"
            row = site.issue(token)
            until(lambda: names(site, token) == ["valid"], 5, "the key is known")  # noqa: B023
            with contextlib.ExitStack() as stack:
                raws = [stack.enter_context(Raw(site.socket, 30)) for _ in range(4)]
                for raw in raws:
                    assert raw.ask(wire.verify([token.encode()])).verdicts == ["valid"]
                daemon.freeze()
                until(lambda: child.state(daemon.pid) == "T", 5, "the daemon stands still")
                revoke(site, row)
                over = time.monotonic() + BOUND_S + 0.01
                until(lambda: time.monotonic() > over, 5, "the bound has passed")  # noqa: B023
                for raw in raws:
                    raw.send(b"".join(wire.verify([token.encode()], i) for i in range(1, 101)))
                daemon.thaw()
                given = [answer for raw in raws for answer in read_answers(raw, 100)]
            assert len(given) == 400 and ("valid", True) not in given
            until(lambda: names(site, token) == ["revoked"], 5, "it is revoked")  # noqa: B023
    site.close()


def read_answers(raw: Raw, count: int) -> Iterator[tuple[str, bool]]:
    for _ in range(count):
        reply = raw.receive()
        assert reply is not None
        yield from reply.answers


# ---- two databases


class Pair:
    """One daemon over two databases: "main" with api_keys, "other" with external_credentials."""

    def __init__(self, main: Keys, other: PrivateCluster, other_dbname: str) -> None:
        self.main, self.other, self.other_dbname = main, other, other_dbname
        # The order matters: where both databases hold a key and accept it, the answer is from "main".
        main.source("api_keys", preset="api_keys", peppers=str(main.peppers), database="main")
        main.source("external", preset="external_credentials", database="other")
        main.freshness |= QUICK
        main.listen["mode"] = "0666"
        main.more = toml_section(
            "[[database]]",
            name="other",
            conninfo=other.conninfo(other_dbname, "latchkey"),
            password_file=str(main.password_file),
        ) + toml_section("[[allow]]", uid=RESTRICTED, sources=["api_keys"])
        self.conn = other.connect(other_dbname)

    def sql(self, text: str, *parameters: Any) -> None:
        """Run SQL in the other database."""
        with self.conn.cursor() as cursor:
            cursor.execute(text, parameters or None)

    @contextlib.contextmanager
    def serve(self) -> Iterator[Daemon]:
        main = self.main
        for source, server, dbname in (
            ("api_keys", main.cluster, main.dbname),
            ("external", self.other, self.other_dbname),
        ):
            for action in ("grant", "install"):
                server.psql(main.cli.sql(action, main.config, source), dbname)
        with Daemon(main.config) as daemon:
            yield daemon

    def state(self, source: str) -> str:
        return str(self.main.source_status(source)["state"])


def test_a_database_that_is_down_leaves_the_other_one_fresh(
    cluster: PrivateCluster,
    databases: Databases,
    mortal: PrivateCluster,
    mortal_databases: Databases,
) -> None:
    mortal.thaw()
    mortal.start()
    main = Keys(cluster, databases.new("api_keys"))
    pair = Pair(main, mortal, mortal_databases.new("external_credentials"))
    row = main.issue("sk_main")
    seeds.insert_external(pair.conn, "sk_other", 1)
    with pair.serve():
        assert main.ask("sk_main", "sk_other").names == ["valid", "valid"]
        mortal.stop()
        until(lambda: not is_fresh(main, "sk_other"), 5, "the other database's answers are stale")
        until(lambda: pair.state("api_keys") == "fresh", 5, "the main source is fresh")
        until(lambda: is_fresh(main, "sk_main"), 5, "its answers are")
        # An unknown key might exist in the table that cannot be read.
        assert not is_fresh(main, "sk_nobodys")
        until(
            lambda: main.cli.verify("sk_nobodys", source="api_keys")[0]["fresh"],
            5,
            "a key that is in none of the tables asked is freshly unknown",
        )
        # A sync for all sources cannot succeed; a sync for this caller's sources can.
        revoke(main, row)
        main.cli.sync("30s", uid=RESTRICTED)
        assert names(main, "sk_main") == ["revoked"]
        assert_sync_gives_up_in_time(main, 0.3)
        mortal.start()
        main.cli.sync("30s")
        until(lambda: is_fresh(main, "sk_other"), 10, "the other database is back")
    pair.conn.close()
    main.close()


def test_a_key_in_two_databases_is_only_as_fresh_as_the_older_knowledge(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Either row may refuse the key, so a row that has been unreadable for longer than the bound counts."""
    main = Keys(cluster, databases.new("api_keys"))
    pair = Pair(main, cluster, databases.new("external_credentials"))
    main.issue("sk_both")
    seeds.insert_external(pair.conn, "sk_both", 1)
    name = pair.other_dbname
    with pair.serve():
        until(lambda: is_fresh(main, "sk_both"), 5, "answers are fresh")
        main.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        main.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{name}' AND application_name = 'latchkeyd'"
        )
        pair.sql("UPDATE public.external_credentials SET deleted_at = now()")
        over = time.monotonic() + BOUND_S + 0.01
        until(lambda: time.monotonic() > over, 5, "the bound has passed")
        for _ in itertools.repeat(None, 10):
            answer = main.cli.verify("sk_both")[0]
            assert not (answer["fresh"] and answer["verdict"] == "valid"), answer
        main.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        main.cli.sync("30s")
        assert names(main, "sk_both") == ["deleted"]
    pair.conn.close()
    main.close()
