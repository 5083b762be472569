"""Compares answers with the history while both grow.

Workers announce each COMMIT, under the judge's lock, before they send it. So when the judge looks
at an answer, it knows every change that the answer can reflect. If one of these is still open, the
answer waits until its outcome is known.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import NamedTuple

from harness.wire import VERDICTS

from .history import (
    AGE_UNKNOWN,
    NEVER_YET,
    NS_PER_S,
    UNAVAILABLE,
    UNREADABLE,
    VALID,
    Answer,
    Change,
    Journal,
    Promise,
    Timeline,
    Version,
    wrong,
)
from .tables import Key

_ANSWER = struct.Struct("<BBHI")
_KEPT_NS = 120 * NS_PER_S  # of each key's history; longer than any answer can reach back
_FORGET_EVERY_NS = 10 * NS_PER_S
_WAITING_MAX = 100_000  # answers that wait for a commit's outcome
_VIOLATIONS_MAX = 3  # a report with more would not be read


class Batch(NamedTuple):
    """One request and its reply, as reported by a client."""

    sent: int
    received: int
    sent_real_us: int
    received_real_us: int
    max_age_ms: int | None
    synced: int
    keys: Sequence[int]
    body: bytes  # of the reply


class Notice(NamedTuple):
    """Another report of a client."""

    kind: str  # "synced", "sync timed out", "connected", or an error
    text: str = ""


HARMLESS = frozenset({"synced", "sync timed out", "connected"})


class Violation(NamedTuple):
    """One answer that is illegal under every possible history."""

    key: Key
    answer: Answer
    why: str


def now_ns() -> int:
    """The clock of the history."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Judge:
    """The judge (see the module). All methods may be called from any thread."""

    def __init__(self, keys: Sequence[Key], promise: Promise) -> None:
        self.started = now_ns()
        self.counts: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()  # violations of each rule
        self.violations: list[Violation] = []
        self.trouble: list[str] = []  # replies that no client should receive
        self._keys = keys
        self._promise = promise
        self._lock = threading.Lock()
        self._timelines = [Timeline() for _ in keys]
        self._journals = [Journal() for _ in keys]
        self._waiting: dict[int, list[Answer]] = {}
        self._waiting_count = 0
        self._settled: deque[tuple[int, list[Answer]]] = deque()
        self._freshest = dict.fromkeys((key.source for key in keys), 0)
        self._forget_at = self.started + _FORGET_EVERY_NS
        self._ending = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)
        self._pipes: list[Connection] = []

    # ---- for the workers

    def begin(self, become: Mapping[Key, Version]) -> list[tuple[int, Change]]:
        """Record that COMMIT is about to be sent."""
        with self._lock:
            now = now_ns()
            return [
                (key.index, self._timelines[key.index].begin(now, version))
                for key, version in become.items()
            ]

    def committed(self, changes: Sequence[tuple[int, Change]]) -> None:
        """Record that the changes have happened by now."""
        now = now_ns()
        with self._lock:
            for index, change in changes:
                self._timelines[index].committed(change, now)
                self._settle(index)

    def aborted(self, changes: Sequence[tuple[int, Change]]) -> None:
        """Record that the changes have not happened and cannot any more."""
        with self._lock:
            for index, change in changes:
                self._timelines[index].aborted(change)
                self._settle(index)

    def _settle(self, index: int) -> None:
        answers = self._waiting.pop(index, None)
        if answers is not None:
            self._settled.append((index, answers))

    # ---- for the faults

    def begin_loss(self, since: int) -> None:
        """Notifications of changes that committed after `since` may get lost from now on."""
        with self._lock:
            self._promise.begin_loss(since)

    def end_loss(self) -> None:
        """An audit has found all lost changes."""
        with self._lock:
            self._promise.end_loss(now_ns())

    def failed(self, what: str) -> None:
        """Record an error in the application's work."""
        with self._lock:
            if len(self.trouble) < _VIOLATIONS_MAX:
                self.trouble.append(what)

    def fresh_since(self, moment: int) -> bool:
        """Whether every source has given a fresh answer to a request sent after this moment."""
        with self._lock:
            return min(self._freshest.values()) > moment

    # ---- the clients' reports

    def start(self, pipes: Sequence[Connection]) -> None:
        """Read from these pipes until `stop`."""
        self._pipes = list(pipes)
        self._thread.start()

    def expect_end(self) -> None:
        """From now on, clients may end."""
        self._ending.set()

    def stop(self) -> None:
        """Judge the reports received so far, and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            ready = wait(self._pipes, 0.05) if self._pipes else []
            if not ready and self._stop.is_set():
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                try:
                    self.take(pipe.recv())
                except (EOFError, OSError):
                    self._pipes.remove(pipe)
                    if not self._ending.is_set():
                        self.trouble.append("a client has ended")
        with self._lock:
            self._judge_settled()
            # Changes that are open now will never be settled.
            self.counts["unjudged"] += self._waiting_count

    def take(self, reports: Sequence[Batch | Notice]) -> None:
        """Judge some reports."""
        for report in reports:
            if isinstance(report, Notice):
                self.counts[report.kind] += 1
                if report.kind not in HARMLESS and len(self.trouble) < _VIOLATIONS_MAX:
                    self.trouble.append(f"{report.kind}: {report.text}")
                continue
            with self._lock:
                self._judge_settled()
                self._judge_batch(report)
                self._forget()

    def _judge_batch(self, batch: Batch) -> None:
        at = 4
        for index in batch.keys:
            verdict, flags, claims_size, age_ms = _ANSWER.unpack_from(batch.body, at)
            at += _ANSWER.size
            row, subject = _claims(batch.body[at : at + claims_size]) if claims_size else (None, None)
            at += claims_size
            answer = Answer(
                batch.sent,
                batch.received,
                batch.sent_real_us,
                batch.received_real_us,
                verdict,
                bool(flags & 1),
                age_ms,
                batch.max_age_ms,
                batch.synced,
                row,
                subject,
            )
            self._count(index, answer)
            if not self._timelines[index].open_since(answer.received):
                self._judge(index, answer)
            elif self._waiting_count < _WAITING_MAX:
                self._waiting.setdefault(index, []).append(answer)
                self._waiting_count += 1
                self.counts["waited"] += 1
            else:
                self.counts["unjudged"] += 1
        if at != len(batch.body):
            self.trouble.append("a reply has more answers than its request had keys")

    def _judge_settled(self) -> None:
        while self._settled:
            index, answers = self._settled.popleft()
            self._waiting_count -= len(answers)
            for answer in answers:
                if self._timelines[index].open_since(answer.received):  # the next change has begun
                    self._waiting.setdefault(index, []).append(answer)
                    self._waiting_count += 1
                else:
                    self._judge(index, answer)

    def _judge(self, index: int, answer: Answer) -> None:
        self.counts["judged"] += 1
        why = wrong(self._timelines[index], answer, self._promise)
        if why is not None:
            self.counts["violations"] += 1
            self.broken.update(why.partition(":")[0].split(", "))
            if len(self.violations) < _VIOLATIONS_MAX:
                self.violations.append(Violation(self._keys[index], answer, why))

    def _count(self, index: int, answer: Answer) -> None:
        if self._journals[index].add(answer):
            self.counts["revocations seen"] += 1
        if answer.verdict == UNAVAILABLE:
            self.counts["unavailable"] += 1
        elif not answer.fresh:
            self.counts["stale"] += 1
        else:
            self.counts["fresh valid" if answer.verdict == VALID else "fresh refusal"] += 1
            source = self._keys[index].source
            self._freshest[source] = max(self._freshest[source], answer.sent)

    def _forget(self) -> None:
        now = now_ns()
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY_NS
        for timeline in self._timelines:
            timeline.forget(now - _KEPT_NS)

    # ---- the report of a failure

    def explain(self, violation: Violation) -> str:
        """The answer, and the whole history of its key."""
        answer, key = violation.answer, violation.key
        lines = [
            f"WRONG ANSWER for key {key.text.decode()[:80]} of source {key.source}",
            f"  {violation.why}",
            f"  sent {self._at(answer.sent)}, received {self._at(answer.received)}:"
            f" {_say(answer.verdict, answer.fresh)}, age {_age(answer.age_ms)}"
            + ("" if answer.max_age_ms is None else f", max age {answer.max_age_ms} ms")
            + ("" if answer.synced < 0 else f", behind a sync sent {self._at(answer.synced)}")
            + ("" if answer.row is None else f", row {answer.row}")
            + ("" if answer.subject is None else f", of {answer.subject}"),
            f"  clock at sent: {answer.sent_real_us} us since 1970",
            "history of the key (commit between … and …):",
        ]
        with self._lock:
            for change in self._timelines[key.index]:
                lines.append(f"  {self._window(change)}  {_describe(change.version)}")
            lines.append("answers on the key (first sent … last received):")
            for run in self._journals[key.index]:
                lines.append(
                    f"  {self._at(run.first_sent)} … {self._at(run.last_received)}"
                    f"  {run.count} x {_say(run.verdict, run.fresh)},"
                    f" age {_age(run.least_age_ms)} to {_age(run.greatest_age_ms)}"
                )
        return "\n".join(lines)

    def _window(self, change: Change) -> str:
        if change.since < 0:
            return "from the start"
        until = "unknown" if change.until == NEVER_YET else self._at(change.until)
        return f"{self._at(change.since)} … {until}"

    def _at(self, moment: int) -> str:
        return f"{(moment - self.started) / NS_PER_S:.6f} s"


def _claims(claims: bytes) -> tuple[str, str | None]:
    """The row's id and the subject. A reply omits an empty id (PROTOCOL.md)."""
    row, subject = "", None
    at = 0
    while at < len(claims):
        tag, size = struct.unpack_from("<BH", claims, at)
        if tag in (2, 3):
            text = claims[at + 3 : at + 3 + size].decode(errors="replace")
            row, subject = (text, subject) if tag == 2 else (row, text)
        at += 3 + size
    return row, subject


def _say(verdict: int, fresh: bool) -> str:
    return f"{VERDICTS[verdict]}, {'fresh' if fresh else 'not fresh'}"


def _age(age_ms: int) -> str:
    return "unknown" if age_ms == AGE_UNKNOWN else f"{age_ms} ms"


def _describe(version: Version) -> str:
    if version.verdict == UNREADABLE:
        return "the table cannot be read"
    text = VERDICTS[version.verdict] if version.row else "no row"
    if version.row:
        text += f", row {version.row}"
    if version.subject is not None:
        text += f", of {version.subject}"
    if version.expires_us is not None:
        text += f", expires {version.expires_us} us since 1970"
    if version.not_before_us is not None:
        text += f", not before {version.not_before_us} us since 1970"
    return text
