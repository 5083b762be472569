"""Stopped threads of the daemon. (A stopped process: see test_outages.py.)"""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
from faulty import BOUND_S, Faulty, Witness
from harness import wire
from harness.postgres import PrivateCluster
from harness.ptrace import StoppedThread, thread_id
from harness.wait import scaled
from harness.wire import Raw
from installation import Databases


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Faulty]:
    made = Faulty(cluster, databases.new("api_keys"))
    yield made
    made.close()


def test_a_loader_that_stands_still_makes_answers_stale(site: Faulty) -> None:
    """Fault 27: this needs no timer of the daemon; each answer compares the clock."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve() as daemon, Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        with StoppedThread(thread_id(daemon.pid, "load main")):
            witness.revoke(tokens[0])
            witness.wait_stale(5 * BOUND_S)
            witness.wait_past_bound()
            assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
            assert site.source_status("api_keys")["state"] == "stale"
        witness.wait_in_force()
        witness.revoke(tokens[1])


def test_what_a_stopped_worker_was_asked_is_answered_as_of_when_it_goes_on(site: Faulty) -> None:
    """Fault 28: the other workers continue. (In the middle of a batch: test_stalled_worker.py.)"""
    site.listen["workers"] = 2
    (token,) = site.several("sk_revoked", 1)
    request = wire.verify([token.encode()])
    with site.serve() as daemon, Raw(site.socket, 30) as one, Raw(site.socket, 30) as two:
        for raw in (one, two):  # each worker gets one connection
            assert raw.ask(request).answers == [("valid", True)]
        with StoppedThread(thread_id(daemon.pid, "worker 1")):
            for raw in (one, two):
                raw.send(wire.frame(wire.PING))
            (readable,), _, _ = select.select([one.socket, two.socket], [], [], scaled(10))
            going, stuck = (one, two) if readable is one.socket else (two, one)
            assert going.receive() is not None
            site.revoke(token)
            stuck.send(request * 100)
            sync = wire.frame(wire.SYNC, 1, (20_000).to_bytes(4, "little"))
            assert going.ask(sync).type == wire.SYNCED
            assert going.ask(request).verdicts == ["revoked"]
        reply = stuck.receive()
        assert reply is not None and reply.type == wire.PONG
        for _ in range(100):
            reply = stuck.receive()
            assert reply is not None and reply.verdicts == ["revoked"]
