"""Oversized values are never transferred: PostgreSQL cuts them, and the row is refused or loses them, and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Daemon, sanitized
from harness.wait import until
from installation import Databases, Installation

MANY = 20_000_000
RESIDENT_MAX = (1 << 30) if sanitized() else (64 << 20)


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new())
    yield made
    made.close()


SIZES = {
    "jsonb metadata": ("metadata", "jsonb", "to_jsonb(repeat('x', {n}))", "valid", "metadata_too_long"),
    "jsonb that compresses less": (
        "metadata",
        "jsonb",
        "(SELECT jsonb_agg(md5(i::text)) FROM generate_series(1, {n} / 200) AS i)",
        "valid",
        "metadata_too_long",
    ),
    "json metadata": ("metadata", "json", "to_json(repeat('x', {n}))", "valid", "metadata_too_long"),
    "text metadata": ("metadata", "text", "repeat('x', {n})", "valid", "metadata_too_long"),
    "text subject": ("subject", "text", "repeat('x', {n})", "disabled", "claims_too_long"),
    "varchar tenant": ("tenant", "varchar", "repeat('x', {n})", "disabled", "claims_too_long"),
    "numeric subject": ("subject", "numeric", "repeat('7', 100000)::numeric", "disabled", "claims_too_long"),
    "words": ("scopes", "text", "repeat('read ', {n} / 5)", "disabled", "claims_too_long"),
    "text[]": ("scopes", "text[]", "array_fill('read'::text, ARRAY[{n} / 10])", "disabled", "claims_too_long"),
    "jsonb scopes": ("scopes", "jsonb", "to_jsonb(array_fill('read'::text, ARRAY[{n} / 10]))", "disabled",
                     "claims_too_long"),
    "json scopes": ("scopes", "json", "to_json(array_fill('read'::text, ARRAY[{n} / 10]))", "disabled",
                    "claims_too_long"),
    "status": ("status", "text", "repeat('active', {n} / 6)", "disabled", "unknown_status"),
}  # fmt: skip


@pytest.mark.parametrize(("role", "kind", "value", "verdict", "odd"), SIZES.values(), ids=SIZES.keys())
def test_a_huge_value_costs_neither_memory_nor_another_row(
    site: Installation, role: str, kind: str, value: str, verdict: str, odd: str
) -> None:
    site.sql(f"CREATE TABLE k (id int PRIMARY KEY, key text, v {kind})")
    plain = "'active'" if role == "status" else "NULL"
    site.sql(f"INSERT INTO k VALUES (1, 'key_0001', {plain}), (3, 'key_0003', {plain})")
    huge = value.format(n=MANY)
    site.sql(f"INSERT INTO k VALUES (2, 'key_0002', {huge})")
    site.source("k", table="public.k", id="id", key="key", **{role: "v"})
    with site.serve() as daemon:
        assert site.ask("key_0001", "key_0002", "key_0003").names == ["valid", verdict, "valid"]
        assert site.source_status("k")["odd_rows"][odd] == 1
        # The same through a re-read.
        site.sql(f"UPDATE k SET v = {huge} WHERE id = 3")
        assert site.ask("key_0001", "key_0002", "key_0003").names == ["valid", verdict, verdict]
        assert peak(daemon) < RESIDENT_MAX


def peak(daemon: Daemon) -> int:
    """The daemon's peak resident memory in bytes."""
    for line in open(f"/proc/{daemon.pid}/status", encoding="ascii"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_a_key_longer_than_any_that_can_be_presented_is_no_key(site: Installation) -> None:
    site.sql("CREATE TABLE k (id int PRIMARY KEY, key text)")
    site.sql(f"INSERT INTO k VALUES (1, repeat('x', 4096)), (2, repeat('x', 4097)), (3, repeat('x', {MANY}))")
    site.source("k", table="public.k", id="id", key="key")
    with site.serve() as daemon:
        assert site.ask("x" * 4096).names == ["valid"]
        assert site.source_status("k")["odd_rows"] == {"bad_digest": 2}
        assert peak(daemon) < RESIDENT_MAX


def test_other_tables_stay_fresh_while_huge_values_are_read(site: Installation) -> None:
    """Forty rows of 20 MB each change repeatedly; revocations in the other table do not wait."""
    site.sql("CREATE TABLE k (id int PRIMARY KEY, key text, v jsonb)")
    site.sql("CREATE TABLE n (id int PRIMARY KEY, key text, revoked timestamptz)")
    site.sql(f"INSERT INTO k SELECT i, 'k' || i, to_jsonb(repeat('x', {MANY})) FROM generate_series(1, 40) AS i")
    site.sql("INSERT INTO n SELECT i, 'neighbour_' || i FROM generate_series(1, 20) AS i")
    site.source("k", table="public.k", id="id", key="key", metadata="v")
    site.source("n", table="public.n", id="id", key="key", revoked_at="revoked")
    with site.serve() as daemon:
        for number in range(1, 21):
            site.sql("UPDATE k SET key = key || 'x'")
            site.sql("UPDATE n SET revoked = now() WHERE id = %s", number)
            until(
                lambda name=number: site.cli.verify([f"neighbour_{name}"]).names == ["revoked"],
                2,
                "the neighbour's revocation",
            )
        assert peak(daemon) < RESIDENT_MAX
