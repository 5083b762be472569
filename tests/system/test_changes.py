"""Every change is in force in time, even if notifications, the server or the daemon fail."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import child, seeds, wire
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation, Keys, prepare, toml_section

BOUND_S = 0.3
# With this bound, answers become stale within a test. It is too short for a busy machine to stay
# fresh all the time, so these tests wait for freshness instead of asserting it.
QUICK = {"heartbeat": "100ms", "bound": "300ms"}

RESTRICTED = 4001  # a caller's uid


def revoke(site: Installation, *rows: int) -> None:
    site.sql("UPDATE public.api_keys SET status = 'revoked' WHERE id = ANY (%s)", list(rows))


def names(site: Installation, *tokens: str) -> list[str]:
    """The verdicts at this moment, without a sync."""
    return site.cli.verify(tokens).names


def is_fresh(site: Installation, token: str) -> bool:
    return bool(site.cli.verify(token)[0]["fresh"])


def assert_sync_gives_up_in_time(site: Installation, timeout_s: float) -> None:
    started = time.monotonic()
    site.cli.sync(f"{round(timeout_s * 1000)}ms", expect=3)
    assert timeout_s <= time.monotonic() - started < timeout_s + scaled(1)


@pytest.fixture(scope="module")
def keys(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    site = Keys(cluster, databases.new("api_keys"))
    with site.serve():
        yield site
    site.close()


# ---- plain SQL


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ("UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}", "revoked"),
        ("UPDATE public.api_keys SET status = 'disabled' WHERE id = {row}", "disabled"),
        ("UPDATE public.api_keys SET expires_at = now() WHERE id = {row}", "expired"),
        ("UPDATE public.api_keys SET token_hash = '\\x00' WHERE id = {row}", "unknown"),
        ("DELETE FROM public.api_keys WHERE id = {row}", "unknown"),
        (
            "WITH gone AS (UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}"
            " RETURNING id) SELECT count(*) FROM gone",
            "revoked",
        ),
        (
            "DO $$ BEGIN UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}; END $$",
            "revoked",
        ),
        (
            "SET session_replication_role = replica;"
            " UPDATE public.api_keys SET status = 'revoked' WHERE id = {row};"
            " RESET session_replication_role",
            "revoked",
        ),
    ],
    ids=["revoke", "disable", "expire", "rotate", "delete", "WITH", "DO", "replica"],
)
class TestPlainSql:
    def test_is_in_force_after_a_sync(self, keys: Keys, change: str, verdict: str) -> None:
        row = keys.issue("sk_synced")
        assert keys.verdict("sk_synced") == "valid"
        keys.sql(change.format(row=row))
        assert keys.verdict("sk_synced") == verdict
        keys.sql(f"DELETE FROM public.api_keys WHERE id = {row}")

    def test_is_in_force_within_a_second_without_one(
        self, keys: Keys, change: str, verdict: str
    ) -> None:
        row = keys.issue("sk_pushed")
        until(lambda: names(keys, "sk_pushed") == ["valid"], 1, "the new key is known")
        keys.sql(change.format(row=row))
        until(lambda: names(keys, "sk_pushed") == [verdict], 1, f"the key is {verdict}")
        keys.sql(f"DELETE FROM public.api_keys WHERE id = {row}")


def test_merge_updates_deletes_and_inserts_at_once(keys: Keys) -> None:
    changed, gone = keys.issue("sk_merge_changed"), keys.issue("sk_merge_gone")
    tokens = ("sk_merge_changed", "sk_merge_gone", "sk_merge_new")
    assert keys.ask(*tokens).names == ["valid", "valid", "unknown"]
    keys.sql(
        """
        MERGE INTO public.api_keys AS k
        USING (VALUES (%s, 'revoke'), (%s, 'delete'), (-1, '')) AS wish (id, what)
        ON k.id = wish.id
        WHEN MATCHED AND wish.what = 'delete' THEN DELETE
        WHEN MATCHED THEN UPDATE SET status = 'revoked'
        WHEN NOT MATCHED THEN
            INSERT (tenant_id, name, token_hash, token_hash_key_version)
            VALUES (%s, 'merged', %s, %s)
        """,
        changed,
        gone,
        keys.tenant,
        keys.pepper.digest("sk_merge_new"),
        keys.pepper.version,
    )
    assert keys.ask(*tokens).names == ["revoked", "unknown", "valid"]


def test_copied_rows_are_keys_like_others(keys: Keys) -> None:
    lines = [
        f"{keys.tenant}\tcopied {i}\t\\\\x{keys.pepper.digest(f'sk_copied_{i}').hex()}\t"
        f"{keys.pepper.version}\t{'active' if i % 2 else 'revoked'}\n"
        for i in range(1000)
    ]
    into = "public.api_keys (tenant_id, name, token_hash, token_hash_key_version, status)"
    with keys.conn.cursor() as cursor:
        cursor.copy_expert(f"COPY {into} FROM STDIN", io.StringIO("".join(lines)))
    assert keys.ask(*(f"sk_copied_{i}" for i in range(1000))).names == ["revoked", "valid"] * 500


# ---- many rows

ROWS = 20_000


@pytest.fixture(scope="module")
def many(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table of many live keys. Each test restores it."""
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials")
    seeds.fill_external(site.conn, ROWS)
    with site.serve():
        yield site
    site.close()


MARK = "UPDATE public.external_credentials SET deleted_at = {} WHERE {}"
ALL_KEYS = [seeds.key_text("seed", i) for i in range(1, ROWS + 1)]


@pytest.mark.parametrize("statements", [1, 8])
def test_many_rows_changed_in_one_transaction_are_all_in_force(
    many: Installation, statements: int
) -> None:
    def mark(value: str) -> str:
        return ";".join(MARK.format(value, f"id % {statements} = {i}") for i in range(statements))

    many.sql(f"BEGIN; {mark('now()')}; COMMIT")
    assert set(many.ask(*ALL_KEYS).names) == {"deleted"}
    many.sql(f"BEGIN; {mark('NULL')}; {mark('now()')}; {mark('NULL')}; COMMIT")
    assert set(many.ask(*ALL_KEYS).names) == {"valid"}


def test_many_rows_changed_are_in_force_within_a_second_without_a_sync(many: Installation) -> None:
    many.sql(MARK.format("now()", "true"))
    last = seeds.key_text("seed", ROWS)
    until(lambda: names(many, last) == ["deleted"], 1, "the last of many rows is in force")
    many.sql(MARK.format("NULL", "true"))
    many.cli.sync("30s")


def test_a_table_filled_anew_in_one_transaction_is_one_load(
    cluster: PrivateCluster, databases: Databases
) -> None:
    # The ids of the new rows, more than the loader re-reads one by one, come after the TRUNCATE's.
    rows = 400_000
    with contextlib.closing(Installation(cluster, databases.new("external_credentials"))) as site:
        site.source("external", preset="external_credentials")
        seeds.fill_external(site.conn, rows)
        keys = [seeds.key_text("seed", i) for i in range(1, rows + 1, rows // 1000)]
        with site.serve():
            site.sql(
                "BEGIN; CREATE TEMPORARY TABLE old ON COMMIT DROP AS TABLE public.external_credentials;"
                " TRUNCATE public.external_credentials; UPDATE old SET deleted_at = now();"
                " INSERT INTO public.external_credentials TABLE old; COMMIT"
            )
            assert set(site.ask(*keys).names) == {"deleted"}
            # The reason is the condition that the loader notices first.
            reasons = site.source_status("external")["loads_by_reason"]
            assert reasons in [{"connected": 1, why: 1} for why in ("table_changed", "many_ids")]


def test_rows_deleted_and_inserted_anew_by_the_thousand(many: Installation) -> None:
    many.sql("DELETE FROM public.external_credentials")
    assert set(many.ask(*ALL_KEYS).names) == {"unknown"}
    seeds.fill_external(many.conn, ROWS)
    assert set(many.ask(*ALL_KEYS).names) == {"valid"}
    many.wait_source("external", rows=ROWS, keys=ROWS)


def test_an_upsert_counts_as_what_it_does(many: Installation) -> None:
    upsert = """
        INSERT INTO public.external_credentials (copper_id, api_key, data)
        SELECT 1, key, '{{}}' FROM unnest(%s) AS key
        ON CONFLICT (api_key) DO {}
    """
    old, new = ALL_KEYS[:2]
    many.sql(upsert.format("UPDATE SET deleted_at = now()"), [old, "ext_upserted"])
    assert many.ask(old, new, "ext_upserted").names == ["deleted", "valid", "valid"]
    many.sql(upsert.format("NOTHING"), [old, "ext_upserted_too"])
    assert many.ask(old, "ext_upserted_too").names == ["deleted", "valid"]
    many.sql(upsert.format("UPDATE SET deleted_at = NULL"), [old])
    many.sql("DELETE FROM public.external_credentials WHERE api_key LIKE 'ext_%%'")
    assert many.ask(old, "ext_upserted").names == ["valid", "unknown"]


# ---- the age of an answer


@pytest.mark.parametrize(("max_age", "verdict"), [("0s", "unavailable"), ("1h", "valid")])
def test_an_answer_older_than_the_caller_accepts_is_none(
    keys: Keys, max_age: str, verdict: str
) -> None:
    keys.issue(f"sk_max_age_{max_age}")
    keys.cli.sync("30s")
    asked = keys.cli.verify(f"sk_max_age_{max_age}", max_age=max_age)
    assert (asked.names, asked.exit_code) == ([verdict], 0 if verdict == "valid" else 3)


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


# ---- forged notifications

STRANGER = "notifying_stranger"  # a role that owns nothing and may read nothing


@pytest.fixture(scope="module")
def forger(keys: Keys) -> Iterator[Callable[[str], None]]:
    """Sends a notification as a role without any rights."""
    keys.sql(f"CREATE ROLE {STRANGER} LOGIN")
    conn = keys.cluster.connect(keys.dbname, STRANGER)

    def forge(payload: str) -> None:
        with conn.cursor() as cursor:
            cursor.execute("SELECT pg_notify('latchkey', %s)", (payload,))

    yield forge
    conn.close()


@pytest.fixture(scope="module")
def trio(keys: Keys) -> tuple[int, int, int]:
    """Rows of a valid, a revoked and a deleted key."""
    rows = keys.issue("sk_good"), keys.issue("sk_bad", status="revoked"), keys.issue("sk_none")
    keys.sql("DELETE FROM public.api_keys WHERE id = %s", rows[2])
    keys.cli.sync("30s")  # counters measure only the test from here on
    return rows


def assert_trio_unchanged(keys: Keys) -> None:
    assert keys.ask("sk_good", "sk_bad", "sk_none").names == ["valid", "revoked", "unknown"]


TABLE = '"t":"public.api_keys"'
MALFORMED = {
    "nothing": "",
    "random text": "Zm9yZ2Vk \N{SNOWMAN} ' \" \\ $1 %s {} ; DROP TABLE api_keys",
    "7.9 kB of it": "forged" * 1316,
    "a number": "1",
    "null": "null",
    "text": '"public.api_keys"',
    "a list": f"[{{{TABLE}}}]",
    "no table": '{"ids":["1"]}',
    "a table that is a number": '{"t":1,"ids":["1"]}',
    "a table that is null": '{"t":null,"all":true}',
    "neither ids nor all": f"{{{TABLE}}}",
    "ids that are text": f'{{{TABLE},"ids":"1"}}',
    "ids that are an object": f'{{{TABLE},"ids":{{"1":"1"}}}}',
    "ids that are null": f'{{{TABLE},"ids":null}}',
    "a number among the ids": f'{{{TABLE},"ids":["1",2]}}',
    "a list among the ids": f'{{{TABLE},"ids":[["1"]]}}',
    "all that is false": f'{{{TABLE},"all":false}}',
    "all that is text": f'{{{TABLE},"all":"true"}}',
    "all that is a number": f'{{{TABLE},"all":1}}',
    "half of it": f'{{{TABLE},"ids":["1"',
    "something behind it": f'{{{TABLE},"ids":["1"]}} x',
    "half a character": f'{{{TABLE},"ids":["\\ud800"]}}',
    "lists in lists": "[" * 7900,
    "objects in objects": '{"t":' * 1580,
    "a number too large": f'{{{TABLE},"ids":[1e{"9" * 7000}]}}',
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_notification_is_counted_and_changes_nothing(
    keys: Keys, forger: Callable[[str], None], trio: tuple[int, int, int], payload: str
) -> None:
    before, rereads = keys.database_status(), keys.source_status("api_keys")
    forger(payload)
    assert_trio_unchanged(keys)
    after = keys.database_status()
    assert after["malformed_notifications"] == before["malformed_notifications"] + 1
    assert (after["state"], after["failures"]) == ("live", before["failures"])
    keys.wait_source("api_keys", rereads=rereads["rereads"], loads=rereads["loads"])


@pytest.mark.parametrize(
    "bad_id",
    ["", "x", "1.0", "1 ", "+1", "0x1", "1e3", "NULL", "{1}", '"', "\\", "1,2", "\0", "1\0", "\n"]
    + ["'; DROP TABLE public.api_keys; --", "9223372036854775808", "-9223372036854775809"]
    + ["\N{FULLWIDTH DIGIT ONE}", pytest.param("1" * 7000, id="7 kB")],
)
def test_an_id_of_the_wrong_type_is_counted_and_harms_no_other(
    keys: Keys, forger: Callable[[str], None], trio: tuple[int, int, int], bad_id: str
) -> None:
    before, failures = keys.source_status("api_keys"), keys.database_status()["failures"]
    forger(json.dumps({"t": "public.api_keys", "ids": [bad_id, str(trio[0])]}))
    assert_trio_unchanged(keys)
    keys.wait_source(
        "api_keys", malformed_ids=before["malformed_ids"] + 1, rereads=before["rereads"] + 1
    )
    assert keys.database_status()["failures"] == failures


def well_formed(trio: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    return {
        "rows that are there": {"t": "public.api_keys", "ids": [str(row) for row in trio]},
        "rows that never were": {"t": "public.api_keys", "ids": ["-1", "0", str(2**63 - 1)]},
        "a thousand rows": {"t": "public.api_keys", "ids": [str(i) for i in range(1000)]},
        "no rows": {"t": "public.api_keys", "ids": []},
        "the whole table": {"t": "public.api_keys", "all": True},
        "the whole table and some ids": {"t": "public.api_keys", "all": True, "ids": [1, None]},
        "another table": {"t": "public.tenants", "ids": ["1"]},
        "a table that is not there": {"t": "public.nowhere", "all": True},
        "a table without schema": {"t": "api_keys", "all": True},
        "a table without name": {"t": "", "all": True},
        "more than we ask for": {"t": "public.api_keys", "ids": [], "x": {"y": [None, 1.5]}},
    }


@pytest.mark.parametrize("what", well_formed((0, 0, 0)))
def test_a_forged_notification_changes_no_verdict(
    keys: Keys, forger: Callable[[str], None], trio: tuple[int, int, int], what: str
) -> None:
    before, malformed_ids = keys.database_status(), keys.source_status("api_keys")["malformed_ids"]
    forger(json.dumps(well_formed(trio)[what]))
    assert_trio_unchanged(keys)
    after = keys.database_status()
    assert after["notifications"] == before["notifications"] + 1
    assert after["malformed_notifications"] == before["malformed_notifications"]
    assert after["failures"] == before["failures"]
    keys.wait_source("api_keys", malformed_ids=malformed_ids)


# Blanks make the payloads differ: PostgreSQL sends equal payloads of a transaction only once.
STORMS = {
    "reloads": """SELECT pg_notify('latchkey', '{"t":"public.api_keys","all":true}'
                                               || repeat(' ', i))
                  FROM generate_series(1, 200) AS i""",
    "ids": """SELECT pg_notify('latchkey',
                               json_build_object('t', 'public.api_keys', 'ids', ids)::text)
              FROM (SELECT json_agg(i::text) AS ids FROM generate_series(1, 30000) AS i
                    GROUP BY i / 500) AS parts""",
    "garbage": """SELECT pg_notify('latchkey', i || repeat('[', 2000))
                  FROM generate_series(1, 200) AS i""",
}


@contextlib.contextmanager
def storm(site: Installation, statement: str) -> Iterator[None]:
    """A stranger sends these notifications repeatedly."""
    stop, sent = threading.Event(), threading.Event()
    conn = site.cluster.connect(site.dbname, STRANGER)

    def blow() -> None:
        with conn.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(statement)
                sent.set()
                stop.wait(0.02)

    thread = threading.Thread(target=blow)
    thread.start()
    try:
        assert sent.wait(scaled(5)), "the storm has begun"
        yield
    finally:
        stop.set()
        thread.join()
        conn.close()


@pytest.mark.usefixtures("forger")
@pytest.mark.parametrize("statement", STORMS.values(), ids=STORMS.keys())
def test_a_storm_of_forged_notifications_delays_no_revocation_for_long(
    keys: Keys, trio: tuple[int, int, int], statement: str, request: pytest.FixtureRequest
) -> None:
    tokens = [f"sk_storm_{request.node.callspec.id}_{i}" for i in range(4)]
    rows = [keys.issue(token) for token in tokens]
    assert set(keys.ask(*tokens).names) == {"valid"}
    loads, started = keys.source_status("api_keys")["loads"], time.monotonic()
    with storm(keys, statement):
        for row, token in zip(rows, tokens, strict=True):
            revoke(keys, row)
            until(lambda: names(keys, token) == ["revoked"], 2, "it is revoked")  # noqa: B023
        assert names(keys, "sk_good", "sk_bad") == ["valid", "revoked"]
    assert_trio_unchanged(keys)
    keys.cli.status()
    # The loader reads whole tables at most once a second, regardless of the requester.
    reloads = keys.source_status("api_keys")["loads"] - loads
    assert reloads <= time.monotonic() - started + 1
    assert keys.database_status()["state"] == "live"


# ---- changes that no trigger reports


@pytest.mark.parametrize("session", [None, "replica"])
def test_the_audit_finds_what_a_disabled_trigger_hid(
    cluster: PrivateCluster, databases: Databases, session: str | None
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.freshness["audit"] = "500ms"
    revoked, gone = site.issue("sk_hidden"), site.issue("sk_hidden_gone")
    tokens = ("sk_hidden", "sk_hidden_gone", "sk_hidden_new")
    with site.serve():
        assert site.ask(*tokens).names == ["valid", "valid", "unknown"]
        if session is None:
            site.sql("ALTER TABLE public.api_keys DISABLE TRIGGER USER")
        else:
            # An ordinary trigger does not fire in a session that replicates.
            for event in ("insert", "update", "delete"):
                site.sql(f"ALTER TABLE public.api_keys ENABLE TRIGGER latchkey_{event}")
            site.sql(f"SET session_replication_role = {session}")
        before = site.database_status()["notifications"]
        revoke(site, revoked)
        site.sql("DELETE FROM public.api_keys WHERE id = %s", gone)
        site.issue("sk_hidden_new")
        expected = ["revoked", "unknown", "valid"]
        until(lambda: names(site, *tokens) == expected, 5, "the audit has found all changes")
        assert site.database_status()["notifications"] == before, "nobody told of them"
    site.close()


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
