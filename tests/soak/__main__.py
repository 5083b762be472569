"""The soak test; scripts/soak describes it."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness import seeds, wire
from harness.postgres import PrivateCluster
from harness.programs import Daemon, program
from harness.scrape import scrape
from harness.wait import NotInTime, until
from harness.wire import Raw
from installation import PASSWORD, Installation

KEYS = 5000
STEADY = 200  # keys that never change: every answer for them is known
RUBBISH = (b"\x00" * 64, b"\x01\xff" + b"\x00" * 14, b"\x01\x01\x00\x00\x11\x00\x00\x00" + b"\x00" * 9)
# Log lines caused by the restarts of PostgreSQL and the reloads.
EXPECTED = re.compile(
    r"info: |warning: (?:source|database) \"|error: database \"main\": |error: source \"main\": "
    r"|warning: uid 0 asked for \d+ unknown keys"
)
MEMORY_SLACK_MIB = 4.0


@dataclass(frozen=True)
class Sample:
    """The process' resources at one moment."""

    at_s: float
    resident_mib: float
    descriptors: int


def sample(pid: int, started: float) -> Sample:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Sample(
        time.monotonic() - started,
        pages * resource.getpagesize() / (1 << 20),
        len(os.listdir(f"/proc/{pid}/fd")),
    )


class Soak:
    """The load on the daemon."""

    def __init__(self, cluster: PrivateCluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.there = Installation(cluster, "soak")
        seeds.create_schema(self.there.conn, "external_credentials")
        self.there.source("main", preset="external_credentials")
        self.metrics = self.there.folder / "metrics.sock"
        self.there.more = f'[metrics]\nlisten = "{self.metrics}"\n'
        self.there.freshness |= {"heartbeat": "250ms", "bound": "2s", "audit": "5s"}
        for number in range(KEYS):
            seeds.insert_external(self.there.conn, f"sk_soak_{number:05}_0123456789", number)
        self.ends = threading.Event()
        self.failures: list[str] = []
        self.counts: dict[str, int] = {}
        self.away = threading.Lock()  # held while PostgreSQL is restarted

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    def thread(self, step: Callable[[random.Random], None]) -> threading.Thread:
        """Runs `step` repeatedly; an exception ends the soak."""
        own = random.Random(self.random.random())

        def run() -> None:
            try:
                while not self.ends.is_set():
                    step(own)
            except Exception as error:  # noqa: BLE001
                self.failures.append(f"{step.__name__}: {error!r}")
                self.ends.set()

        started = threading.Thread(target=run, name=step.__name__)
        started.start()
        return started

    # ---- the load

    def callers(self, own: random.Random) -> None:
        """A connection's life: some requests, then one of several kinds of end."""
        with Raw(self.there.socket) as raw:
            for _ in range(own.randrange(1, 20)):
                numbers = [own.randrange(STEADY) for _ in range(own.randrange(1, 50))]
                keys = [f"sk_soak_{n:05}_0123456789".encode() for n in numbers]
                reply = raw.ask(wire.verify([*keys, b"sk_nobodys_0123456789"]))
                if reply.verdicts != ["valid"] * len(keys) + ["unknown"]:
                    raise AssertionError(f"wrong: {reply.verdicts} for {numbers}")
                self.count("keys asked for", len(keys) + 1)
            self.count("connections")
            end = own.random()
            if end < 0.1:
                raw.send(own.choice(RUBBISH))
                raw.all()
                self.count("rubbish")
            elif end < 0.2:
                raw.end()
                raw.all()
            elif end < 0.3:
                raw.send(wire.verify(keys)[:10])  # half a request, then the end
        time.sleep(own.random() * 0.01)

    def idlers(self, own: random.Random) -> None:
        """Many connections at once that stay idle for a while."""
        with contextlib.ExitStack() as stack:
            for _ in range(own.randrange(10, 100)):
                stack.enter_context(Raw(self.there.socket))
            time.sleep(own.random())

    def changes(self, own: random.Random) -> None:
        """Revokes, restores, deletes and issues keys; their number stays the same."""
        with self.away:
            number = own.randrange(STEADY, KEYS)
            kind = own.random()
            if kind < 0.4:
                self.there.sql(
                    "UPDATE external_credentials SET deleted_at ="
                    " CASE WHEN deleted_at IS NULL THEN now() AT TIME ZONE 'UTC' END"
                    " WHERE copper_id = %s",
                    number,
                )
            elif kind < 0.5:
                self.there.sql(
                    "UPDATE external_credentials SET updated_at = now() AT TIME ZONE 'UTC'"
                    " WHERE copper_id >= %s AND copper_id < %s",
                    number, number + 500,
                )  # fmt: skip
            else:
                self.there.sql("DELETE FROM external_credentials WHERE copper_id = %s", number)
                key = f"sk_soak_{number:05}_0123456789"
                seeds.insert_external(self.there.conn, key, number)
            self.count("changes")
        time.sleep(own.random() * 0.02)

    def scrapes(self, _: random.Random) -> None:
        scrape(self.metrics)
        self.there.cli.status()
        self.ends.wait(1)

    def restart_postgres(self) -> None:
        with self.away:
            self.there.conn.close()
            self.cluster.restart(self.random.choice(["fast", "immediate"]))
            self.there.conn = self.cluster.connect("soak")
        self.count("restarts of PostgreSQL")


def flat(samples: list[Sample], of: Callable[[Sample], float], slack: float, what: str) -> str:
    """The error, if any: the last third must not be above the one before."""
    third = len(samples) // 3
    before = max(of(s) for s in samples[third : 2 * third])
    after = max(of(s) for s in samples[2 * third :])
    return f"{what} grew from {before:.1f} to {after:.1f}" if after > before + slack else ""


def unexpected(log: str) -> list[str]:
    """Log lines that no injected fault explains."""
    return [line for line in log.splitlines() if line and not EXPECTED.search(line)]


def run(seconds: int, seed: int) -> int:
    print(f"soak: {seconds} s, seed {seed}", flush=True)
    with PrivateCluster() as cluster:
        with contextlib.closing(cluster.connect()) as conn, conn.cursor() as cursor:
            cursor.execute("CREATE ROLE latchkey LOGIN PASSWORD %s", (PASSWORD,))
        cluster.createdb("soak")
        soak = Soak(cluster, seed)
        soak.there.install()
        samples: list[Sample] = []
        with Daemon(soak.there.config) as daemon:
            load = subprocess.Popen(
                [str(program("latchkey")), "--socket", str(soak.there.socket), "top", "--plain"],
                stdout=subprocess.DEVNULL,
            )
            quiet = sample(daemon.pid, time.monotonic()).descriptors
            threads = [soak.thread(soak.callers) for _ in range(4)]
            threads += [soak.thread(s) for s in (soak.idlers, soak.changes, soak.scrapes)]
            started = time.monotonic()
            # The database is restarted four times, with reloads in between.
            every = seconds / 8
            turns = 0
            try:
                while time.monotonic() - started < seconds and not soak.ends.is_set():
                    soak.ends.wait(0.25)
                    samples.append(sample(daemon.pid, started))
                    if time.monotonic() - started > (turns + 1) * every and turns < 7:
                        turns += 1
                        if turns % 2:
                            soak.restart_postgres()
                        else:
                            daemon.sighup()
            finally:
                soak.ends.set()
                for thread in threads:
                    thread.join()
                load.terminate()
                load.wait()
            if not soak.failures:
                until(
                    lambda: soak.there.cli.status()["sources"][0]["state"] == "fresh", 20, "in step"
                )
                soak.there.cli.sync("30s")
                # The only connection left is that of `top`, which closes now.
                with contextlib.suppress(NotInTime):
                    until(lambda: sample(daemon.pid, started).descriptors <= quiet, 10, "all closed")
            left = sample(daemon.pid, started).descriptors
            status = soak.there.cli.status()
            log = daemon.log()
        soak.there.close()
    wrong = list(soak.failures)
    wrong += [flat(samples, lambda s: s.resident_mib, MEMORY_SLACK_MIB, "resident memory, MiB,")]
    if left > quiet:
        wrong.append(f"{left} descriptors are open when all is over, {quiet} before it began")
    if status["protocol_errors"] != soak.counts.get("rubbish", 0):
        wrong.append(
            f"{status['protocol_errors']} protocol errors, {soak.counts.get('rubbish')} sent"
        )
    if status["sources"][0]["audit_mismatches"] != 0:
        wrong.append("the audit found what nothing had told of")
    if status["sources"][0]["keys"] != KEYS:
        wrong.append(f"{status['sources'][0]['keys']} keys instead of {KEYS}")
    wrong += [f"log: {line}" for line in unexpected(log)]
    wrong = [line for line in wrong if line]
    print(
        "soak: " + ", ".join(f"{number} {what}" for what, number in sorted(soak.counts.items()))
        + f"; resident {samples[len(samples) // 3].resident_mib:.1f} MiB after a third,"
        f" {samples[-1].resident_mib:.1f} at the end; descriptors at most"
        f" {max(s.descriptors for s in samples)}, {quiet} before it began and {left} at the end;"
        f" {status['sources'][0]['audits']} audits, {status['sources'][0]['loads']} loads"
    )  # fmt: skip
    for line in wrong:
        print(f"soak: WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seconds", type=int, nargs="?", default=120)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    return run(options.seconds, options.seed)


if __name__ == "__main__":
    sys.exit(main())
