"""The history of each key, and the legal answers. Pure: no clock, no database, no thread.

Times are nanoseconds of CLOCK_BOOTTIME, which all processes share. The instant at which a COMMIT
takes effect cannot be known. It lies between the moment before COMMIT was sent and the moment after
it returned. If the connection broke in between, it may also never have happened. So an answer is
illegal only if it is wrong under every possible history within these limits.

The rules (design/freshness.md). An answer to a request sent at `sent` and received at `received`:

bound    a fresh `valid`: the key was valid at some instant in [sent - bound, received];
refusal  a fresh refusal: the same. A key that was valid throughout must not be refused;
age      fresh or not: the answer was right at some instant in [sent - its age, received];
sync     after a successful `sync` on the same connection: in [sync sent, received];
self     an answer does not contradict itself: fresh, age, the requested maximum age.

Expiry is judged at the request, without tolerance: a key that had expired at `sent` is not valid;
one that had not expired at `received` is not expired.

While the mapping cannot read a table (a mapped column is gone, rows are hidden), no answer can be
right: an answer breaks every rule whose interval lies within that time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
LONG_AGO = -(1 << 62)
NEVER_YET = 1 << 62

# Verdicts with their numbers on the wire.
VALID, UNKNOWN, MALFORMED, REVOKED, DISABLED, DELETED, EXPIRED, NOT_YET_VALID = range(8)
UNAVAILABLE = 10
UNREADABLE = 31  # no verdict: the mapping cannot read the table
AGE_UNKNOWN = 0xFFFFFFFF

RULES = ("bound", "refusal", "age", "sync", "self")

_CLOCK_NOISE_NS = NS_PER_MS


class Version(NamedTuple):
    """The state of a key from one commit to the next."""

    verdict: int  # VALID, or the refusal, regardless of its times; UNKNOWN: no row
    row: int | str = 0  # id of the row that holds the key
    expires_us: int | None = None  # since 1970, like not_before_us
    not_before_us: int | None = None
    subject: str | None = None  # the owner of the key; None: not compared

    def says(self, from_us: int, to_us: int) -> int:
        """The verdicts possible between these two times, as a set of bits."""
        if self.verdict == UNREADABLE:
            return 0
        if self.verdict != VALID:
            return 1 << self.verdict
        verdicts = 0
        if self.expires_us is not None and self.expires_us <= to_us:
            verdicts |= 1 << EXPIRED
        if self.expires_us is not None and self.expires_us <= from_us:
            return verdicts
        if self.not_before_us is not None and self.not_before_us > from_us:
            verdicts |= 1 << NOT_YET_VALID
        if self.not_before_us is None or self.not_before_us <= to_us:
            verdicts |= 1 << VALID
        return verdicts


ABSENT = Version(UNKNOWN)
LOST = Version(UNREADABLE)


class Change:
    """One commit's effect on one key. `until` is NEVER_YET while its outcome is open."""

    __slots__ = ("since", "until", "version")

    def __init__(self, since: int, version: Version, until: int = NEVER_YET) -> None:
        self.since = since  # before COMMIT was sent
        self.until = until  # after its success was known
        self.version = version


class Answer(NamedTuple):
    """One reply's answer on one key."""

    sent: int
    received: int
    sent_real_us: int  # CLOCK_REALTIME at the same two moments, rounded down
    received_real_us: int
    verdict: int
    fresh: bool
    age_ms: int
    max_age_ms: int | None = None
    synced: int = LONG_AGO  # when the connection's last earlier successful sync was sent
    row: int | str | None = None  # the row that holds the key, if the reply names it
    subject: str | None = None  # the owner of the key, if the reply names it


class Timeline:
    """The versions of one key, oldest first. One writer: changes of a key never overlap."""

    __slots__ = ("_changes", "_forgotten_until")

    def __init__(self) -> None:
        self._changes = [Change(LONG_AGO, ABSENT, LONG_AGO)]
        self._forgotten_until = LONG_AGO - 1  # the time up to which versions are forgotten: none

    def begin(self, since: int, version: Version) -> Change:
        """Record that COMMIT is about to be sent."""
        assert not self.open_since(NEVER_YET), "the last change is still open"
        change = Change(since, version)
        self._changes.append(change)
        return change

    def committed(self, change: Change, until: int) -> None:
        """Record that the change happened, at `until` the latest."""
        assert change is self._changes[-1] and change.since <= until
        change.until = until

    def aborted(self, change: Change) -> None:
        """Record that the change has not happened and never will."""
        assert change is self._changes[-1]
        self._changes.pop()

    @property
    def last(self) -> Change:
        """The newest change, with or without a known outcome."""
        return self._changes[-1]

    def open_since(self, moment: int) -> bool:
        """Whether a change of unknown outcome began at `moment` or before."""
        last = self._changes[-1]
        return last.until == NEVER_YET and last.since <= moment

    def possible(self, begin: int, end: int) -> list[Version] | None:
        """Every version that may have been in force in [begin, end]; None: these are forgotten."""
        if begin <= self._forgotten_until:
            return None
        found = []
        for index in range(len(self._changes) - 1, -1, -1):
            change = self._changes[index]
            if change.since <= end:
                found.append(change.version)
            if change.until < begin:  # all earlier ones had ended
                break
        return found

    def forget(self, before: int) -> None:
        """Forget the versions that had ended before this moment."""
        keep = bisect_left(self._changes, before, key=lambda change: change.until)
        keep = max(0, min(keep - 1, len(self._changes) - 1))
        if keep > 0:
            # The version before the first one kept may have lasted until that one's `until`.
            self._forgotten_until = self._changes[keep].until
            del self._changes[:keep]

    def __iter__(self) -> Iterator[Change]:
        return iter(self._changes)


@dataclass
class Promise:
    """The daemon's promise."""

    bound_ns: int
    max_stale_ns: int
    rules: frozenset[str] = frozenset(RULES)  # the rules to apply
    # While notifications were lost on purpose, and until an audit has found the changes, every
    # version in force since the first moment stays legal.
    losses: list[tuple[int, int]] = field(default_factory=list)

    def begin_loss(self, now: int) -> None:
        """From now on, notifications may get lost."""
        self.losses.append((now, NEVER_YET))

    def end_loss(self, now: int) -> None:
        """An audit has found all lost changes."""
        self.losses[-1] = (self.losses[-1][0], now)


class Rule(NamedTuple):
    """A reason why an answer must agree with the versions in force since `begin`."""

    name: str
    begin: int


def rules(answer: Answer, promise: Promise) -> list[Rule]:
    """The rules for an answer's statement on the key, strictest last."""
    found = []
    if answer.age_ms != AGE_UNKNOWN:
        # The age is rounded down, and counts from a moment that is not before `sent`.
        found.append(Rule("age", answer.sent - (answer.age_ms + 1) * NS_PER_MS))
    else:
        found.append(Rule("age", LONG_AGO))
    if answer.fresh:
        name = "bound" if answer.verdict == VALID else "refusal"
        found.append(Rule(name, answer.sent - promise.bound_ns))
    if answer.synced != LONG_AGO:
        found.append(Rule("sync", answer.synced))
    for since, until in promise.losses:
        if since <= answer.received and answer.sent <= until:
            found = [Rule(name, min(begin, since)) for name, begin in found]
    return sorted((rule for rule in found if rule.name in promise.rules), key=_begin)


def _begin(rule: Rule) -> int:
    return rule.begin


def contradiction(answer: Answer, promise: Promise) -> str | None:
    """The contradiction within an answer, independent of the key's history."""
    age, verdict = answer.age_ms, answer.verdict
    bound_ms = promise.bound_ns // NS_PER_MS
    if answer.fresh and age > bound_ms:
        return f"it claims to be fresh at an age of {age} ms"
    if verdict == UNAVAILABLE:
        too_old = age >= promise.max_stale_ns // NS_PER_MS
        if not too_old and (answer.max_age_ms is None or age < answer.max_age_ms):
            return f"unavailable, though only {age} ms old"
        return None
    if verdict > NOT_YET_VALID or verdict == MALFORMED:
        return "a verdict that no such key can get"
    if answer.max_age_ms is not None and age > answer.max_age_ms:
        return f"{age} ms old, where at most {answer.max_age_ms} ms were asked for"
    if not answer.fresh and age < bound_ms:
        return f"it claims not to be fresh at an age of {age} ms"
    return None


def agrees(timeline: Timeline, answer: Answer, begin: int) -> bool:
    """Whether the answer fits a version that may have been in force in [begin, received]."""
    last = timeline.last
    if last.until < begin:
        versions: Sequence[Version] | None = (last.version,)
    else:
        versions = timeline.possible(begin, answer.received)
        if versions is None:
            return True
    from_us, to_us = answer.sent_real_us, answer.received_real_us
    passed_us = (answer.received - answer.sent) // 1000
    if abs(to_us - from_us - passed_us) > _CLOCK_NOISE_NS // 1000:
        from_us, to_us = 0, NEVER_YET  # the clock was set: times prove nothing
    wanted = 1 << answer.verdict
    for version in versions:
        if version.says(from_us, to_us) & wanted:
            if answer.row is None or answer.verdict != VALID or _is_told(version, answer):
                return True
    # A key that moves from one row to another is refused while the daemon applies the change.
    moves = len({version.row for version in versions if version.verdict != UNREADABLE}) > 1
    return moves and answer.verdict in (UNKNOWN, DISABLED)


def _is_told(version: Version, answer: Answer) -> bool:
    """Whether the claims are those of the row."""
    if str(answer.row) != str(version.row):
        return False
    return version.subject is None or answer.subject == version.subject


def wrong(timeline: Timeline, answer: Answer, promise: Promise) -> str | None:
    """Why the answer is illegal under every possible history; None: it is legal."""
    odd = contradiction(answer, promise) if "self" in promise.rules else None
    if odd is not None:
        return f"self: {odd}"
    if answer.verdict == UNAVAILABLE:
        return None
    held_to = rules(answer, promise)
    if not held_to or agrees(timeline, answer, held_to[-1].begin):
        return None
    broken = next(rule for rule in held_to if not agrees(timeline, answer, rule.begin))
    names = [rule.name for rule in held_to if rule.begin >= broken.begin]
    since = (answer.sent - broken.begin) / NS_PER_S
    window = f"within {since:.3f} s before the request was sent, and until it was answered"
    return f"{', '.join(names)}: nothing in force {window} says so"


# ---- the report of a failure


class Run(NamedTuple):
    """Consecutive answers with the same verdict on a key."""

    verdict: int
    fresh: bool
    count: int
    first_sent: int
    last_received: int
    least_age_ms: int
    greatest_age_ms: int


class Journal:
    """The last answers on one key; equal ones share a line."""

    __slots__ = ("_runs",)

    def __init__(self, length: int = 60) -> None:
        self._runs: deque[Run] = deque(maxlen=length)

    def add(self, answer: Answer) -> bool:
        """Add an answer; returns whether the verdict changed from valid to a refusal."""
        age = answer.age_ms
        last = self._runs[-1] if self._runs else None
        if last is None or (last.verdict, last.fresh) != (answer.verdict, answer.fresh):
            self._runs.append(
                Run(answer.verdict, answer.fresh, 1, answer.sent, answer.received, age, age)
            )
            refused = answer.verdict not in (VALID, UNAVAILABLE)
            return last is not None and last.verdict == VALID and refused
        self._runs[-1] = Run(
            last.verdict,
            last.fresh,
            last.count + 1,
            last.first_sent,
            max(last.last_received, answer.received),
            min(last.least_age_ms, age),
            max(last.greatest_age_ms, age),
        )
        return False

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)
