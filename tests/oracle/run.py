"""One run: set up everything, let it run for a given time, and judge it."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.proxy import ChaosProxy
from harness.wait import scaled
from installation import PASSWORD, Installation

from . import clients, shifts, tables, workers
from .changer import Changer
from .faults import Faults
from .history import NS_PER_S, RULES, Promise
from .judge import Judge, now_ns
from .shifter import Breaking, Shifter
from .workers import Worker

BOUND_S = 1.0
MAX_STALE_S = 20.0
CLIENTS = 2
_FRESHNESS = {
    "heartbeat": "100ms",
    "bound": "1s",
    "max_stale": "20s",
    "audit": "3s",
    "start_timeout": "30s",
}
# Long enough for each kind of fault once, on an idle machine.
FULL_RUN_S = 60.0


class Wrong(Exception):
    """An answer was wrong: the product breaks its promise. The text describes the answer."""


class Worthless(Exception):
    """The run proves nothing: too little happened, or a part did not recover."""


@dataclass
class Settings:
    """The parameters of a run."""

    seconds: float
    seed: int
    only: list[str] = field(default_factory=list)  # kinds of faults; none: all
    shifts: list[str] = field(default_factory=list)  # kinds of changes of tables; none: all
    rules: frozenset[str] = frozenset(RULES)
    story: bool = False  # print the story even after success


def run(settings: Settings) -> str:
    """Do a run; returns the text to print. Raises Wrong or Worthless."""
    with contextlib.ExitStack() as stack:
        scene = _Scene(settings, stack)
        try:
            scene.play()
        except AssertionError as error:
            scene.verdict()  # a wrong answer takes precedence
            raise Worthless(f"{error}\n{scene.story()}") from error
        finally:
            scene.end()
        scene.verdict()
        scene.was_worth_it()
        return scene.story() if settings.story else scene.summary()


class _Scene:
    def __init__(self, settings: Settings, stack: contextlib.ExitStack) -> None:
        self._settings = settings
        dice = random.Random(settings.seed)
        cluster = stack.enter_context(PrivateCluster())
        cluster.sql(f"CREATE ROLE latchkey LOGIN PASSWORD '{PASSWORD}'")
        cluster.createdb("oracle")
        proxy = stack.enter_context(ChaosProxy(cluster.socket_dir / f".s.PGSQL.{cluster.port}"))
        conninfo = f"host={proxy.folder} port={cluster.port} dbname=oracle user=latchkey"
        site = Installation(cluster, "oracle", conninfo=conninfo)
        stack.callback(site.close)
        site.freshness |= _FRESHNESS
        site.listen["workers"] = 2
        made = tables.create(site, f"oracle {settings.seed}")
        keys = [key for table in made for key in table.keys]
        shifted = shifts.create(site, f"oracle {settings.seed}", len(keys))
        keys += [key for table in shifted for key in table.keys]
        workers.prepare(lambda text: site.sql(text))
        site.install()
        for table in shifted:
            table.installed(site)
        bound_ns, max_stale_ns = int(BOUND_S * NS_PER_S), int(MAX_STALE_S * NS_PER_S)
        promise = Promise(bound_ns, max_stale_ns, settings.rules)
        self.judge = Judge(keys, promise)
        self._workers: list[Worker] = []
        self._notes: list[str] = []  # the actions of the shifters
        for table in made:
            halves = [table.keys] if len(table.keys) < 100 else [table.keys[::2], table.keys[1::2]]
            for owned in halves:
                number = len(self._workers) + 1
                seed = dice.getrandbits(64)
                self._workers.append(Changer(number, table, owned, self.judge, cluster, "oracle", seed))
        breaking = Breaking()
        self._shifters = [
            Shifter(
                len(self._workers) + 1 + i, table, self.judge, cluster, "oracle", dice.getrandbits(64), breaking,
                self._note, settings.shifts,
            )
            for i, table in enumerate(shifted)
        ]  # fmt: skip
        self._workers += self._shifters
        for worker in self._workers:
            worker.fill()
        self.daemon = stack.enter_context(Daemon(site.config))
        texts, sources = [key.text for key in keys], [key.source for key in keys]
        pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("spawn")
        for _ in range(CLIENTS):
            ours, theirs = context.Pipe(duplex=False)
            seed = dice.getrandbits(64)
            arguments = (site.socket, texts, sources, seed, int(BOUND_S * 1000), theirs)
            process = context.Process(target=clients.main, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            pipes.append(ours)
        self.judge.start(pipes)
        fault_dice = random.Random(dice.getrandbits(64))
        self.faults = Faults(
            cluster, proxy, self.daemon, site.cli, self.judge, BOUND_S, fault_dice, breaking, settings.only
        )
        self._began = time.monotonic()

    def play(self) -> None:
        """Run until the time is over and enough has happened, or a busy machine has had extra time."""
        for worker in self._workers:
            worker.start()
        self._began = time.monotonic()
        self.faults.calm(0.3, 1.0)
        while not self.judge.violations and not self.judge.trouble and not self._failed():
            passed = time.monotonic() - self._began
            late = passed >= scaled(3 * self._settings.seconds)
            if late or (passed >= self._settings.seconds and not self._missing()):
                return
            self.faults.one()
            self.faults.calm(0.2, 0.8)

    def end(self) -> None:
        """Stop the workers, then the clients, then the judge, so that every answer is judged."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join(90)
        self.judge.expect_end()
        for process in self._processes:
            process.terminate()
            process.join(scaled(30))
        self.judge.stop()

    def _failed(self) -> list[str]:
        failures = [worker.failure for worker in self._workers if worker.failure is not None]
        return [repr(failure) for failure in failures]

    # ---- the result

    def verdict(self) -> None:
        """Raises Wrong if an answer was wrong."""
        found = [self.judge.explain(violation) for violation in self.judge.violations]
        if found or self.judge.trouble:
            raise Wrong("\n\n".join([*found, *self.judge.trouble]) + f"\n{self.story()}")

    def story(self) -> str:
        """The injected faults, and the end of the daemon's log."""
        lines = [f"seed {self._settings.seed}", "faults, and changes of tables when they had committed:"]
        said = sorted(self.faults.log + self._notes, key=lambda line: float(line.split()[0]))
        lines += [f"  {line}" for line in said]
        return "\n".join([*lines, self.daemon.log_tail(), self.summary()])

    def was_worth_it(self) -> None:
        """Raises Worthless if a broken daemon could have passed."""
        missing = self._failed() or self._missing()
        if missing:
            raise Worthless("\n".join(missing) + f"\n{self.story()}")

    def _missing(self) -> list[str]:
        """The events still needed for this run to prove anything."""
        counts, faults = self.judge.counts, self.faults
        seconds = self._settings.seconds
        full = seconds >= FULL_RUN_S
        least = {
            "fresh valid": 50 * seconds,
            "fresh refusal": 50 * seconds,
            "stale": seconds if full else 0,  # not every fault lasts as long as the bound
            "revocations seen": 2 * seconds,
            "synced": 0.1 * seconds,
        }
        missing = [
            f"{name}: {counts[name]}, at least {number:.0f} expected"
            for name, number in least.items()
            if counts[name] < number
        ]
        if full:
            never = [kind for kind in faults.kinds if not faults.injected[kind]]
            missing += [f"never injected: {kind}" for kind in never]
        elif not faults.injected:
            missing.append("no fault was injected")
        if full:
            shifts = self._shifts()
            never = [kind for shifter in self._shifters for kind in shifter.kinds if not shifts[kind]]
            missing += [f"never changed: {kind}" for kind in never]
        missing += [
            f"not fresh again after each: {kind}"
            for kind in faults.injected
            if faults.recovered[kind] < faults.injected[kind]
        ]
        if counts["unjudged"] > counts["judged"] / 100:
            missing.append(f"{counts['unjudged']} answers could not be judged")
        return missing

    def _note(self, text: str) -> None:
        self._notes.append(f"{(now_ns() - self.judge.started) / NS_PER_S:.6f} s  {text}")

    def _shifts(self) -> Counter[str]:
        return sum((worker.counts.kinds for worker in self._workers), Counter())

    def summary(self) -> str:
        """One line of totals, and one of the kinds."""
        counts = self.judge.counts
        done = [worker.counts for worker in self._workers]
        parts = [
            f"{time.monotonic() - self._began:.0f} s",
            f"{sum(each.changes for each in done)} changes in"
            f" {sum(each.commits for each in done)} commits"
            f" ({sum(each.unknown for each in done)} of unknown outcome),"
            f" {sum(each.rollbacks for each in done)} rollbacks",
            f"{counts['judged']} answers judged: {counts['fresh valid']} fresh valid,"
            f" {counts['fresh refusal']} fresh refusals, {counts['stale']} stale,"
            f" {counts['unavailable']} unavailable",
            f"{counts['revocations seen']} revocations seen",
            f"{counts['synced']} syncs ({counts['sync timed out']} timed out)",
            f"{sum(self.faults.injected.values())} faults of {len(self.faults.injected)} kinds",
            f"fresh again after {sum(self.faults.recovered.values())}",
            f"{self._shifts().total()} changes of tables of {len(self._shifts())} kinds"
            f" ({sum(each.locked for each in done)} given up for a lock)",
            f"{sum(each.settings for each in done)} transactions with odd settings",
            f"{counts['unjudged']} unjudged",
            f"{counts['violations']} wrong answers"
            + "".join(f", {number} against {rule}" for rule, number in self.judge.broken.items()),
        ]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._shifts().items()))
        return "oracle: " + "; ".join(parts) + f"\nchanges of tables: {kinds}"
