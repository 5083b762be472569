"""Databases with another encoding than UTF-8: a value that cannot be converted costs its own row only.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import psycopg2
import pytest
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation

# PostgreSQL manual, "Character Set Support": the encodings that a server may use.
SINGLE = (
    "ISO_8859_5 ISO_8859_6 ISO_8859_7 ISO_8859_8 KOI8R KOI8U LATIN1 LATIN2 LATIN3 LATIN4 LATIN5"
    " LATIN6 LATIN7 LATIN8 LATIN9 LATIN10 WIN866 WIN874 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254"
    " WIN1255 WIN1256 WIN1257 WIN1258"
).split()
DOUBLE = "EUC_CN EUC_JP EUC_JIS_2004 EUC_KR EUC_TW".split()

TABLE = """CREATE TABLE t (id text PRIMARY KEY, number bigint UNIQUE NOT NULL, key text, subject text,
                           tenant varchar(40), scopes text[], metadata jsonb, status text,
                           off timestamptz)"""
COLUMNS = {name: name for name in ("key", "subject", "tenant", "scopes", "metadata", "status")}


@contextlib.contextmanager
def encoded(
    cluster: PrivateCluster, databases: Databases, encoding: str, **settings: str
) -> Iterator[Installation]:
    name = f"in_{encoding.lower()}"
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
    cluster.sql(f"ALTER DATABASE {name} SET client_encoding = 'UTF8'")  # psycopg2 lacks some
    site = Installation(cluster, name)
    site.sql(TABLE)
    site.source("t", table="public.t", revoked_at="off", **(COLUMNS | {"id": "id"} | settings))
    try:
        yield site
    finally:
        site.close()
        databases.drop(name)


def stored(encoding: str, hexadecimal: str) -> str:
    """SQL for a text of exactly these bytes."""
    return f"convert_from(decode('{hexadecimal}', 'hex'), '{encoding}')"


def converted(site: Installation, encoding: str, hexadecimal: str) -> str | None:
    """PostgreSQL's conversion to UTF-8; None if it refuses."""
    try:
        found = site.value(
            "SELECT encode(convert(decode(%s, 'hex'), %s, 'UTF8'), 'hex')", hexadecimal, encoding
        )
    except (psycopg2.errors.UntranslatableCharacter, psycopg2.errors.CharacterNotInRepertoire):
        return None
    return bytes.fromhex(found).decode()


@pytest.mark.parametrize("encoding", SINGLE + DOUBLE)
def test_text_is_what_postgres_makes_of_it_or_its_row_is_refused(
    cluster: PrivateCluster, databases: Databases, encoding: str
) -> None:
    """Every byte of a single-byte encoding, alone and between others; a sample of pairs of a double-byte encoding."""
    with encoded(cluster, databases, encoding) as site:
        values = [f"{byte:02x}" for byte in range(0x80, 0x100)]
        # Letters and their combining characters (in WIN1255 and WIN1258), at several places of a text.
        values += [f"{byte:02x}61{byte:02x}e0{byte:02x}" for byte in range(0xC0, 0xF0, 2)]
        if encoding in DOUBLE:
            # Higher bytes are user-defined characters, which glibc knows in EUC_JP and PostgreSQL does not.
            values = [f"{a:02x}{b:02x}" for a in range(0xA1, 0xF5, 7) for b in range(0xA1, 0xFF, 5)]
        expected = {}
        for value in values:
            with contextlib.suppress(psycopg2.DataError):  # not a valid text of this encoding
                site.sql(
                    "INSERT INTO t (id, number, key, subject, status)"
                    f" SELECT '{value}', {len(expected)}, 'key {value}', {stored(encoding, value)}, 'active'"
                )
                expected[value] = converted(site, encoding, value)
        assert expected
        with site.serve():
            answers = site.cli.verify([f"key {value}" for value in expected])
            got = {value: answer.get("sub") for value, answer in zip(expected, answers, strict=True)}
            assert {value: got[value] for value in got if got[value] != expected[value]} == {}
            refused = sum(text is None for text in expected.values())
            found = {f["number"]: f["count"] for f in site.source_status("t")["findings"]}
            assert found.get("L212", 0) == refused
            assert site.source_status("t")["suspended"] is False


BAD = stored("WIN1252", "8d")
GOOD = stored("WIN1252", "e9")  # é


def insert(site: Installation, number: int, **values: str) -> str:
    """Insert a row; the values are SQL expressions. Returns its key."""
    row = {"id": f"'{number}'", "number": str(number), "key": f"'the key {number}'", "status": "'active'"}
    row |= values
    site.sql(f"INSERT INTO t ({', '.join(row)}) VALUES ({', '.join(row.values())})")
    return f"the key {number}"


BAD_COLUMNS = {
    "id": BAD,
    "key": f"'the key ' || {BAD}",
    "subject": BAD,
    "tenant": BAD,
    "scopes": f"ARRAY['read', {BAD}]",
    "metadata": f"jsonb_build_object('name', {BAD})",
}


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    with encoded(cluster, databases, "WIN1252") as made:
        made.freshness["audit"] = "200ms"
        yield made


def follow(site: Installation, ids: str, **settings: str) -> None:
    """Configure the source for the empty table, with this column as the id."""
    site.source("t", table="public.t", **(COLUMNS | {"id": ids, "revoked_at": "off"} | settings))
    site.sql("TRUNCATE t")


def unreadable_rows(site: Installation) -> int:
    found = {f["number"]: f["count"] for f in site.source_status("t")["findings"]}
    return int(found.get("L212", 0))


@pytest.mark.parametrize("ids", ["id", "number"])
@pytest.mark.parametrize("column", BAD_COLUMNS)
def test_a_value_that_does_not_convert_costs_its_row(site: Installation, column: str, ids: str) -> None:
    """In the first load, in a re-read, and in an audit."""
    if (column, ids) == ("id", "number"):
        pytest.skip("the column is not read")
    follow(site, ids)
    good = insert(site, 1, subject=GOOD, metadata=f"jsonb_build_object('name', {GOOD})")
    bad = insert(site, 2, **{column: BAD_COLUMNS[column]})
    site.install()
    assert "L212" in site.check()
    with site.serve() as daemon:
        assert unreadable_rows(site) == 1
        (answer,) = site.ask(good, metadata=True)
        assert (answer["verdict"], answer["sub"]) == ("valid", "\u00e9")
        assert "\u00e9" in str(answer["metadata"])
        assert site.verdict(bad) == ("unknown" if column == "key" else "disabled")
        later = insert(site, 3)
        assert site.verdict(later) == "valid"
        site.sql("DELETE FROM t WHERE number = 2")
        site.sql(f"UPDATE t SET {column} = {BAD_COLUMNS[column]} WHERE number = 3")
        assert site.verdict(later) == ("unknown" if column == "key" else "disabled")
        assert "unreadable_text" in daemon.log()
        site.sql("UPDATE t SET off = now() WHERE number = 1")
        assert site.verdict(good) == "revoked"
        audits = site.source_status("t")["audits"]
        until(lambda: site.source_status("t")["audits"] > audits + 1, 10, "audits go on")
        status = site.source_status("t")
        assert (status["audit_mismatches"], status["audits_failed"]) == (0, 0)
        assert status["suspended"] is False and site.database_status()["failures"] == 0


def test_an_audit_names_ids_that_do_not_convert(site: Installation) -> None:
    """The ids are of rows that changed without a trigger."""
    follow(site, "id")
    insert(site, 1, id=BAD)
    token = insert(site, 2, id=GOOD)
    with site.serve():
        assert site.verdict(token) == "valid"
        site.sql("SET session_replication_role = replica; ALTER TABLE t DISABLE TRIGGER ALL;"
                 " UPDATE t SET off = now(); ALTER TABLE t ENABLE ALWAYS TRIGGER latchkey_update;"
                 " RESET session_replication_role")  # fmt: skip
        until(lambda: site.cli.verify(token).names == ["revoked"], 20, "found")


@pytest.mark.parametrize("ids", ["id", "number"])
def test_ids_that_convert_are_followed(site: Installation, ids: str) -> None:
    follow(site, ids)
    tokens = [insert(site, 1, id=GOOD), insert(site, 2, id=f"{GOOD} || '2'"), insert(site, 3)]
    with site.serve():
        assert site.ask(*tokens).names == ["valid"] * 3
        site.sql("UPDATE t SET off = now() WHERE number = 2")
        assert site.ask(*tokens).names == ["valid", "revoked", "valid"]
        site.sql("DELETE FROM t WHERE number = 1")
        assert site.ask(*tokens).names == ["unknown", "revoked", "valid"]


def test_names_that_do_not_convert_disturb_nobody(site: Installation) -> None:
    """The names of a column that is not mapped, of a function, of a schema."""
    follow(site, "id")
    token = insert(site, 1)
    with site.serve():
        assert site.verdict(token) == "valid"
        for template in (
            "ALTER TABLE t ADD COLUMN %I int",
            "CREATE FUNCTION %I(int) RETURNS int LANGUAGE sql IMMUTABLE AS $$SELECT 1$$",
            "CREATE INDEX %1$I ON t (%1$I(number::int))",
            "CREATE SCHEMA %I",
        ):
            site.sql(f"DO $do$ BEGIN EXECUTE format('{template}', {BAD}); END $do$")
        site.sql("UPDATE t SET off = now()")
        assert site.verdict(token) == "revoked"
        until(lambda: site.cli.verify(token)[0]["fresh"], 10, "followed")
        assert site.source_status("t")["suspended"] is False


def test_stored_keys_that_are_not_ascii_are_refused_and_counted(site: Installation) -> None:
    """If PostgreSQL had to convert such a key and could not, it would return no row at all."""
    follow(site, "id")
    insert(site, 1, key=f"'cl' || {GOOD}")
    token = insert(site, 2)
    with site.serve():
        assert site.ask("cl\u00e9", token).names == ["unknown", "valid"]
        assert unreadable_rows(site) == 1


def test_digests_in_text_that_do_not_convert_cost_their_row(site: Installation) -> None:
    follow(site, "id", scheme="sha256", encoding="hex")
    insert(site, 1, key=BAD)
    token = "a good key of its own"
    insert(site, 2, key=f"'{hashlib.sha256(token.encode()).hexdigest()}'")
    with site.serve():
        assert site.verdict(token) == "valid"
        assert unreadable_rows(site) == 1


def test_in_sql_ascii_what_is_utf8_is_text(cluster: PrivateCluster, databases: Databases) -> None:
    with encoded(cluster, databases, "SQL_ASCII", id="number") as site:
        text = "convert_from('\\xc3a9', 'SQL_ASCII')"
        site.sql("SET client_encoding = 'SQL_ASCII'")
        good = insert(site, 1, subject=text, key=f"'the key 1' || {text}") + "\u00e9"
        bad = [
            insert(site, 2, subject="convert_from('\\xe9', 'SQL_ASCII')"),
            insert(site, 3, tenant="convert_from('\\xf4908080', 'SQL_ASCII')"),
        ]
        insert(site, 4, key="convert_from('\\xe9', 'SQL_ASCII')")
        with site.serve():
            answers = site.ask(good, *bad)
            assert answers.names == ["valid", "disabled", "disabled"]
            assert answers[0]["sub"] == "\u00e9"
            site.sql("UPDATE t SET off = now()")
            assert site.verdict(good) == "revoked"
            assert site.source_status("t")["suspended"] is False
