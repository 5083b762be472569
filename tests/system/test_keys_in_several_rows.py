"""One key in several rows, of one source or of several: each row may refuse it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Setting, emptied


@pytest.fixture(scope="module")
def scratch(databases: Databases) -> str:
    return databases.new()


@pytest.fixture
def site(cluster: PrivateCluster, scratch: str) -> Iterator[Installation]:
    with emptied(cluster, scratch) as made:
        yield made


@pytest.mark.parametrize("order", ["a b", "b a"])
def test_twins_refuse_whatever_the_order_of_sources_and_peppers(
    site: Installation, order: str
) -> None:
    """The key is good in source a, and is stored twice in b, once under each pepper."""
    old, new = (seeds.Pepper.random(f"pepper_{name}") for name in ("1", "2"))
    for pepper in (old, new):
        pepper.write_to(site.peppers)
    site.sql("CREATE TABLE a (id int PRIMARY KEY, digest text); CREATE TABLE b (LIKE a, off bool)")
    site.sql("ALTER TABLE b ADD PRIMARY KEY (id)")
    site.sql("INSERT INTO a VALUES (1, %s)", hashlib.sha256(b"k").hexdigest())
    site.sql("INSERT INTO b VALUES (1, %s, false), (2, %s, false)",
             old.digest("k").hex(), new.digest("k").hex())  # fmt: skip
    terms: dict[str, Setting] = {"id": "id", "key": "digest", "encoding": "hex"}
    for name in order.split():
        hashed: dict[str, Setting] = {"scheme": "hmac-sha256", "peppers": str(site.peppers)}
        own = {"scheme": "sha256"} if name == "a" else hashed | {"revoked_at": "off"}
        site.source(name, table=f"public.{name}", **terms, **own)
    with site.serve():
        assert site.verdict("k") == "disabled"
        site.sql("UPDATE b SET off = true WHERE id = 2")
        assert site.verdict("k") == "revoked"
        site.sql("DELETE FROM b WHERE id = 1")
        assert site.verdict("k") == "revoked"
        site.sql("UPDATE b SET off = false")
        assert site.verdict("k") == "valid"


@pytest.mark.parametrize("state", ["off = now()", "off = NULL"])
def test_a_row_that_no_answer_holds_refuses_its_key_all_the_same(
    site: Installation, state: str
) -> None:
    """If the loader left the row out, another row that holds the same key would admit it."""
    for name in ("a", "b"):
        site.sql(f"CREATE TABLE {name} (id text PRIMARY KEY, key text, off timestamptz)")
        site.source(name, table=f"public.{name}", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO a VALUES (repeat('x', 5000), 'the key')")
    site.sql(f"UPDATE a SET {state}")
    site.sql("INSERT INTO b VALUES ('1', 'the key')")
    with site.serve():
        refused = "revoked" if "now" in state else "disabled"
        assert site.verdict("the key") == refused
        site.sql("INSERT INTO a VALUES (repeat('y', 5000), 'another')")
        site.cli.sync()
        until(lambda: site.verdict("another") == "disabled", 10, "after the load")
        site.sql("DELETE FROM a")
        until(lambda: site.verdict("the key") == "valid", 10, "after the load")
        assert site.verdict("another") == "unknown"
        assert site.source_status("a")["keys"] == 0


@pytest.fixture(scope="module")
def shared(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """Two tables without a constraint against storing a key twice."""
    site = Installation(cluster, databases.new())
    for name in ("first", "second"):
        site.sql(
            f"""CREATE TABLE public.{name} (id int PRIMARY KEY, key text, owner text,
                                            status text DEFAULT 'active')"""
        )
        site.source(
            name, table=f"public.{name}", id="id", key="key", subject="owner", status="status"
        )
    with site.serve():
        yield site
    site.close()


def add_rows(site: Installation, table: str, *rows: tuple[int, str, str]) -> None:
    for row_id, key, status in rows:
        owner = f"owner {row_id}"
        site.sql(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", row_id, key, owner, status)


def test_a_key_in_two_rows_is_nobodys_until_one_row_is_left(shared: Installation) -> None:
    before = shared.source_status("first")["keys_in_several_rows"]
    add_rows(shared, "first", (1, "twin", "active"))
    assert shared.claims("twin")["sub"] == "owner 1"
    add_rows(shared, "first", (2, "twin", "active"), (3, "twin", "active"))
    answer = shared.claims("twin")
    assert answer["verdict"] == "disabled" and "sub" not in answer
    shared.wait_source("first", keys_in_several_rows=before + 1)
    shared.sql("DELETE FROM first WHERE id = 1")
    assert shared.verdict("twin") == "disabled"
    shared.sql("UPDATE first SET key = 'twin no more' WHERE id = 2")
    assert shared.claims("twin")["sub"] == "owner 3" and shared.verdict("twin") == "valid"
    assert shared.claims("twin no more")["sub"] == "owner 2"
    shared.wait_source("first", keys_in_several_rows=before)


@pytest.mark.parametrize("refusing_first", [True, False])
@pytest.mark.parametrize("refusing", ["revoked", "disabled"])
def test_a_refusing_row_speaks_before_an_active_one(
    shared: Installation, refusing: str, refusing_first: bool
) -> None:
    key = f"contested {refusing} {refusing_first}"
    base = {"revoked": 100, "disabled": 200}[refusing] + 10 * refusing_first
    states = [refusing, "active"] if refusing_first else ["active", refusing]
    rows = [(base + i, key, state) for i, state in enumerate(states)]
    add_rows(shared, "first", *rows)
    assert shared.verdict(key) == refusing
    refusing_id = next(row_id for row_id, _, state in rows if state == refusing)
    shared.sql("DELETE FROM first WHERE id = %s", refusing_id)
    assert shared.verdict(key) == "valid"


def test_a_key_in_two_sources_is_refused_if_either_refuses(shared: Installation) -> None:
    add_rows(shared, "first", (50, "both", "active"))
    add_rows(shared, "second", (51, "both", "active"))
    assert shared.claims("both")["source"] == "first", "the source configured first speaks"
    shared.sql("UPDATE second SET status = 'revoked' WHERE id = 51")
    answer = shared.claims("both")
    assert (answer["verdict"], answer["source"]) == ("revoked", "second")
    assert shared.verdict("both", source="first") == "valid"
    assert shared.verdict("both", source="second") == "revoked"
    shared.sql("DELETE FROM second WHERE id = 51")
    assert shared.verdict("both") == "valid"


def test_keys_in_several_rows_are_reported_by_check(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE public.twins (id int PRIMARY KEY, key text)")
    site.sql("INSERT INTO twins SELECT i, 'key ' || i / 2 FROM generate_series(2, 7) AS i")
    site.source("twins", table="public.twins", id="id", key="key")
    site.install()
    assert '"twins": 3 keys stand in several rows each' in site.check()
    site.close()
