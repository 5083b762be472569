"""Many uids or many connections gain nothing: quotas belong to the rule that admits, the daemon
counts work, and root always gets through."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import wire
from harness.programs import Daemon
from harness.wire import Raw
from installation import Databases, Installation
from test_limits import KEY, Limited, refusal

CROWD, GROUP = range(4100, 4160), 4100
GREEDY, MODEST = 4001, 4002


@contextlib.contextmanager
def served(cluster: Any, databases: Databases, limits: str) -> Iterator[tuple[Limited, Daemon]]:
    there = Limited(cluster, databases, limits)
    there.more += f"[[allow]]\ngid = {GROUP}\n"
    with there.serve() as daemon:
        yield there, daemon
    there.close()


def connect(there: Installation, uid: int, gid: int = 0) -> Raw:
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return Raw(there.socket)
    finally:
        os.seteuid(0)
        os.setegid(0)


def admitted(raws: list[Raw]) -> list[Raw]:
    """The connections that are answered; the others received `overloaded`."""
    kept = []
    for raw in raws:
        reply = raw.ask(wire.verify([KEY]))
        if reply.type == wire.VERIFIED:
            kept.append(raw)
        else:
            assert reply.error == "overloaded"
    return kept


def test_many_uids_of_one_rule_have_one_share(cluster: Any, databases: Databases) -> None:
    """A user with sixty subordinate uids gets the share of one uid, divided among them."""
    with (
        served(cluster, databases, "connections = 200\nconnections_per_uid = 16") as (there, _),
        contextlib.ExitStack() as stack,
    ):
        crowd = [stack.enter_context(connect(there, uid, GROUP)) for uid in CROWD for _ in range(8)]
        kept = admitted(crowd)
        assert len(kept) == 16
        of_first = [raw for raw in crowd[:8] if raw in kept]
        assert len(of_first) == 8, "the first one took half"
        modest = [stack.enter_context(connect(there, MODEST)) for _ in range(16)]
        assert len(admitted(modest)) == 16, "another rule has its own share"
        status = there.cli.status()
        assert status["connections"]["refused_uid_limit"] == len(crowd) - 16
        assert sum(c["connections"] for c in status["callers"] if c["uid"] in CROWD) == 16


def test_root_asks_when_everything_is_taken(cluster: Any, databases: Databases) -> None:
    with (
        served(cluster, databases, "connections = 32\nconnections_per_uid = 16") as (there, _),
        contextlib.ExitStack() as stack,
    ):
        raws = [stack.enter_context(connect(there, uid)) for uid in (GREEDY, MODEST) for _ in range(16)]
        assert len(admitted(raws)) == 32
        with connect(there, CROWD[0], GROUP) as late:
            assert refusal(late) == "overloaded"
        assert there.cli.status()["connections"]["open"] == 33
        assert there.cli.verify([KEY]).names == ["valid"]
        with connect(there, CROWD[0], GROUP) as late:
            assert refusal(late) == "overloaded", "root's reserve is nobody else's"


def test_strangers_do_not_keep_others_from_being_told_why(
    cluster: Any, databases: Databases
) -> None:
    """Callers without a rule have one share together and talk without end; callers with a rule are answered."""
    with (
        served(cluster, databases, "connections_per_uid = 4") as (there, _),
        contextlib.ExitStack() as stack,
    ):
        strangers = [stack.enter_context(connect(there, 5000 + n)) for n in range(100)]
        modest = [stack.enter_context(connect(there, MODEST)) for _ in range(4)]
        for raw in strangers:
            raw.send(b"\x01" * 20_000)
        assert len(admitted(modest)) == 4
        with connect(there, MODEST) as late:
            assert refusal(late) == "overloaded"
        assert there.cli.status()["connections"]["refused_not_allowed"] == 100


def test_a_status_is_made_ten_times_a_second(cluster: Any, databases: Databases) -> None:
    with served(cluster, databases, "") as (there, _), Raw(there.socket) as raw:
        began, told, asked = time.monotonic(), set(), 0
        while time.monotonic() - began < 1:
            raw.send(wire.frame(wire.STATUS) * 50)
            for _ in range(50):
                reply = raw.receive()
                assert reply is not None
                told.add(json.loads(reply.body)["uptime_s"])
                asked += 1
        assert len(told) <= (time.monotonic() - began) / 0.1 + 2, f"of {asked} that were asked for"
        assert len(told) >= 5, "and it is made again"


@pytest.mark.parametrize("connections", [1, 16])
def test_syncs_in_a_loop_cost_few_barriers(
    cluster: Any, databases: Databases, connections: int
) -> None:
    with served(cluster, databases, "") as (there, _), contextlib.ExitStack() as stack:
        raws = [stack.enter_context(connect(there, GREEDY)) for _ in range(connections)]
        before, began = there.database_status()["heartbeats"], time.monotonic()
        syncs = [0] * connections

        def loop(number: int) -> None:
            while time.monotonic() - began < 1:
                reply = raws[number].ask(wire.frame(wire.SYNC, body=struct.pack("<I", 30_000)))
                assert reply.type == wire.SYNCED
                syncs[number] += 1

        threads = [threading.Thread(target=loop, args=(number,)) for number in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        barriers = there.database_status()["heartbeats"] - before
        assert all(syncs) and barriers <= (time.monotonic() - began) / 0.01 + 5
