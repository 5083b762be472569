"""Pitfalls of external_credentials: soft deletion, TRUNCATE, metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg2
import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Installation


@pytest.fixture(scope="module")
def external(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials", metadata="data")
    with site.serve():
        yield site
    site.close()


def test_a_soft_deleted_key_can_only_come_back_by_being_restored(external: Installation) -> None:
    row = seeds.insert_external(external.conn, "ext_phoenix", 1)
    mark = "UPDATE public.external_credentials SET deleted_at = {} WHERE id = %s"
    assert external.verdict("ext_phoenix") == "valid"
    external.sql(mark.format("now()"), row)
    assert external.verdict("ext_phoenix") == "deleted"
    with pytest.raises(psycopg2.IntegrityError):
        seeds.insert_external(external.conn, "ext_phoenix", 2)
    assert external.verdict("ext_phoenix") == "deleted"
    external.sql(mark.format("NULL"), row)
    assert external.claims("ext_phoenix")["key_id"] == str(row)
    assert external.verdict("ext_phoenix") == "valid"


def test_truncate_removes_every_key_at_once(cluster: PrivateCluster, databases: Databases) -> None:
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials")
    seeds.fill_external(site.conn, 50)
    with site.serve():
        keys = [seeds.key_text("seed", i) for i in range(1, 51)]
        assert set(site.ask(*keys).names) == {"valid"}
        site.sql("TRUNCATE public.external_credentials")
        assert set(site.ask(*keys).names) == {"unknown"}
        site.wait_source("external", keys=0, rows=0)
        seeds.fill_external(site.conn, 5)
        assert site.ask(*keys).names == ["valid"] * 5 + ["unknown"] * 45
    site.close()


def test_truncate_that_is_rolled_back_removes_nothing(external: Installation) -> None:
    seeds.insert_external(external.conn, "ext_survivor", 1)
    external.sql("BEGIN; TRUNCATE public.external_credentials; ROLLBACK")
    assert external.verdict("ext_survivor") == "valid"


@pytest.mark.parametrize(("size", "shown"), [(10, True), (3500, True), (4100, False)])
def test_metadata_too_long_for_an_answer_are_left_out(
    external: Installation, size: int, shown: bool
) -> None:
    key = f"ext_meta_{size}"
    row = seeds.insert_external(external.conn, key, 5, {"note": "n" * size})
    external.cli.sync("30s")
    command = ["--socket", str(external.socket), "--json", "verify", "--metadata"]
    (answer,) = external.cli.run(*command, stdin=key.encode() + b"\n").expect(0).json_lines()
    assert answer["key_id"] == str(row) and ("metadata" in answer) == shown
    if shown:
        assert json.loads(answer["metadata"]) == {"note": "n" * size}


def test_changed_metadata_arrive(external: Installation) -> None:
    row = seeds.insert_external(external.conn, "ext_plan", 5, {"plan": "gold"})
    external.cli.sync("30s")
    external.sql(
        "UPDATE public.external_credentials SET data = %s WHERE id = %s", '{"plan": "tin"}', row
    )
    external.cli.sync("30s")
    command = ["--socket", str(external.socket), "--json", "verify", "--metadata"]
    (answer,) = external.cli.run(*command, stdin=b"ext_plan\n").expect(0).json_lines()
    assert answer["metadata"] == '{"plan": "tin"}'
