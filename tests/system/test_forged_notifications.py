"""Forged notifications, which any role can send: they are counted, change no verdict, and delay no revocation."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness.postgres import PrivateCluster
from harness.wait import scaled, until
from installation import Databases, Installation, Keys
from revocations import names, revoke


@pytest.fixture(scope="module")
def keys(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    with contextlib.closing(Keys(cluster, databases.new("api_keys"))) as site, site.serve():
        yield site


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
