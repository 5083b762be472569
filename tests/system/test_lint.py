"""Warnings and notes of docs/lint.md: a table that has each, and its text in --check, the log and the status."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

import pytest
from findings import ERRORS, LONG, SECRET, SECTIONS, findings_of
from harness import seeds
from harness.postgres import SUPERUSER, PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Setting

# ---- warnings and notes: one source for each kind of table

TABLES = """
CREATE TABLE plain (id int PRIMARY KEY, key text, status text DEFAULT 'active', scopes jsonb,
                    subject text, metadata text, expires_at timestamptz, not_before timestamptz);
CREATE TABLE tokens (id int PRIMARY KEY, key text);
CREATE TABLE hashed (id int PRIMARY KEY, key bytea UNIQUE, key_version text);
CREATE TABLE other (id int PRIMARY KEY, key text UNIQUE);
CREATE TABLE nothing (id int PRIMARY KEY, key text UNIQUE);
CREATE TABLE parts (id int PRIMARY KEY, key text) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parts FOR VALUES FROM (1) TO (100);
CREATE TABLE replica (id int PRIMARY KEY, key text UNIQUE);
CREATE TABLE numbers (id int PRIMARY KEY, key text UNIQUE, expires_at bigint, last_used_at bigint);
CREATE TABLE refused (id int PRIMARY KEY, key text UNIQUE, status text, revoked_at timestamptz);
"""
PLAIN_ROWS = f"""
INSERT INTO plain (id, key) VALUES (1, NULL), (2, NULL), (3, '');
INSERT INTO plain (id, key, status) VALUES (4, '{LONG}4', 'paused'), (5, '{LONG}5', NULL);
INSERT INTO plain (id, key, scopes) VALUES (6, '{LONG}6', '{{"a": 1}}'), (7, '{LONG}7', '["a b"]');
INSERT INTO plain (id, key, subject) VALUES (8, '{LONG}8', repeat('s', 5000));
INSERT INTO plain (id, key, metadata) VALUES (9, '{LONG}9', repeat('m', 5000));
INSERT INTO plain (id, key) VALUES (10, '{LONG}twin'), (11, '{LONG}twin');
INSERT INTO plain (id, key) VALUES (12, '{SECRET}12345678'), (13, '{SECRET}123456789');
INSERT INTO plain (id, key) VALUES (14, '{SECRET}1234567890'), (15, '{SECRET}_15');
INSERT INTO plain (id, key, status) VALUES (16, '{SECRET}_16', 'revoked');
INSERT INTO plain (id, key, expires_at) VALUES (17, '{LONG}17', now() - interval '1 s'),
                                               (18, '{LONG}18', now() + interval '1 h'),
                                               (19, '{SECRET}_19', '-infinity');
INSERT INTO plain (id, key, scopes) VALUES (20, '{LONG}20', '["fine"]');
"""
NUMBERS_ROWS = f"""
INSERT INTO numbers VALUES (1, '{LONG}n1', NULL, NULL), (2, '{LONG}n2', 7258118400, 0),
                           (3, '{LONG}n3', 7258118401, 1790000000000), (4, '{LONG}n4', -1, -1),
                           (5, '{LONG}n5', 1900000000000, NULL);
INSERT INTO refused VALUES (1, '{LONG}r1', 'revoked', now()), (2, '{LONG}r2', 'revoked', NULL)
"""
OTHER_ROWS = f"INSERT INTO other VALUES (1, '{LONG}4'), (2, '{LONG}twin'), (3, '{LONG}other')"
PLAIN = {
    "L201": 3,
    "L204": 2,
    "L205": 1,
    "L206": 1,
    "L209": 1,
    "L210": 1,
    "L301": 1,
    "L303": 3,
    "L304": 2,
    "L402": 0,
}
EXPECTED = {
    "plain": PLAIN,
    "tokens": {"L208": 1},
    "hashed": {"L202": 2, "L203": 4},
    "other": {"L302": 2},
    "nothing": {"L401": 0},
    "parts": {"L402": 0, "L404": 0},
    "part": {"L302": 1, "L402": 0, "L405": 0},
    "replica": {"L406": 0},
    "numbers": {"L207": 3, "L214": 2},
    "refused": {"L213": 2},
}
# Other tests show these, or no real table can produce them.
# L114, L115: test_followed.py; L116: test_last_used.py; L212: test_encodings.py;
# L408: test_triggers.py; L403, L407: below
ELSEWHERE = {"L003", "L114", "L115", "L116", "L211", "L212", "L403", "L407", "L408"}


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


@pytest.fixture(scope="module")
def odd(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A setup with many findings, none of which keeps the daemon from starting."""
    site = Installation(cluster, databases.new())
    site.sql(TABLES + PLAIN_ROWS + OTHER_ROWS)
    good_token = "e30.eyJleHAiOjQwMDAwMDAwMDB9.c2ln"
    site.sql("INSERT INTO tokens VALUES (1, 'no.token.at all'), (2, %s)", good_token)
    seeds.Pepper.random("pepper_v2").write_to(site.peppers)
    for row_id, version in enumerate(["v2", "v0", "v1", "v1", None]):
        name = version and f"pepper_{version}.key"
        site.sql("INSERT INTO hashed VALUES (%s, %s, %s)", row_id, digest_of(str(row_id)), name)
    for row_id, size in ((5, 31), (6, 64)):
        site.sql("INSERT INTO hashed VALUES (%s, %s, 'pepper_v2')", row_id, bytes(size))
    site.sql(f"INSERT INTO parts VALUES (1, '{LONG}part')")
    site.sql(f"INSERT INTO replica VALUES (1, '{LONG}replica')")
    site.sql(NUMBERS_ROWS)
    # The row that CREATE SUBSCRIPTION would insert for the table.
    site.sql(
        "SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel (srsubid, srrelid,"
        " srsubstate) VALUES (1, 'replica'::regclass, 'r'); RESET allow_system_table_mods"
    )
    columns: dict[str, Setting] = {"id": "id", "key": "key"}
    optional = ("status", "scopes", "subject", "metadata", "expires_at")
    site.source("plain", table="public.plain", **columns, **{name: name for name in optional})
    site.source("tokens", table="public.tokens", scheme="jwt", **columns)
    site.source(
        "hashed",
        table="public.hashed",
        scheme="hmac-sha256",
        encoding="raw",
        key_version="key_version",
        peppers=str(site.peppers),
        **columns,
    )
    for name in ("other", "nothing", "parts", "part", "replica"):
        site.source(name, table=f"public.{name}", **columns)
    uses = {name: name for name in ("expires_at", "last_used_at")}
    site.source("numbers", table="public.numbers", **columns, **uses)
    refusals = {name: name for name in ("status", "revoked_at")}
    site.source("refused", table="public.refused", **columns, **refusals)
    site.install()
    yield site
    site.close()


def test_check_numbers_every_warning_and_note(odd: Installation) -> None:
    checked = odd.check()
    assert findings_of(checked) == EXPECTED
    assert 'The versions: "pepper_v1.key" (2), "pepper_v0.key" (1), NULL (1).' in checked
    assert '2 rows hold keys that source "plain" holds as well' in checked
    assert "errors: 0, warnings: 15, notes: 9. docs/lint.md" in checked
    assert "latchkeyd would start. What the warnings name is not as it should be." in checked
    assert SECRET not in checked


def test_a_running_daemon_says_the_same(odd: Installation) -> None:
    with odd.serve() as daemon:
        until(lambda: "L302" in str(odd.source_status("part")), 10, "sources are compared")
        for source, expected in EXPECTED.items():
            status = odd.source_status(source)
            found = {finding["number"]: finding for finding in status["findings"]}
            assert {number: finding["count"] for number, finding in found.items()} == expected
            assert list(found) == sorted(found)
            for number, finding in found.items():
                assert [finding["severity"], finding["name"]] == list(SECTIONS[number][:2])
                assert f'source "{source}": {number}: {finding["text"]}' in daemon.log()
            assert "problems" not in status
        odd_rows = odd.source_status("plain")["odd_rows"]
        assert odd_rows == {
            SECTIONS[number][1]: count for number, count in PLAIN.items() if number < "L3"
        }
        human = odd.cli.run("--socket", str(odd.socket), "status").expect(0).stdout
        assert "L303 warning: short_key (3)" in human and "L405 warning: partition\n" in human
        machine = json.dumps(odd.cli.status())
    assert SECRET not in daemon.log() + human + machine


def test_every_finding_has_a_table_here(odd: Installation) -> None:
    shown = {number for expected in EXPECTED.values() for number in expected}
    assert shown | set(ERRORS) | ELSEWHERE == set(SECTIONS)


def queries(number: str) -> list[str]:
    """The SQL in a section of docs/lint.md."""
    blocks = re.findall(r"(?:^    .*\n?)+", SECTIONS[number][2], re.MULTILINE)
    return [query for query in "".join(blocks).split(";") if "SELECT" in query]


def test_the_queries_of_the_document_find_the_rows(odd: Installation) -> None:
    """The queries run as printed, with the document's column names."""
    tables = {"L202": "hashed", "L203": "hashed", "L208": "tokens", "L207": "numbers"}
    tables |= {"L213": "refused", "L214": "numbers"}
    found = {}
    for number in SECTIONS:
        found[number] = []
        for query in queries(number):
            table = tables.get(number, "plain")
            if number == "L202" and "{" in query:  # for digests stored as hexadecimal text
                query = re.sub(r"\bkey\b", "encode(key, 'hex')", query)
            odd.sql(f"CREATE TEMP VIEW t AS TABLE {table}")
            found[number].append([row[0] for row in odd.sql(query)])
            odd.sql("DROP VIEW t")
    assert found["L201"] == [[1, 2, 3]]
    assert found["L202"][0] == [5, 6]
    assert len(found["L203"][0]) == 5
    assert sorted(found["L204"][1]) == [4, 5]
    assert (found["L205"], found["L206"]) == ([[6]], [[7]])
    assert (found["L207"], found["L208"], found["L214"]) == ([[3, 4, 5]], [[1]], [[3, 4]])
    assert found["L213"] == [["revoked", "revoked"]]
    assert (found["L209"], found["L210"], found["L304"]) == ([[8]], [[9]], [[17, 19]])
    assert found["L301"] == [[[10, 11]]]
    assert sorted(found["L302"][0]) == [4, 10, 11]
    assert found["L303"] == [[12, 13, 15, 16, 19]]


# ---- the log reports changes of findings


def test_the_log_says_what_is_new_and_what_is_gone(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE, status text, until timestamptz)")
    site.sql(f"INSERT INTO t SELECT i, '{LONG}' || i, 'paused' FROM generate_series(1, 2) AS i")
    settings: dict[str, Setting] = {"status": "status", "expires_at": "until"}
    site.source("t", table="public.t", id="id", key="key", **settings)

    def reload_and_count(number: str) -> tuple[int, int]:
        """The number of log lines with the finding, and its count in the status."""
        loads = site.source_status("t")["loads"]
        site.reload("public.t")
        until(lambda: site.source_status("t")["loads"] == loads + 1, 10, "loaded again")
        # The daemon writes the log before it publishes the status.
        found = {each["number"]: each["count"] for each in site.source_status("t")["findings"]}
        told = len(re.findall(rf": {number}: \d+ rows", daemon.log()))
        return told, found.get(number, 0)

    with site.serve() as daemon:
        assert reload_and_count("L204") == (1, 2)
        assert reload_and_count("L204") == (1, 2), "nothing new"
        site.sql(f"INSERT INTO t VALUES (3, '{LONG}3', 'paused')")
        assert reload_and_count("L204") == (1, 3), "of one kind a line a minute"
        site.sql("UPDATE t SET status = 'active'")
        assert reload_and_count("L204") == (1, 0)
        assert "L204: unknown_status is no longer so" in daemon.log()
        site.sql("UPDATE t SET until = now() - interval '1 min' WHERE id <= 2")
        assert reload_and_count("L304") == (1, 2)
        site.sql("UPDATE t SET until = now() - interval '1 min'")
        assert reload_and_count("L304") == (1, 3)
        site.sql(f"INSERT INTO t SELECT i, '{LONG}' || i, 'active', now() - interval '1 min'"
                 " FROM generate_series(4, 5) AS i")
        assert reload_and_count("L304") == (1, 5)
    assert SECRET not in daemon.log()
    site.close()


def test_sources_of_two_databases_are_compared(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Each source has its own loader thread; the later one sees the other."""
    site = Installation(cluster, databases.new())
    second = databases.new()
    with cluster.connect(second) as conn, conn.cursor() as cursor:
        cursor.execute("CREATE TABLE u (id int PRIMARY KEY, digest text UNIQUE)")
        keys = [(i, digest_of(f"{LONG}{i}").hex()) for i in range(5_000, 5_100)]
        cursor.executemany("INSERT INTO u VALUES (%s, %s)", keys)
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE)")
    site.sql(f"INSERT INTO t SELECT i, '{LONG}' || i FROM generate_series(1, 5049) AS i")
    site.source("t", table="public.t", id="id", key="key")
    site.install()
    conninfo = cluster.conninfo(second, SUPERUSER)
    site.more = (
        f'[[database]]\nname = "two"\nconninfo = "{conninfo}"\nallow_superuser = true\n'
        '[[source]]\nname = "u"\ndatabase = "two"\ntable = "public.u"\nid = "id"\nkey = "digest"\n'
        'scheme = "sha256"\nencoding = "hex"\n'
    )
    site.source("t", table="public.t", id="id", key="key", database="main")
    cluster.psql(site.cli.sql("install", site.config, "u"), second)
    found = findings_of(site.check())
    assert found["u"]["L403"] == 0 and "L403" in found["u"]
    assert {found[name]["L302"] for name in found} >= {50}
    site.close()
