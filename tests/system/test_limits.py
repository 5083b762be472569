"""Limits of each caller: connections, memory, descriptors, time of the workers."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import child, seeds, wire
from harness.programs import Daemon, sanitized
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation

GREEDY, MODEST, STRANGER = 4001, 4002, 4003
KEY = b"sk_good"


class Limited(Installation):
    """An installation with one key, two allowed callers, and limits set by the test."""

    def __init__(self, cluster: Any, databases: Databases, limits: str) -> None:
        super().__init__(cluster, databases.new("external_credentials"))
        self.source("main", preset="external_credentials")
        self.listen["mode"] = "0666"
        self.more = f"[limits]\n{limits}\n[[allow]]\nuid = {GREEDY}\n[[allow]]\nuid = {MODEST}\n"
        seeds.insert_external(self.conn, KEY.decode(), 42)

    def connections(self) -> dict[str, int]:
        """The counters of connections in `status`."""
        return dict(self.cli.status()["connections"])

    def caller(self, uid: int) -> dict[str, int]:
        """The counters of one uid in `status`."""
        return dict(next(c for c in self.cli.status()["callers"] if c["uid"] == uid))


@contextlib.contextmanager
def limited(cluster: Any, databases: Databases, limits: str) -> Iterator[tuple[Limited, Daemon]]:
    there = Limited(cluster, databases, limits)
    with there.serve() as daemon:
        yield there, daemon
    there.close()


@contextlib.contextmanager
def as_uid(uid: int) -> Iterator[None]:
    """Connections opened in this block by this thread have this uid."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def connect(there: Installation, uid: int) -> Raw:
    with as_uid(uid):
        return Raw(there.socket)


def refusal(raw: Raw) -> str:
    """The error on a refused connection, which is then closed."""
    reply = raw.receive()
    assert reply is not None and reply.request_id == 0
    assert raw.receive() is None
    return reply.error


def test_each_uid_has_a_limit_of_its_own(cluster: Any, databases: Databases) -> None:
    limits = "connections = 10\nconnections_per_uid = 3"
    with limited(cluster, databases, limits) as (there, _), contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(there, GREEDY)) for _ in range(3)]
        for raw in held:
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        for _ in range(4):
            with connect(there, GREEDY) as raw:
                assert refusal(raw) == "overloaded"
        with connect(there, MODEST) as raw:
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        assert there.connections()["refused_uid_limit"] == 4
        assert (there.caller(GREEDY)["connections"], there.caller(GREEDY)["refused"]) == (3, 4)
        held[0].socket.close()
        until(lambda: there.caller(GREEDY)["connections"] == 2, 10, "one has gone")
        with connect(there, GREEDY) as raw:
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]


def test_idle_connections_go_sooner_when_few_are_left(cluster: Any, databases: Databases) -> None:
    limits = 'connections = 12\nconnections_per_uid = 11\nidle_timeout = "100s"'
    with limited(cluster, databases, limits) as (there, _), contextlib.ExitStack() as stack:
        few = [stack.enter_context(connect(there, MODEST)) for _ in range(3)]
        many = [stack.enter_context(connect(there, GREEDY)) for _ in range(8)]
        # 11 of 12 are taken: the idle timeout is a hundredth, a second at least.
        until(lambda: there.connections()["closed_idle"] >= 5, 20, "idle ones are closed")
        assert sum(raw.receive() is None for raw in many + few if is_closed(raw)) >= 5
        with connect(there, MODEST) as raw:
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]


def is_closed(raw: Raw) -> bool:
    """Whether the daemon has closed the connection; does not wait."""
    try:
        return raw.socket.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_replies_that_nobody_takes_are_bounded(cluster: Any, databases: Databases) -> None:
    limits = 'reply_memory_mib = 4\nstall_timeout = "60s"'
    with limited(cluster, databases, limits) as (there, daemon), contextlib.ExitStack() as stack:
        before = resident_mib(daemon.pid)
        request = wire.verify([KEY] * 200) * 40
        for _ in range(400):
            raw = stack.enter_context(connect(there, GREEDY))
            raw.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                raw.socket.send(request)
        until(lambda: there.connections()["closed_hoarding"] > 20, 20, "many are closed")
        assert 0 < there.caller(GREEDY)["waiting_bytes"] <= 2 << 20
        with connect(there, MODEST) as raw:
            for _ in range(100):
                assert raw.ask(wire.verify([KEY] * 200)).verdicts == ["valid"] * 200
        if not sanitized():
            assert resident_mib(daemon.pid) < before + 40


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_without_descriptors_callers_are_told_so(cluster: Any, databases: Databases) -> None:
    """Fault 36: no descriptor is left. Open connections are answered, new ones refused, and none hangs."""
    if sanitized():
        pytest.skip("UBSan's check of vptr opens a pipe, and calls it a fault if it cannot")
    with limited(cluster, databases, "") as (there, daemon), contextlib.ExitStack() as stack:
        old = stack.enter_context(connect(there, MODEST))
        assert old.ask(wire.verify([KEY])).verdicts == ["valid"]
        status = stack.enter_context(Raw(there.socket))
        usual = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(
            daemon.pid, resource.RLIMIT_NOFILE, (descriptors(daemon.pid) + 3, usual[1])
        )
        held = [stack.enter_context(connect(there, GREEDY)) for _ in range(40)]
        answered = refused = 0
        spent = child.cpu_seconds(daemon.pid)
        for raw in held:
            reply = raw.ask(wire.verify([KEY]))
            if reply.type == wire.ERROR:
                assert reply.error == "overloaded"
                refused += 1
            else:
                answered += 1
        assert answered <= 3 and refused >= 37
        assert old.ask(wire.verify([KEY])).answers == [("valid", True)], "and fresh"
        assert child.cpu_seconds(daemon.pid) - spent < scaled(1.5), "it does not spin"
        reply = status.ask(wire.frame(wire.STATUS))
        assert b'"refused_no_descriptors":0' not in reply.body
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, usual)
        with connect(there, GREEDY) as raw:
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]


def test_connections_are_as_many_as_there_are_descriptors_for(
    cluster: Any, databases: Databases
) -> None:
    there = Limited(cluster, databases, "connections = 4096")
    there.install()
    with Daemon(there.config, limits=["--nofile=300:300"]) as daemon:
        until(lambda: "may open 300 files" in daemon.log(), 10, "it says so")
        assert "`connections` is 172 instead of 4096" in daemon.log()
        assert "LimitNOFILE=4224" in daemon.log()
    there.close()


def test_a_flood_of_refused_callers_holds_few_descriptors(
    cluster: Any, databases: Databases
) -> None:
    """Each one receives the reason while it listens; refused connections do not accumulate."""
    with limited(cluster, databases, "") as (there, daemon), contextlib.ExitStack() as stack:
        before, most = descriptors(daemon.pid), 0
        held = []
        for number in range(600):
            held.append(stack.enter_context(connect(there, STRANGER)))
            if number % 20 == 0:
                most = max(most, descriptors(daemon.pid))
        assert {refusal(raw) for raw in held} == {"not_allowed"}
        assert most <= before + 64 + 40
        assert there.connections()["refused_not_allowed"] == 600


class Flood:
    """Connections of one uid that send batches without pause and discard the replies."""

    def __init__(self, there: Installation, uid: int, connections: int) -> None:
        self._raws = [connect(there, uid) for _ in range(connections)]
        self._ends = False
        self._threads = [threading.Thread(target=self._run, args=(raw,)) for raw in self._raws]
        self.replies = 0

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        for thread in self._threads:
            thread.join()
        for raw in self._raws:
            raw.socket.close()

    def _run(self, raw: Raw) -> None:
        requests = wire.verify([b"nobody"] * 256) * 4
        while not self._ends:
            raw.send(requests)
            for _ in range(4):
                raw.receive()
            self.replies += 4


def test_who_floods_makes_himself_wait(cluster: Any, databases: Databases) -> None:
    """Workers take turns by uid: another uid's request waits for one turn, not for the whole flood."""
    with limited(cluster, databases, "") as (there, _):
        with Flood(there, GREEDY, 8) as flood, connect(there, MODEST) as raw:
            until(lambda: flood.replies > 100, 20, "the flood has begun")
            for _ in range(300):
                assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        until(lambda: there.caller(GREEDY)["unknown_keys"] >= 256 * 100, 10, "they are counted")
        assert there.connections()["closed_stalled"] == 0


def test_who_asks_for_unknown_keys_is_named_in_the_log(cluster: Any, databases: Databases) -> None:
    limits = "unknown_keys_logged = 50"
    with limited(cluster, databases, limits) as (there, daemon):
        with connect(there, GREEDY) as raw, connect(there, MODEST) as other:

            def named() -> bool:
                raw.ask(wire.verify([b"a guess"] * 100))
                other.ask(wire.verify([KEY] * 100))
                return "unknown keys within" in daemon.log()

            until(named, 40, "it is named")
        assert f"uid {GREEDY} asked for" in daemon.log()
        assert f"uid {MODEST} asked for" not in daemon.log()
        assert "a guess" not in daemon.log()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("connections = 10\nconnections_per_uid = 11", "would limit nobody"),
        ("reply_memory_mib = 1", "must be 4 to"),
        ("connection_per_uid = 1", "Did you mean `connections_per_uid`?"),
    ],
)
def test_limits_that_make_no_sense_are_refused(
    cluster: Any, databases: Databases, setting: str, said: str
) -> None:
    there = Limited(cluster, databases, setting)
    with Daemon(there.config, wait=False) as daemon:
        assert daemon.wait_exit() == 2
        assert said in daemon.log()
    there.close()

