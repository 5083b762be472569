"""A worker stopped in the middle of a batch holds back memory: the daemon must report it."""

from __future__ import annotations

import contextlib
import json
import re
import select
import threading
from typing import Any

from harness import seeds, wire
from harness.ptrace import StoppedThread, thread_id
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation

ATTEMPTS = 300


class Flood:
    """Keeps a worker busy with batches, so that a stop finds it inside one."""

    def __init__(self, there: Installation) -> None:
        self._raw = Raw(there.socket, 60)
        self._request = wire.verify([b"sk_%d" % i for i in range(256)]) * 8
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._drain)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._raw.socket.shutdown(2)
        for thread in self._threads:
            thread.join()
        self._raw.socket.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._raw.socket.sendall(self._request)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while self._raw.socket.recv(1 << 20):
                pass


def test_a_worker_that_is_stopped_in_a_batch_is_named_until_it_goes_on(
    cluster, databases: Databases
) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    there.listen["workers"] = 2
    seeds.insert_external(there.conn, "sk_1", 1)

    def revoke_and_restore() -> None:
        for time in ("now()", "NULL"):
            there.sql(f"UPDATE external_credentials SET deleted_at = {time}")

    with there.serve() as daemon, contextlib.ExitStack() as stack:
        worker = thread_id(daemon.pid, "worker 1")
        # The worker with fewer connections accepts the next one, so each has two. One of the first
        # two belongs to worker 0, and both workers are busy.
        asking = [stack.enter_context(Raw(there.socket, 60)) for _ in range(2)]
        for raw in asking:
            assert raw.ask(wire.frame(wire.PING)).type == wire.PONG
        with StoppedThread(worker):
            for raw in asking:
                raw.send(wire.frame(wire.PING))
            sockets = [raw.socket for raw in asking]
            (answering,), _, _ = select.select(sockets, [], [], scaled(10))
            free = asking[sockets.index(answering)]
            assert free.receive() is not None
        floods = [Flood(there) for _ in range(2)]
        stack.callback(lambda: [flood.stop() for flood in floods])

        def ask(request: bytes) -> Any:
            return free.ask(request)

        def status() -> dict[str, Any]:
            return json.loads(ask(wire.frame(wire.STATUS)).body)

        def outcome() -> dict[str, Any] | None:
            said = status()
            freed = said["sources"][0]["waiting_records"] == 0
            return said if freed or said["databases"][0]["stalled_readers"] else None

        sync = wire.frame(wire.SYNC, 1, (30_000).to_bytes(4, "little"))
        for _ in range(ATTEMPTS):
            with StoppedThread(worker):
                revoke_and_restore()
                assert ask(sync).type == wire.SYNCED
                said = until(outcome, 10, "records are freed, or the worker is named")
                if said["sources"][0]["waiting_records"] == 0:
                    continue  # the worker was stopped between two batches and holds nothing
                assert said["databases"][0]["stalled_readers"] == ["worker 1"]
                assert said["databases"][0]["stalled_s"] >= 1
                assert said["sources"][0]["memory_bytes"]["waiting"] > 0
                # The other worker continues with answers and revocations.
                there.sql("UPDATE external_credentials SET deleted_at = now()")
                assert ask(sync).type == wire.SYNCED
                assert ask(wire.verify([b"sk_1"])).verdicts == ["deleted"]
            break
        else:
            raise AssertionError(f"the worker was never met in a batch, in {ATTEMPTS} attempts")
        until(
            lambda: status()["sources"][0]["waiting_records"] == 0
            and status()["databases"][0]["stalled_readers"] == [],
            10,
            "everything is freed",
        )
        until(lambda: "all workers go on" in daemon.log(), 10, "the log says so")
        assert re.search(r"worker 1 stuck in one batch for \d", daemon.log())
    there.close()
