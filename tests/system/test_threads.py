"""Workers, loader and reload run at once and keep the promise."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from harness import seeds, wire
from harness.postgres import PrivateCluster
from harness.wait import until
from harness.wire import Raw
from installation import PASSWORD, Databases, Installation

pytestmark = pytest.mark.threads

KEYS = 200
CLIENTS = 4
SECONDS = 3.0


class History:
    """The time since which each key is known to be refused; None: it may be valid."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused_since: dict[bytes, float] = {}

    def refused(self, key: bytes) -> None:
        with self._lock:
            self._refused_since[key] = time.monotonic()

    def restored(self, key: bytes) -> None:
        with self._lock:
            self._refused_since.pop(key, None)

    def known_refused(self, keys: list[bytes]) -> list[float | None]:
        """The time since which each key is known to be refused; None: it is not."""
        with self._lock:
            return [self._refused_since.get(key) for key in keys]


def test_no_worker_accepts_a_key_after_a_sync_has_said_that_it_is_revoked(
    cluster, databases: Databases
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    there = Installation(cluster, databases.new("api_keys"))
    pepper = seeds.Pepper.random()
    pepper.write_to(there.peppers)
    there.source("api_keys", preset="api_keys", peppers=str(there.peppers))
    there.listen["workers"] = 3
    seeds.fill_api_keys(there.conn, KEYS, pepper, "threads")
    keys = [seeds.key_text("threads", i).encode() for i in range(1, KEYS + 1)]
    history = History()
    stop = threading.Event()
    wrong: list[str] = []
    asked = [0] * CLIENTS

    def client(number: int) -> None:
        dice = random.Random(seed + number)
        try:
            while not stop.is_set():
                with Raw(there.socket, 30) as raw:
                    for _ in range(50):
                        batch = dice.choices(keys, k=dice.choice([1, 2, 33, 100]))
                        must_refuse = history.known_refused(batch)
                        verdicts = raw.ask(wire.verify(batch)).verdicts
                        # If the key was restored meanwhile (and perhaps revoked again), the test
                        # cannot conclude anything.
                        still = history.known_refused(batch)
                        for key, before, after, verdict in zip(batch, must_refuse, still, verdicts):
                            if before and before == after and verdict == "valid":
                                wrong.append(f"{key!r} was valid after a sync")
                        asked[number] += len(batch)
        except Exception as error:  # an exception in a thread fails the test
            wrong.append(f"client {number}: {error!r}")

    def reloads() -> None:
        """Reloads and status requests, which touch data that the workers read."""
        try:
            while not stop.wait(0.05):
                daemon.sighup()
                there.cli.status()
        except Exception as error:
            wrong.append(f"reload: {error!r}")

    with there.serve() as daemon:
        threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
        threads.append(threading.Thread(target=reloads))
        for thread in threads:
            thread.start()
        try:
            dice = random.Random(seed)
            sync = wire.frame(wire.SYNC, 1, (30_000).to_bytes(4, "little"))
            until_s = time.monotonic() + SECONDS
            with Raw(there.socket, 60) as raw:
                while time.monotonic() < until_s and not wrong:
                    chosen = dice.sample(range(KEYS), 20)
                    names = [f"Row {i + 1}" for i in chosen]
                    there.sql("UPDATE api_keys SET status = 'revoked' WHERE name = ANY (%s)", names)
                    assert raw.ask(sync).type == wire.SYNCED
                    for i in chosen:
                        history.refused(keys[i])
                    again = chosen[:10]
                    for i in again:
                        history.restored(keys[i])
                    there.sql(
                        "UPDATE api_keys SET status = 'active' WHERE name = ANY (%s)",
                        [f"Row {i + 1}" for i in again],
                    )
                    if dice.random() < 0.2:
                        there.reload("public.api_keys")
                    if dice.random() < 0.2:
                        for key in keys:
                            history.restored(key)
                        there.sql("UPDATE api_keys SET status = 'active'")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert wrong == []
        assert min(asked) > 0
        until(
            lambda: there.cli.status()["connections"]["open"] == 1, 10, "clients' connections end"
        )
    there.close()


def test_what_has_arrived_is_answered_before_the_end(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    there.listen["workers"] = 2
    seeds.insert_external(there.conn, "sk_last", 1)
    with there.serve() as daemon:
        connections = [Raw(there.socket) for _ in range(20)]
        for raw in connections:
            assert raw.ask(wire.frame(wire.PING)).type == wire.PONG
        daemon.freeze()  # all requests are in flight when the daemon is told to stop
        for raw in connections:
            raw.send(b"".join(wire.verify([b"sk_last"], i) for i in range(1, 101)))
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.thaw()
        for raw in connections:
            replies = raw.all()
            assert [reply.request_id for reply in replies] == list(range(1, 101))
            assert all(reply.verdicts == ["valid"] for reply in replies)
        assert daemon.wait_exit() == 0
        assert not there.socket.exists()
    there.close()


def test_a_caller_that_never_reads_does_not_keep_the_daemon_from_ending(
    cluster, databases: Databases
) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    there.more = '[limits]\ndrain_timeout = "500ms"\n'
    with there.serve() as daemon:
        with Raw(there.socket) as raw:
            raw.socket.settimeout(0.2)
            try:
                while True:
                    raw.socket.send(wire.verify([b"x"] * 256) * 8)
            except TimeoutError:
                pass
            assert daemon.stop() == 0
    there.close()


def test_a_sync_that_cannot_end_does_not_outlive_the_daemon() -> None:
    with PrivateCluster() as hung:
        with hung.connect() as conn, conn.cursor() as cursor:
            cursor.execute(f"CREATE ROLE latchkey LOGIN PASSWORD '{PASSWORD}'")
        there = Installation(hung, "postgres")
        seeds.create_schema(there.conn, "external_credentials")
        there.source("plain", preset="external_credentials")
        there.more = '[limits]\ndrain_timeout = "300ms"\n'
        with there.serve() as daemon:
            hung.freeze()
            with Raw(there.socket) as raw:
                raw.send(wire.frame(wire.SYNC, 1, (60_000).to_bytes(4, "little")))
                until(
                    lambda: there.cli.status()["requests"] >= 2, 10, "the sync has been taken in"
                )
                assert daemon.stop() == 0
            hung.thaw()
        there.close()
