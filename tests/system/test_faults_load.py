"""A load is complete or invisible, even if it is slow, cut short or damaged."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty import Proxied, Witness
from harness import seeds
from harness.postgres import PrivateCluster
from harness.proxy import Direction, Facts
from harness.wait import NotInTime, until
from installation import Databases

ROWS = 1500  # some hundred kilobytes of protocol messages
STEADY = [seeds.key_text("seed", i) for i in range(1, ROWS + 1)]


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Proxied]:
    made = Proxied(cluster, databases.new("api_keys"))
    made.freshness["audit"] = "0s"  # the test alone decides when the loader reads the table
    seeds.fill_api_keys(made.conn, ROWS, made.pepper)
    yield made
    made.close()


def loads(facts: Facts) -> bool:
    return facts.loads


def load_bytes(site: Proxied) -> tuple[int, int]:
    """The offsets in the server's stream at which a load begins and ends, on a new connection.

    They differ little between connections. The first one also looks up the tables.
    """
    site.proxy.cut()
    site.cli.sync("30s")
    facts = [facts for facts in site.proxy.connections if facts.copy_ends][-1]
    assert facts.copy_ends - facts.copy_begins > 50 * ROWS
    return facts.copy_begins, facts.copy_ends


def loaded_bytes(site: Proxied) -> int:
    """The number of bytes so far from the server on connections that load."""
    seen = [*site.proxy.ended, *site.proxy.connections]
    return sum(facts.to_client for facts in seen if facts.loads)


@pytest.mark.parametrize("why", ["after a reconnect", "while in step"])
def test_a_slow_load_brings_no_revoked_key_back(site: Proxied, why: str) -> None:
    """Fault 11: a key revoked during a load is revoked once the load is complete."""
    first = site.several("sk_first", 3)
    # A COPY sends the rows in their physical order.
    site.sql("UPDATE public.api_keys SET name = name WHERE name LIKE 'Row %%'")
    site.sql("VACUUM FULL public.api_keys")
    last = site.several("sk_last", 3)
    with site.serve(), Witness(site, [*first, *last], STEADY[:200]) as witness:
        site.wait_fresh(first[0])
        begin, end = load_bytes(site)
        loads_before, bytes_before = site.source_status("api_keys")["loads"], loaded_bytes(site)
        site.proxy.throttle(end - begin, where=loads)  # about one second for a load
        if why == "after a reconnect":
            site.proxy.cut()
        else:
            site.reload("public.api_keys")
        enough = bytes_before + (end - begin) // 3
        until(lambda: loaded_bytes(site) > enough, 10, "a third of it has come")
        site.proxy.blackhole(Direction.TO_CLIENT, where=loads)
        for pair in zip(first, last, strict=True):
            witness.revoke(*pair)
        witness.wait_past_bound()
        assert site.source_status("api_keys")["loads"] == loads_before, "it is still under way"
        site.proxy.heal()
        witness.wait_in_force()
        assert site.source_status("api_keys")["loads"] > loads_before


GRID = 20


def test_a_load_cut_anywhere_leaves_what_was_known(site: Proxied) -> None:
    """Fault 12: the connection ends at one of many evenly spaced bytes of the load."""
    tokens = site.several("sk_revoked", GRID + 1)
    with site.serve(), Witness(site, tokens, STEADY) as witness:
        site.cli.sync("30s")
        begin, end = load_bytes(site)
        grid = [begin + (end - begin) * i // GRID for i in range(GRID)] + [end - 20]
        for offset, token in zip(grid, tokens, strict=True):
            before = site.source_status("api_keys")["loads"]
            cut = site.proxy.counters.cut
            site.proxy.cut_after(offset, where=loads)
            now = site.proxy.cut()
            until(lambda: site.proxy.counters.cut > cut + now, 10, "it is cut")  # noqa: B023
            witness.revoke(token)
            rounds = witness.rounds
            until(lambda: witness.rounds > rounds + 1, 10, "all keys are asked for")  # noqa: B023
            assert site.source_status("api_keys")["loads"] == before, f"cut at {offset} of {end}"
            site.proxy.heal()
            site.cli.sync("30s")
        assert site.source_status("api_keys")["rows"] == ROWS + len(tokens)


FLIPS = 10


def test_a_damaged_load_lets_nobody_in(site: Proxied) -> None:
    """Fault 13, on the wire: one byte of the load is flipped. (In the table: see test_api_keys_traps.py.)"""
    revoked = site.several("sk_revoked", 200)
    site.revoke(*revoked)
    with site.serve() as daemon, Witness(site, revoked) as witness:
        witness.revoked(*revoked)
        site.cli.sync("30s")
        begin, end = load_bytes(site)
        for number in range(FLIPS):
            before = site.database_status()["failures"], site.source_status("api_keys")["loads"]
            # The revoked rows come last; steps of an odd size reach all fields.
            site.proxy.flip(end - 7 - (end - begin) * number // (20 * FLIPS), where=loads)
            flipped = site.proxy.counters.flipped
            site.proxy.cut()
            until(lambda: site.proxy.counters.flipped > flipped, 10, "it is met")  # noqa: B023

            def over(before: tuple[int, int] = before) -> bool:
                failures, done = site.database_status(), site.source_status("api_keys")
                return failures["failures"] > before[0] + 1 or done["loads"] > before[1]

            try:
                until(over, 0.5, "the load is taken or refused")
            except NotInTime:
                pass  # the daemon waits for the bytes announced by a damaged length
            assert daemon.exit_code is None
            site.proxy.heal()
            site.proxy.cut()
            site.cli.sync("30s")
            assert set(site.cli.verify(STEADY[:50]).names) == {"valid"}, "healed"
    assert site.proxy.counters.flipped >= FLIPS
