"""Values that a type or a collation treats as equal: they are different keys, ids and words."""

from __future__ import annotations

import pytest
from followed_table import installed
from harness.postgres import PrivateCluster
from installation import Databases, Installation

ANY_CASE = "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"


@pytest.fixture(scope="module")
def icu(cluster: PrivateCluster) -> None:
    if not cluster.sql("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1"):
        pytest.skip("this server was built without ICU")


ALIKE = {
    # type, value, another value equal to it
    "any case": ("text COLLATE any_case", "sk_aé", "SK_AÉ"),
    "any case, varchar": ("varchar(20) COLLATE any_case", "sk_a", "SK_A"),
    "any case, char(n)": ("char(8) COLLATE any_case", "sk_a", "SK_A"),
    "any case, a domain": ("any_text", "sk_a", "SK_A"),
    "numeric": ("numeric", "1.0", "1.00"),
    "interval": ("interval", "24:00:00", "1 day"),
    "float8": ("float8", "0", "-0"),
    "timetz": ("timetz", "01:00:00+00", "01:00:00+00"),
    "citext": ("citext", "sk_a", "SK_A"),
    "numeric[]": ("numeric[]", "{1.0}", "{1.00}"),
    "jsonb": ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
    "numrange": ("numrange", "[1.0,2)", "[1.00,2)"),
}


def create_alike(site: Installation, kind: str) -> None:
    if kind == "citext":
        if not site.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
            pytest.skip("this server has no citext")
        site.sql("CREATE EXTENSION citext")
    site.sql("CREATE DOMAIN any_text AS text COLLATE any_case")


# A column of another type cannot hold keys (L107).
KEYS_ALIKE = {
    name: alike for name, alike in ALIKE.items() if alike[0].startswith(("text", "varchar", "char", "citext", "any_"))
}


@pytest.mark.usefixtures("icu")
@pytest.mark.parametrize(("kind", "one", "other"), KEYS_ALIKE.values(), ids=KEYS_ALIKE.keys())
def test_a_key_that_changes_into_its_equal_is_another_key(
    cluster: PrivateCluster, databases: Databases, kind: str, one: str, other: str
) -> None:
    with installed(cluster, databases, ANY_CASE) as site:
        create_alike(site, kind)
        site.sql(f"CREATE TABLE k (id int PRIMARY KEY, key {kind})")
        site.sql("INSERT INTO k VALUES (1, %s)", one)
        spelling = f"SELECT rtrim(concat(%s::{kind.partition(' COLLATE')[0]}))"
        spelled = {text: site.value(spelling, text) for text in (one, other)}
        if spelled[one] == spelled[other]:
            pytest.skip("both are spelled alike")
        with site.serve():
            assert site.verdict(spelled[one]) == "valid"
            site.sql("UPDATE k SET key = %s", other)
            assert site.ask(spelled[one], spelled[other]).names == ["unknown", "valid"]


@pytest.mark.usefixtures("icu")
@pytest.mark.parametrize(("kind", "one", "other"), ALIKE.values(), ids=ALIKE.keys())
def test_an_id_that_changes_into_its_equal_is_another_id(
    cluster: PrivateCluster, databases: Databases, kind: str, one: str, other: str
) -> None:
    with installed(cluster, databases, ANY_CASE) as site:
        create_alike(site, kind)
        site.sql(f"CREATE TABLE k (id {kind} PRIMARY KEY, key text)")
        site.sql("INSERT INTO k VALUES (%s, 'first')", one)
        with site.serve():
            assert site.verdict("first") == "valid"
            site.sql("UPDATE k SET id = %s", other)
            assert site.claims("first")["key_id"] == site.value("SELECT rtrim(concat(id)) FROM k")
            site.sql("UPDATE k SET key = 'second'")
            assert site.ask("first", "second").names == ["unknown", "valid"]
            site.sql("DELETE FROM k")
            assert site.ask("first", "second").names == ["unknown", "unknown"]


@pytest.mark.usefixtures("icu")
def test_a_word_that_changes_into_its_equal_is_another_word(
    cluster: PrivateCluster, databases: Databases
) -> None:
    setup = f"""{ANY_CASE}; CREATE TABLE k (id int PRIMARY KEY, key text, status text COLLATE any_case,
            scopes text COLLATE any_case, who text COLLATE any_case);
        INSERT INTO k VALUES (1, 'gone', 'active', 'read', 'ann')"""
    with installed(cluster, databases, setup, status="status", scopes="scopes", subject="who") as site:
        with site.serve():
            assert site.verdict("gone", scopes=["read"]) == "valid"
            site.sql("UPDATE k SET who = 'ANN'")
            assert site.claims("gone")["sub"] == "ANN"
            site.sql("UPDATE k SET scopes = 'READ'")
            assert site.verdict("gone", scopes=["read"]) == "insufficient_scope"
            site.sql("UPDATE k SET status = 'ACTIVE'")
            assert site.verdict("gone") == "disabled"


@pytest.mark.usefixtures("icu")
def test_ids_that_a_collation_takes_for_one_are_two(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """The unique index compares bytes, the column does not."""
    setup = f"""{ANY_CASE}; CREATE TABLE k (id text COLLATE any_case NOT NULL, key text);
        CREATE UNIQUE INDEX ON k (id COLLATE "C"); INSERT INTO k VALUES ('ab', 'small'), ('AB', 'large')"""
    with installed(cluster, databases, setup) as site, site.serve():
        assert site.ask("small", "large").names == ["valid", "valid"]
        site.sql("""DELETE FROM k WHERE id = 'ab' COLLATE "C" """)
        assert site.ask("small", "large").names == ["unknown", "valid"]
        site.sql("INSERT INTO k VALUES ('aB', 'mixed')")
        site.sql("""UPDATE k SET id = 'Ab' WHERE key = 'large'; DELETE FROM k WHERE key = 'mixed'""")
        assert site.ask("small", "large", "mixed").names == ["unknown", "valid", "unknown"]
