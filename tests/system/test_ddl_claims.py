"""DDL under a running daemon: scopes, subjects and tenants change their type or their labels."""

from __future__ import annotations

import time
from typing import Any

import pytest
from followed_table import BOUND_S, RENAME_LABEL, installed
from harness.postgres import PrivateCluster
from installation import Databases

ADMIN = "INSERT INTO k VALUES (1, 'gone', {0}), (2, 'stays', {1}), (3, 'later', {1})"
LISTS = {
    "enum[]": "mood[]",
    "domain over enum[]": "moods",
    "array of domain over enum": "feeling[]",
    "domain over array of domain over enum": "feelings",
}


@pytest.mark.parametrize("kind", LISTS.values(), ids=LISTS.keys())
def test_a_scope_that_is_a_label_is_renamed(
    cluster: PrivateCluster, databases: Databases, kind: str
) -> None:
    setup = f"""CREATE TYPE mood AS ENUM ('good', 'better'); CREATE DOMAIN moods AS mood[];
        CREATE DOMAIN feeling AS mood; CREATE DOMAIN feelings AS feeling[];
        CREATE TABLE k (id int PRIMARY KEY, key text, scopes {kind});
        INSERT INTO k VALUES (1, 'gone', '{{good}}'), (2, 'stays', '{{better}}')"""
    with installed(cluster, databases, setup, scopes="scopes") as site, site.serve():
        assert site.verdict("gone", scopes=["good"]) == "valid"
        site.sql(RENAME_LABEL)
        assert site.verdict("gone", scopes=["good"]) == "insufficient_scope"
        assert site.verdict("gone", scopes=["bad"]) == "valid"
        assert site.verdict("stays", scopes=["better"]) == "valid"


WHO = {
    # type, value, new type, USING, the row's later value
    "integer to text": ("int", "7", "text", "'u' || who", "1234"),
    "integer to text of one byte": ("int", "7", "text", "'u' || who", "1"),
    "integer to bigint": ("int", "7", "bigint", "who", "12345678901"),
    "bigint to integer": ("bigint", "7", "int", "who", "1234"),
    "bigint to text": ("bigint", "7", "text", "'u' || who", "abcdefgh"),
    "smallint to text": ("smallint", "7", "text", "'u' || who", "ab"),
    "text to integer": ("text", "'7'", "int", "who::int", "825373492"),
    "integer to uuid": (
        "int", "7", "uuid", "lpad(who::text, 32, '0')::uuid", "31323334-3132-3334-3132-333431323334",
    ),
    "integer to bytea": ("int", "7", "bytea", "who::text::bytea", "\\x31323334"),
    "integer to date": ("int", "7", "date", "'epoch'::date + who", "2024-02-29"),
    "integer to float4": ("int", "7", "float4", "who", "1.5"),
    "text to jsonb": ("text", "'7'", "jsonb", "to_jsonb(who)", '{"a": 1}'),
    "jsonb to text": ("jsonb", "'7'", "text", "who::text", "x1234"),
}  # fmt: skip


@pytest.mark.parametrize("role", ["subject", "tenant"])
@pytest.mark.parametrize(("before", "value", "after", "how", "said"), WHO.values(), ids=WHO.keys())
def test_nobody_becomes_somebody_else(
    cluster: PrivateCluster, databases: Databases, role: str, before: str, value: str, after: str, how: str, said: str
) -> None:
    """The key's row names another person: the bytes of a value must not be read as another type."""
    setup = f"""CREATE TABLE k (id int PRIMARY KEY, key text, who {before});
        INSERT INTO k VALUES (1, 'gone', {value})"""
    name = {"subject": "sub", "tenant": "tenant"}[role]
    with installed(cluster, databases, setup, **{role: "who"}) as site, site.serve():
        was = site.claims("gone")[name]
        site.sql(f"ALTER TABLE k ALTER who TYPE {after} USING {how}")
        between = site.value("SELECT who::text FROM k")
        site.sql("UPDATE k SET who = %s", said)
        since = time.monotonic()
        seen: set[Any] = set()
        while time.monotonic() < since + 2 * BOUND_S:
            seen.add(site.cli.verify("gone")[0].get(name))
        assert seen <= {was, between, said, None}
        assert site.claims("gone")[name] == said
