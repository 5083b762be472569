"""Tables of any shape: ids of any type, odd names, presets with changes, partitions."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Keys, emptied


@pytest.fixture(scope="module")
def scratch(databases: Databases) -> str:
    return databases.new()


@pytest.fixture
def site(cluster: PrivateCluster, scratch: str) -> Iterator[Installation]:
    with emptied(cluster, scratch) as made:
        yield made


# ---- ids

ODD_IDS = [
    "plain",
    "",
    " ",
    "two words",
    "comma, semicolon;",
    "{brace}",
    '"quoted"',
    "'single'",
    "back\\slash",
    '\\"both\\"',
    "NULL",
    "null",
    "tab\tline\nbreak\r",
    "ünï©ode → 😀",
    "\\u0041",
    "%s $1 :name ?",
    "🔑" * 400,
    "x" * 1500,
]


def table_with_ids(site: Installation, id_type: str) -> None:
    site.sql(f"CREATE TABLE public.t (id {id_type} PRIMARY KEY, key text, off timestamptz)")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")


@pytest.fixture(scope="module")
def odd_ids(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new())
    table_with_ids(site, "text")
    for number, odd in enumerate(ODD_IDS):
        site.sql("INSERT INTO t VALUES (%s, %s)", odd, f"loaded {number}")
    with site.serve():
        yield site
    site.close()


@pytest.mark.parametrize("number", range(len(ODD_IDS)), ids=lambda n: repr(ODD_IDS[n])[:20])
def test_any_text_may_be_an_id(odd_ids: Installation, number: int) -> None:
    """The id passes unchanged through the load, the notification, the re-read and the answer."""
    odd, key = ODD_IDS[number], f"loaded {number}"
    answer = odd_ids.claims(key)
    assert answer["verdict"] == "valid" and answer.get("key_id", "") == odd
    odd_ids.sql("UPDATE t SET off = now() WHERE id = %s", odd)
    assert odd_ids.verdict(key) == "revoked"
    odd_ids.sql("UPDATE t SET off = NULL, key = %s WHERE id = %s", f"again {number}", odd)
    assert odd_ids.ask(key, f"again {number}").names == ["unknown", "valid"]
    odd_ids.sql("DELETE FROM t WHERE id = %s", odd)
    assert odd_ids.verdict(f"again {number}") == "unknown"
    assert odd_ids.source_status("t")["malformed_ids"] == 0


@pytest.mark.parametrize(
    ("id_type", "ids"),
    [
        ("uuid", [str(uuid.UUID(int=i)) for i in (0, 1, 2**128 - 1)]),
        ("smallint", ["-32768", "0", "32767"]),
        ("integer", ["-2147483648", "1", "2147483647"]),
        ("bigint", ["-9223372036854775808", "7", "9223372036854775807"]),
        ("numeric", ["12345678901234567890123", "1.50", "-1"]),
        ("varchar(40)", ["a", "B b", "NULL"]),
        ("char(8)", ["short", "exactly8", "a b"]),
        ("bytea", ["\\x00ff", "\\x", "\\x5c22"]),
        ("date", ["2024-02-29", "infinity", "0044-03-15 BC"]),
        ("inet", ["10.0.0.1", "::1", "10.0.0.0/8"]),
    ],
)
def test_a_unique_column_of_any_type_may_be_the_id(
    site: Installation, id_type: str, ids: list[str]
) -> None:
    table_with_ids(site, id_type)
    keys = [f"key of {row_id}" for row_id in ids]
    site.sql("INSERT INTO t VALUES (%s, %s)", ids[0], keys[0])
    with site.serve():
        for row_id, key in zip(ids[1:], keys[1:], strict=True):
            site.sql("INSERT INTO t VALUES (%s, %s)", row_id, key)
        answers = site.ask(*keys)
        assert answers.names == ["valid"] * 3
        assert [answer["key_id"] for answer in answers] == ids
        site.sql("UPDATE t SET off = now()")
        assert site.ask(*keys).names == ["revoked"] * 3
        site.sql("DELETE FROM t")
        assert site.ask(*keys).names == ["unknown"] * 3
        assert site.source_status("t")["malformed_ids"] == 0


# ---- names

ODD_NAMES = ["Mixed Case", 'quo"te', "o'clock", "back\\slash", "dot.ted", "$$", "ünïcode", "SELECT"]


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_schemas_tables_and_columns_of_any_name(site: Installation, odd: str) -> None:
    quoted = '"' + odd.replace('"', '""') + '"'
    site.sql(f"CREATE SCHEMA {quoted}")
    site.sql(
        f"""CREATE TABLE {quoted}.{quoted} ({quoted} int PRIMARY KEY, "{{K}} key" text,
                                            "Off At" timestamptz)"""
    )
    site.source("odd", table=f"{quoted}.{quoted}", id=odd, key="{K} key", revoked_at="Off At")
    site.sql(f"INSERT INTO {quoted}.{quoted} VALUES (1, 'k1'), (2, 'k2')")
    with site.serve():
        site.sql(f'UPDATE {quoted}.{quoted} SET "Off At" = now() WHERE {quoted} = 2')
        assert site.ask("k1", "k2").names == ["valid", "revoked"]
        site.sql(f"TRUNCATE {quoted}.{quoted}")
        assert site.verdict("k1") == "unknown"
    site.cluster.psql(site.cli.sql("uninstall", site.config), site.dbname)
    assert site.value("SELECT to_regnamespace('latchkey')") is None


def test_tables_whose_names_differ_late_do_not_share_triggers(site: Installation) -> None:
    """PostgreSQL cuts names after 63 bytes: names derived from two long names must still differ."""
    for last in "ab":
        table = "t" * 62 + last
        site.sql(f"CREATE TABLE public.{table} (id int PRIMARY KEY, key text)")
        site.source(f"source_{last}", table=f"public.{table}", id="id", key="key")
    with site.serve():
        for last in "ab":
            site.sql(f"INSERT INTO public.{'t' * 62}{last} VALUES (1, 'key {last}')")
        answers = site.ask("key a", "key b")
        assert [answer.get("source") for answer in answers] == ["source_a", "source_b"]
    site.cluster.psql(site.cli.sql("uninstall", site.config, "source_a"), site.dbname)
    assert site.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'latchkey%%'") == 4


# ---- presets with changes


def test_a_preset_can_do_without_one_of_its_columns(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.source(
        "api_keys",
        preset="api_keys",
        peppers=str(site.peppers),
        scopes=False,
        tenant=False,
        expires_at=False,
    )
    site.sql("DROP VIEW public.vw_api_keys; ALTER TABLE public.api_keys DROP COLUMN scopes")
    site.sql(
        """INSERT INTO public.api_keys (tenant_id, user_id, name, token_hash,
                                        token_hash_key_version, expires_at)
           VALUES (%s, %s, 'bent', %s, %s, now() - interval '1 day')""",
        site.tenant,
        site.user,
        site.pepper.digest("sk_bent"),
        site.pepper.version,
    )
    with site.serve():
        answer = site.claims("sk_bent")
        assert answer["verdict"] == "valid"
        assert answer.keys().isdisjoint({"scope", "tenant", "exp"})
        assert site.verdict("sk_bent", scopes=["read"]) == "insufficient_scope"
    site.close()


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        ("external_credentials", lambda site: seeds.insert_external(site.conn, "the key", 1)),
        ("auth_api_key", None),
    ],
)
def test_a_preset_works_on_a_table_of_another_name(
    cluster: PrivateCluster,
    databases: Databases,
    schema: seeds.SchemaName,
    row: Callable[[Installation], Any] | None,
) -> None:
    site = Installation(cluster, databases.new(schema))
    key = "the key"
    if row is None:
        user = seeds.insert_auth_user(site.conn, "ada@example.com")
        key = seeds.insert_auth_key(site.conn, user).token
        site.sql("ALTER TABLE auth.api_key RENAME TO tokens")
        site.sql("ALTER TABLE auth.tokens SET SCHEMA public")
    else:
        row(site)
        site.sql("ALTER TABLE public.external_credentials RENAME TO tokens")
    site.source("renamed", preset=schema, table="public.tokens", subject="id")
    with site.serve():
        answer = site.claims(key)
        assert answer["verdict"] == "valid" and answer["sub"] == answer["key_id"]
    site.close()


# ---- partitions


def test_a_partitioned_table_is_one_table(site: Installation) -> None:
    site.sql(
        """CREATE TABLE t (id int PRIMARY KEY, key text, off timestamptz) PARTITION BY RANGE (id);
           CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100);
           CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (100) TO (200)"""
    )
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO t SELECT i, 'key ' || i FROM generate_series(0, 199) AS i")
    with site.serve():
        assert site.ask("key 0", "key 199").names == ["valid", "valid"]
        site.sql("UPDATE t SET off = now() WHERE id IN (0, 199)")
        assert site.ask("key 0", "key 199").names == ["revoked", "revoked"]
        site.sql("DELETE FROM t WHERE id IN (1, 198)")
        assert site.ask("key 1", "key 198").names == ["unknown", "unknown"]
        # The row moves from one partition into the other.
        site.sql("DELETE FROM t WHERE id = 150; UPDATE t SET id = 150 WHERE id = 50")
        assert site.claims("key 50")["key_id"] == "150"
        site.sql("UPDATE t SET off = now() WHERE id = 150")
        assert site.verdict("key 50") == "revoked"
        site.sql("TRUNCATE t")
        assert site.ask("key 2", "key 50").names == ["unknown", "unknown"]


def test_the_audit_finds_what_was_written_past_the_parent(site: Installation) -> None:
    """A statement on a partition itself fires no trigger of the parent."""
    site.sql(
        """CREATE TABLE t (id int PRIMARY KEY, key text, off timestamptz) PARTITION BY HASH (id);
           CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)"""
    )
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO t VALUES (1, 'the key')")
    site.freshness["audit"] = "300ms"
    with site.serve():
        assert site.verdict("the key") == "valid"
        site.sql("UPDATE t_0 SET off = now()")
        until(
            lambda: site.source_status("t")["audit_mismatches"] > 0, 10, "an audit has found it"
        )
        site.wait_source("t", loads=2)
        assert site.verdict("the key") == "revoked"
