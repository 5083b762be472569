"""Faults on the callers' side, and of the process itself: killed, flooded, sent malformed data."""

from __future__ import annotations

import array
import contextlib
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import seeds, wire
from harness.programs import Daemon, sanitized
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation
from test_limits import as_uid, connect, descriptors, is_closed, resident_mib
from test_service import Activated

GOOD, REVOKED = b"sk_good", b"sk_revoked"
KILLS = int(os.environ.get("LATCHKEY_KILLS", "15"))
SOMEBODY = 4001


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new("external_credentials"))
    made.source("main", preset="external_credentials")
    seeds.insert_external(made.conn, GOOD.decode(), 42)
    seeds.insert_external(made.conn, REVOKED.decode(), 43, deleted=True)
    made.install()
    yield made
    made.close()


class RetryingCallers:
    """Callers that ask for a good and a revoked key, and repeat a request when a connection ends."""

    def __init__(self, there: Installation, count: int) -> None:
        self._there = there
        self._ends = False
        self.answered = 0
        self.wrong: list[str] = []
        self.lost = 0  # requests without a reply, which were repeated
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> RetryingCallers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._ends:
            with contextlib.suppress(OSError), Raw(self._there.socket, 30) as raw:
                while not self._ends and self._ask(raw):
                    pass

    def _ask(self, raw: Raw) -> bool:
        raw.send(wire.verify([GOOD, REVOKED]))
        reply = raw.receive()
        if reply is None:
            self.lost += 1
            return False
        if reply.type == wire.ERROR:
            if reply.error != "stopping":
                self.wrong.append(reply.error)
            return False
        if reply.verdicts != ["valid", "deleted"]:
            self.wrong.append(str(reply.verdicts))
        self.answered += 1
        return True


def test_killed_again_and_again_it_never_answers_from_nothing(there: Installation) -> None:
    """Fault 30: kill -9 under load; the service manager holds the socket, and callers retry."""
    activated = Activated(there)
    choice = random.Random(30)
    with RetryingCallers(there, 4) as callers:
        for _ in range(KILLS):
            daemon = activated.start()
            before = callers.answered
            until(lambda: callers.answered > before + 20, 20, "callers are answered")  # noqa: B023
            time.sleep(choice.random() * 0.02)  # a random point of its work
            daemon.kill()
            daemon.wait()
        daemon = activated.start()
        before = callers.answered
        until(lambda: callers.answered > before + 20, 20, "callers are answered again")
    daemon.terminate()
    assert daemon.wait(scaled(20)) == 0
    assert callers.wrong == []
    left = {path.name for path in there.folder.iterdir()}
    assert left == {".lock", "activated.log", "activated.toml", "latchkey.sock", "password",
                    "peppers"}, "nothing that was not there before"  # fmt: skip
    activated.socket.close()


def test_restarts_under_load_lose_no_reply(there: Installation) -> None:
    """Fault 32: requests that have arrived get an answer; new ones wait in the socket."""
    activated = Activated(there)
    daemon = activated.start()
    with RetryingCallers(there, 4) as callers:
        for _ in range(5):
            before = callers.answered
            until(lambda: callers.answered > before + 50, 20, "callers are answered")  # noqa: B023
            daemon.terminate()
            assert daemon.wait(scaled(20)) == 0
            daemon = activated.start()
        before = callers.answered
        until(lambda: callers.answered > before + 50, 20, "callers are answered")
    daemon.terminate()
    assert daemon.wait(scaled(20)) == 0
    assert callers.wrong == []
    # If the daemon closes a connection while the next request is on its way, that request gets no
    # reply, and the caller repeats it. This happens once for each caller and restart at most.
    assert callers.lost <= 4 * 6
    activated.socket.close()


def test_stopped_while_it_loads_it_ends_at_once(cluster: Any, databases: Databases) -> None:
    """Fault 33: SIGTERM before it is ready."""
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("main", preset="external_credentials")
    seeds.fill_external(there.conn, 100_000)
    there.install()
    for pause in (0.0, 0.02, 0.1):
        with Daemon(there.config, wait=False) as daemon:
            time.sleep(pause)  # a different stage of the start
            started = time.monotonic()
            # Before it has installed its handlers, the signal ends it as it ends any program.
            assert daemon.stop() in (0, -15)
            assert time.monotonic() - started < scaled(5)
    there.close()


# (Not ECONNABORTED: accept() on a Unix socket does not return it, and a waiting client stays.)
@pytest.mark.parametrize("error", ["ENFILE", "ENOMEM"])
def test_an_accept_that_fails_is_tried_again(there: Installation, error: str) -> None:
    """Fault 37: for a while, the kernel refuses every accept.

    Each failure is followed by a second accept with the reserve descriptor, which fails here, too.
    """
    with Daemon(there.config) as daemon:
        trace = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-p", str(daemon.pid),
             "-e", f"inject=accept4:error={error}:when=1..4"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: tracer_of(daemon.pid) == trace.pid, 10, "it is traced")
            with Raw(there.socket, 20) as raw:
                assert raw.ask(wire.verify([GOOD])).verdicts == ["valid"]
            assert there.cli.status()["connections"]["accept_errors"] >= 1
        finally:
            trace.terminate()
            trace.wait()


def tracer_of(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("TracerPid:"))


def test_a_full_backlog_hangs_no_client(there: Installation) -> None:
    """Fault 38: the daemon is stopped; new clients have a deadline."""
    with Daemon(there.config) as daemon, contextlib.ExitStack() as stack:
        daemon.freeze()
        for _ in range(5000):
            waiting = socket.socket(socket.AF_UNIX)
            stack.callback(waiting.close)
            waiting.setblocking(False)
            try:
                waiting.connect(str(there.socket))
            except BlockingIOError:
                break
        else:
            pytest.fail("the backlog takes 5000 connections")
        done = there.cli.run(
            "verify", "--socket", str(there.socket), stdin=GOOD + b"\n", timeout_s=60
        )
        assert done.exit_code == 3, done
        stack.close()
        daemon.thaw()
        until(lambda: there.cli.verify([GOOD.decode()]).names == ["valid"], 20, "it goes on")


def test_many_half_requests_cost_their_own_connections(there: Installation) -> None:
    """Fault 40: slow loris. Each connection has its own stall timeout, and memory does not grow."""
    there.more = '[limits]\nstall_timeout = "500ms"\n'
    with Daemon(there.config) as daemon, contextlib.ExitStack() as stack:
        before = resident_mib(daemon.pid)
        request = wire.verify([GOOD] * 200)
        held = [stack.enter_context(Raw(there.socket)) for _ in range(500)]
        for raw in held:
            raw.send(request[: len(request) // 2])
        with Raw(there.socket) as other:
            for _ in range(50):
                assert other.ask(wire.verify([GOOD])).verdicts == ["valid"]
        until(lambda: all(map(is_closed, held)), 20, "all are closed")
        assert there.cli.status()["connections"]["closed_stalled"] == 500
        if not sanitized():
            assert resident_mib(daemon.pid) < before + 500 * 0.07 + 10


def test_descriptors_that_are_sent_are_not_kept(there: Installation) -> None:
    """Fault 45: SCM_RIGHTS."""
    with Daemon(there.config) as daemon, Raw(there.socket) as raw:
        assert raw.ask(wire.verify([GOOD])).verdicts == ["valid"]
        before = descriptors(daemon.pid)
        rights = array.array("i", [raw.socket.fileno()] * 200)
        for _ in range(5):
            request = wire.verify([GOOD])
            raw.socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            reply = raw.receive()
            assert reply is not None and reply.verdicts == ["valid"]
        assert descriptors(daemon.pid) == before


def test_out_of_band_bytes_disturb_nobody_else(there: Installation) -> None:
    """Fault 45: MSG_OOB, where the kernel supports it for Unix sockets."""
    with Daemon(there.config), Raw(there.socket) as raw, Raw(there.socket) as other:
        request = wire.verify([GOOD])
        raw.send(request[:20])
        try:
            raw.socket.send(b"!", socket.MSG_OOB)
        except OSError as error:
            pytest.skip(f"this kernel does not send them: {error}")
        raw.send(request[20:])
        raw.end()
        # The request may be answered, refused or closed, but must not get another answer.
        for reply in raw.all():
            assert reply.type == wire.ERROR or reply.verdicts == ["valid"]
        assert other.ask(wire.verify([GOOD])).verdicts == ["valid"]


def test_a_caller_is_who_connected(there: Installation) -> None:
    """Fault 46: a connection that is passed on keeps the rights of its creator (unix(7))."""
    there.listen["mode"] = "0666"
    there.more = f"[[allow]]\nuid = {SOMEBODY}\n"
    with Daemon(there.config):
        passed = connect(there, SOMEBODY)
        # root asks from here on, and gets the answers that the creator may see.
        assert passed.ask(wire.verify([REVOKED])).verdicts == ["unknown"]
        passed.socket.close()
        with Raw(there.socket) as ours:
            assert ours.ask(wire.verify([REVOKED])).verdicts == ["deleted"]


def test_root_of_a_user_namespace_is_nobody_here(there: Installation) -> None:
    """Fault 46: root of a user namespace has the rights of its uid outside."""
    there.listen["mode"] = "0666"
    with Daemon(there.config):
        ask = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.settimeout(10);"
            f"s.connect({str(there.socket)!r}); sys.stdout.write(s.recv(4096)[16:18].hex())"
        )
        with as_uid(SOMEBODY):
            done = subprocess.run(
                ["unshare", "--user", "--map-root-user", "/usr/bin/python3", "-c", ask],
                capture_output=True, text=True, check=False, timeout=scaled(30),
                user=SOMEBODY,
            )  # fmt: skip
        if "unshare failed" in done.stderr:
            pytest.skip(f"no user namespaces here: {done.stderr}")
        assert done.stdout == "0d00", (done, "13: not_allowed")


def test_want_of_memory_ends_it_and_never_halves_a_load(
    cluster: Any, databases: Databases
) -> None:
    """Fault 47: the table does not fit into memory. The daemon exits with an error and never becomes ready."""
    if sanitized():
        pytest.skip("sanitizers need more address space than that")
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("main", preset="external_credentials")
    seeds.fill_external(there.conn, 300_000)
    there.install()
    there.freshness["start_timeout"] = "1s"
    with Daemon(there.config, wait=False, limits=["--data=40000000"]) as daemon:
        assert daemon.wait_exit() == 1
        assert "READY=1" not in daemon.notifications
        assert "not enough memory" in daemon.log()
    there.close()
