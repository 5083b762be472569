"""The rules of the oracle: the legal and the illegal answers, exact to the nanosecond."""

from __future__ import annotations

import pytest
from oracle.history import (
    ABSENT,
    AGE_UNKNOWN,
    DELETED,
    DISABLED,
    EXPIRED,
    LONG_AGO,
    LOST,
    NOT_YET_VALID,
    NS_PER_MS,
    NS_PER_S,
    REVOKED,
    UNAVAILABLE,
    UNKNOWN,
    VALID,
    Answer,
    Change,
    Journal,
    Promise,
    Timeline,
    Version,
    wrong,
)

BOUND = NS_PER_S
GOOD = Version(VALID, 1)
BAD = Version(REVOKED, 1)
REAL_US = 1_700_000_000_000_000  # the real time at time 0 of the monotonic clock


def promise() -> Promise:
    return Promise(BOUND, 20 * NS_PER_S)


def history(*changes: tuple[int, int | None, Version]) -> Timeline:
    """A timeline. Each change: since, until (None: outcome unknown), version."""
    timeline = Timeline()
    for since, until, version in changes:
        change = timeline.begin(since, version)
        if until is not None:
            timeline.committed(change, until)
    return timeline


def answer(
    verdict: int,
    sent: int,
    received: int | None = None,
    *,
    fresh: bool = True,
    age_ms: int = BOUND // NS_PER_MS,
    **more: int,
) -> Answer:
    """An answer. By default it is fresh and has the greatest allowed age."""
    received = sent if received is None else received
    real = [REAL_US + moment // 1000 for moment in (sent, received)]
    return Answer(sent, received, real[0], real[1], verdict, fresh, age_ms, **more)


def is_wrong(timeline: Timeline, given: Answer, held_to: Promise | None = None) -> str | None:
    """The name of the strictest broken rule; a broken rule of refusals is called "bound" here."""
    why = wrong(timeline, given, held_to or promise())
    if why is None:
        return None
    return why.partition(":")[0].split(", ")[-1].replace("refusal", "bound")


# ---- a revocation that committed between 10 s and 11 s

REVOKED_AT = history((0, 1, GOOD), (10 * NS_PER_S, 11 * NS_PER_S, BAD))


@pytest.mark.parametrize(
    ("verdict", "sent", "received", "why"),
    [
        (VALID, 5 * NS_PER_S, None, None),
        # It may have been valid until the instant at which COMMIT returned.
        (VALID, 11 * NS_PER_S + BOUND, None, None),
        (VALID, 11 * NS_PER_S + BOUND + 1, None, "bound"),
        (VALID, 11 * NS_PER_S + BOUND + 1, 99 * NS_PER_S, "bound"),
        # It may have been revoked from the instant at which COMMIT was sent.
        (REVOKED, 10 * NS_PER_S - 1, None, "bound"),
        (REVOKED, 10 * NS_PER_S - 1, 10 * NS_PER_S, None),
        (REVOKED, 10 * NS_PER_S, None, None),
        (REVOKED, 12 * NS_PER_S, None, None),
        (UNKNOWN, 12 * NS_PER_S, None, "bound"),
        (DISABLED, 12 * NS_PER_S, None, "bound"),
    ],
)
def test_a_fresh_answer_may_be_as_old_as_the_bound(
    verdict: int, sent: int, received: int | None, why: str | None
) -> None:
    # At this age, the rule of the age allows older states than the rule of the bound.
    assert is_wrong(REVOKED_AT, answer(verdict, sent, received)) == why


def test_an_answer_that_is_not_fresh_may_be_as_old_as_it_says() -> None:
    stale = {"fresh": False, "age_ms": 5000}
    # The age is rounded down to milliseconds, so one more is allowed.
    edge = 11 * NS_PER_S + 5001 * NS_PER_MS
    assert is_wrong(REVOKED_AT, answer(VALID, edge, **stale)) is None
    assert is_wrong(REVOKED_AT, answer(VALID, edge + 1, **stale)) == "age"


def test_a_fresh_answer_may_not_be_older_than_it_says_either() -> None:
    edge = 11 * NS_PER_S + 101 * NS_PER_MS
    assert is_wrong(REVOKED_AT, answer(VALID, edge, age_ms=100)) is None
    assert is_wrong(REVOKED_AT, answer(VALID, edge + 1, age_ms=100)) == "age"


def test_an_answer_of_unknown_age_may_say_whatever_was_true_once() -> None:
    never = {"fresh": False, "age_ms": AGE_UNKNOWN}
    assert is_wrong(REVOKED_AT, answer(VALID, 90 * NS_PER_S, **never)) is None
    assert is_wrong(REVOKED_AT, answer(DELETED, 90 * NS_PER_S, **never)) == "age"


def test_behind_a_sync_nothing_older_than_the_sync_is_legal() -> None:
    sent = 11 * NS_PER_S + BOUND // 2
    assert is_wrong(REVOKED_AT, answer(VALID, sent)) is None
    assert is_wrong(REVOKED_AT, answer(VALID, sent, synced=11 * NS_PER_S)) is None
    assert is_wrong(REVOKED_AT, answer(VALID, sent, synced=11 * NS_PER_S + 1)) == "sync"
    assert is_wrong(REVOKED_AT, answer(REVOKED, sent, synced=11 * NS_PER_S + 1)) is None


def test_a_key_that_is_valid_throughout_is_not_refused() -> None:
    created = history((10 * NS_PER_S, 11 * NS_PER_S, GOOD))
    assert is_wrong(created, answer(UNKNOWN, 11 * NS_PER_S + BOUND)) is None
    assert is_wrong(created, answer(UNKNOWN, 11 * NS_PER_S + BOUND + 1)) == "bound"
    assert is_wrong(created, answer(REVOKED, 11 * NS_PER_S)) == "bound"


def test_a_change_between_two_that_are_far_away_is_seen() -> None:
    blink = history(
        (1 * NS_PER_S, 2 * NS_PER_S, GOOD),
        (30 * NS_PER_S, 31 * NS_PER_S, BAD),
        (32 * NS_PER_S, 33 * NS_PER_S, GOOD),
        (60 * NS_PER_S, 61 * NS_PER_S, BAD),
    )
    assert is_wrong(blink, answer(REVOKED, 29 * NS_PER_S)) == "bound"
    assert is_wrong(blink, answer(REVOKED, 33 * NS_PER_S + BOUND)) is None
    assert is_wrong(blink, answer(REVOKED, 33 * NS_PER_S + BOUND + 1)) == "bound"
    assert is_wrong(blink, answer(VALID, 40 * NS_PER_S)) is None


# ---- commits of unknown outcome


def test_while_the_outcome_is_unknown_both_are_legal_from_the_start_of_the_commit() -> None:
    timeline = history((0, 1, GOOD), (10 * NS_PER_S, None, BAD))
    assert is_wrong(timeline, answer(REVOKED, 10 * NS_PER_S - 1)) == "bound"
    for sent in (10 * NS_PER_S, 500 * NS_PER_S):
        assert is_wrong(timeline, answer(REVOKED, sent)) is None
        assert is_wrong(timeline, answer(VALID, sent)) is None
        assert is_wrong(timeline, answer(DELETED, sent)) == "bound"


def test_it_is_known_when_an_answer_has_to_wait_for_the_outcome() -> None:
    timeline = history((0, 1, GOOD), (10, None, BAD))
    assert not timeline.open_since(9)
    assert timeline.open_since(10)
    timeline.committed(timeline.last, 20)
    assert not timeline.open_since(100)


def test_a_commit_found_to_have_happened_may_have_happened_as_late_as_that() -> None:
    timeline = history((0, 1, GOOD), (10 * NS_PER_S, None, BAD))
    timeline.committed(timeline.last, 50 * NS_PER_S)
    assert is_wrong(timeline, answer(VALID, 50 * NS_PER_S + BOUND)) is None
    assert is_wrong(timeline, answer(VALID, 50 * NS_PER_S + BOUND + 1)) == "bound"
    assert is_wrong(timeline, answer(REVOKED, 10 * NS_PER_S)) is None


def test_a_commit_found_not_to_have_happened_never_did() -> None:
    timeline = history((0, 1, GOOD), (10 * NS_PER_S, None, BAD))
    timeline.aborted(timeline.last)
    assert is_wrong(timeline, answer(REVOKED, 10 * NS_PER_S)) == "bound"
    assert is_wrong(timeline, answer(VALID, 90 * NS_PER_S)) is None


def test_no_change_begins_while_another_is_open() -> None:
    timeline = history((0, None, GOOD))
    with pytest.raises(AssertionError):
        timeline.begin(1, BAD)


# ---- time


def expiring(at_us: int) -> Timeline:
    return history((0, 1, Version(VALID, 1, expires_us=REAL_US + at_us)))


@pytest.mark.parametrize(
    ("verdict", "sent_us", "received_us", "legal"),
    [
        (VALID, 999, 999, True),
        (VALID, 999, 2000, True),
        (VALID, 1000, 2000, False),  # a key has expired at the instant of its expiry
        (EXPIRED, 900, 999, False),
        (EXPIRED, 900, 1000, True),
        (EXPIRED, 1000, 1000, True),
        (REVOKED, 1000, 1000, False),
    ],
)
def test_expiry_has_no_tolerance(
    verdict: int, sent_us: int, received_us: int, legal: bool
) -> None:
    base = 5 * NS_PER_S  # long after the row was inserted
    given = answer(verdict, base + sent_us * 1000, base + received_us * 1000)
    assert (is_wrong(expiring(5_000_000 + 1000), given) is None) == legal


@pytest.mark.parametrize(
    ("verdict", "sent_us", "received_us", "legal"),
    [
        (NOT_YET_VALID, 999, 1500, True),
        (NOT_YET_VALID, 1000, 1500, False),
        (VALID, 900, 999, False),
        (VALID, 900, 1000, True),
    ],
)
def test_neither_has_the_beginning(
    verdict: int, sent_us: int, received_us: int, legal: bool
) -> None:
    base = 5 * NS_PER_S
    opens = Version(VALID, 1, not_before_us=REAL_US + 5_000_000 + 1000)
    given = answer(verdict, base + sent_us * 1000, base + received_us * 1000)
    assert (is_wrong(history((0, 1, opens)), given) is None) == legal


def test_what_has_expired_was_never_to_begin() -> None:
    both = Version(VALID, 1, expires_us=REAL_US, not_before_us=REAL_US + 9_000_000)
    assert is_wrong(history((0, 1, both)), answer(EXPIRED, 5 * NS_PER_S)) is None
    assert is_wrong(history((0, 1, both)), answer(NOT_YET_VALID, 5 * NS_PER_S)) == "bound"


def test_a_revoked_key_does_not_expire() -> None:
    both = Version(REVOKED, 1, expires_us=REAL_US)
    assert is_wrong(history((0, 1, both)), answer(REVOKED, 5 * NS_PER_S)) is None
    assert is_wrong(history((0, 1, both)), answer(EXPIRED, 5 * NS_PER_S)) == "bound"


def test_an_expiry_put_off_within_the_bound_may_not_be_known_yet() -> None:
    later = history(
        (0, 1, Version(VALID, 1, expires_us=REAL_US + 3_000_000)),
        (5 * NS_PER_S, 6 * NS_PER_S, Version(VALID, 1)),
    )
    assert is_wrong(later, answer(EXPIRED, 6 * NS_PER_S + BOUND)) is None
    assert is_wrong(later, answer(EXPIRED, 6 * NS_PER_S + BOUND + 1)) == "bound"
    assert is_wrong(later, answer(VALID, 4 * NS_PER_S)) == "bound"  # the key had expired by then


def test_while_somebody_sets_the_clock_expiry_is_not_judged() -> None:
    given = answer(VALID, 5 * NS_PER_S)
    assert is_wrong(expiring(1000), given) == "bound"
    jumped = given._replace(received_real_us=given.received_real_us + 3_600_000_000)
    assert is_wrong(expiring(1000), jumped) is None


# ---- rows that are deleted and inserted again

COMES_AGAIN = history(
    (0, 1, GOOD),
    (10 * NS_PER_S, 11 * NS_PER_S, ABSENT),
    (20 * NS_PER_S, 21 * NS_PER_S, Version(VALID, 2)),
)


def test_a_deleted_key_is_unknown_until_it_comes_again() -> None:
    assert is_wrong(COMES_AGAIN, answer(VALID, 15 * NS_PER_S)) == "bound"
    assert is_wrong(COMES_AGAIN, answer(UNKNOWN, 15 * NS_PER_S)) is None
    assert is_wrong(COMES_AGAIN, answer(VALID, 20 * NS_PER_S)) is None
    assert is_wrong(COMES_AGAIN, answer(UNKNOWN, 21 * NS_PER_S + BOUND + 1)) == "bound"


def test_a_key_that_came_again_is_that_of_its_new_row() -> None:
    sent = 25 * NS_PER_S
    assert is_wrong(COMES_AGAIN, answer(VALID, sent, row=2)) is None
    assert is_wrong(COMES_AGAIN, answer(VALID, sent, row=1)) == "bound"
    assert is_wrong(COMES_AGAIN, answer(VALID, 5 * NS_PER_S, row=1)) is None


def test_a_key_that_moves_between_rows_may_be_refused_meanwhile_and_only_then() -> None:
    moves = history((0, 1, GOOD), (10 * NS_PER_S, 11 * NS_PER_S, Version(VALID, 2)))
    for verdict in (UNKNOWN, DISABLED):
        assert is_wrong(moves, answer(verdict, 10 * NS_PER_S)) is None
        assert is_wrong(moves, answer(verdict, 11 * NS_PER_S + BOUND + 1)) == "bound"
        assert is_wrong(moves, answer(verdict, 10 * NS_PER_S - 1)) == "bound"
    assert is_wrong(moves, answer(REVOKED, 10 * NS_PER_S)) == "bound"


# ---- lost notifications


def test_what_was_lost_may_stay_in_force_until_it_is_found() -> None:
    revoked = history((0, 1, GOOD), (10 * NS_PER_S, 11 * NS_PER_S, BAD))
    held_to = promise()
    held_to.begin_loss(10 * NS_PER_S)
    assert is_wrong(revoked, answer(VALID, 25 * NS_PER_S), held_to) is None
    assert is_wrong(revoked, answer(VALID, 25 * NS_PER_S, synced=24 * NS_PER_S), held_to) is None
    held_to.end_loss(30 * NS_PER_S)
    assert is_wrong(revoked, answer(VALID, 30 * NS_PER_S), held_to) is None
    assert is_wrong(revoked, answer(VALID, 30 * NS_PER_S + 1), held_to) == "bound"


def test_what_was_in_force_before_cannot_be_lost() -> None:
    revoked = history((0, 1, GOOD), (10 * NS_PER_S, 11 * NS_PER_S, BAD))
    held_to = promise()
    held_to.begin_loss(11 * NS_PER_S + 1)
    assert is_wrong(revoked, answer(VALID, 25 * NS_PER_S), held_to) == "bound"
    assert is_wrong(revoked, answer(VALID, 11 * NS_PER_S), held_to) is None


# ---- answers that contradict themselves


@pytest.mark.parametrize(
    ("given", "legal"),
    [
        (answer(VALID, 5 * NS_PER_S, age_ms=1000), True),
        (answer(VALID, 5 * NS_PER_S, age_ms=1001), False),
        (answer(VALID, 5 * NS_PER_S, fresh=False, age_ms=1000), True),
        (answer(VALID, 5 * NS_PER_S, fresh=False, age_ms=999), False),
        (answer(VALID, 5 * NS_PER_S, age_ms=200, max_age_ms=200), True),
        (answer(VALID, 5 * NS_PER_S, age_ms=201, max_age_ms=200), False),
        (answer(UNAVAILABLE, 5 * NS_PER_S, fresh=False, age_ms=200, max_age_ms=200), True),
        (answer(UNAVAILABLE, 5 * NS_PER_S, fresh=False, age_ms=199, max_age_ms=200), False),
        (answer(UNAVAILABLE, 5 * NS_PER_S, fresh=False, age_ms=20_000), True),
        (answer(UNAVAILABLE, 5 * NS_PER_S, fresh=False, age_ms=19_999), False),
        (answer(UNAVAILABLE, 5 * NS_PER_S, fresh=False, age_ms=AGE_UNKNOWN), True),
        (answer(8, 5 * NS_PER_S), False),  # insufficient_scope: the request has no scope
        (answer(9, 5 * NS_PER_S), False),  # forbidden: the oracle's uid may ask everything
        (answer(2, 5 * NS_PER_S), False),  # malformed: the key is well-formed
    ],
)
def test_an_answer_agrees_with_itself(given: Answer, legal: bool) -> None:
    assert (is_wrong(history((0, 1, GOOD)), given) is None) == legal


def test_a_wrong_yes_and_a_wrong_no_break_rules_of_their_own() -> None:
    late = 20 * NS_PER_S
    assert (wrong(REVOKED_AT, answer(VALID, late), promise()) or "").startswith("age, bound: ")
    early = 5 * NS_PER_S
    assert (wrong(REVOKED_AT, answer(REVOKED, early), promise()) or "").startswith("age, refusal: ")


def test_only_the_rules_asked_for_are_applied() -> None:
    only = Promise(BOUND, 20 * NS_PER_S, frozenset({"bound"}))
    sent = 11 * NS_PER_S + BOUND
    assert is_wrong(REVOKED_AT, answer(VALID, sent, age_ms=0, max_age_ms=1), only) is None
    assert is_wrong(REVOKED_AT, answer(VALID, sent, age_ms=0)) == "age"
    assert is_wrong(REVOKED_AT, answer(VALID, sent + 1, age_ms=0), only) == "bound"
    assert is_wrong(REVOKED_AT, answer(VALID, sent + 1, fresh=False, age_ms=1), only) is None
    assert is_wrong(REVOKED_AT, answer(REVOKED, 5 * NS_PER_S), only) is None


# ---- memory


def test_what_is_forgotten_is_not_held_against_anybody() -> None:
    changes = [(i * NS_PER_S, i * NS_PER_S + 1, Version(VALID, i)) for i in range(1, 100)]
    timeline = history(*changes)
    timeline.forget(50 * NS_PER_S)
    # The timeline keeps the version in force at that moment, and all later ones.
    assert [change.version.row for change in timeline] == list(range(49, 100))
    assert timeline.possible(49 * NS_PER_S + 1, 50 * NS_PER_S) is None
    assert timeline.possible(49 * NS_PER_S + 2, 49 * NS_PER_S + 3) == [Version(VALID, 49)]
    assert is_wrong(timeline, answer(REVOKED, 20 * NS_PER_S)) is None
    assert is_wrong(timeline, answer(REVOKED, 60 * NS_PER_S)) == "bound"
    timeline.forget(5000 * NS_PER_S)
    assert [change.version.row for change in timeline] == [99]


def test_forgetting_spares_a_change_of_unknown_outcome() -> None:
    timeline = history((1, 2, GOOD), (3, 4, BAD), (5, None, GOOD))
    timeline.forget(1000)
    assert [change.version for change in timeline] == [BAD, GOOD]
    assert timeline.open_since(1000)


def test_the_first_version_is_no_row_since_ever() -> None:
    (only,) = Timeline()
    assert isinstance(only, Change)
    assert (only.since, only.until, only.version) == (LONG_AGO, LONG_AGO, ABSENT)


def test_answers_that_say_the_same_take_one_line() -> None:
    journal = Journal(length=2)
    assert not journal.add(answer(REVOKED, 1))
    assert not journal.add(answer(VALID, 2, age_ms=7))
    assert not journal.add(answer(VALID, 4, 5, age_ms=3))
    assert journal.add(answer(REVOKED, 6))
    assert not journal.add(answer(REVOKED, 7))
    valid, refused = journal
    assert (valid.count, valid.first_sent, valid.last_received) == (2, 2, 5)
    assert (valid.least_age_ms, valid.greatest_age_ms) == (3, 7)
    assert (refused.verdict, refused.count) == (REVOKED, 2)


# ---- a table that the mapping cannot read between 10 s and 20 s

UNREADABLE_AT = history((0, 1, GOOD), (10 * NS_PER_S, 10 * NS_PER_S, LOST), (20 * NS_PER_S, 20 * NS_PER_S, BAD))


@pytest.mark.parametrize("verdict", [VALID, REVOKED, UNKNOWN, DISABLED])
def test_no_answer_is_fresh_while_the_table_cannot_be_read(verdict: int) -> None:
    assert is_wrong(UNREADABLE_AT, answer(verdict, 11 * NS_PER_S + 1)) == "bound"
    stale = answer(verdict, 15 * NS_PER_S, fresh=False, age_ms=5000)
    assert is_wrong(UNREADABLE_AT, stale) == (None if verdict == VALID else "age")


def test_what_was_known_before_may_be_served_with_its_age() -> None:
    assert is_wrong(UNREADABLE_AT, answer(VALID, 15 * NS_PER_S, fresh=False, age_ms=5000)) is None
    assert is_wrong(UNREADABLE_AT, answer(VALID, 15 * NS_PER_S, fresh=False, age_ms=4998)) == "age"


def test_no_sync_succeeds_while_the_table_cannot_be_read() -> None:
    behind = answer(VALID, 10 * NS_PER_S + 2, age_ms=1000, synced=10 * NS_PER_S + 1)
    assert is_wrong(UNREADABLE_AT, behind) == "sync"


def test_mended_it_must_be_right_again() -> None:
    assert is_wrong(UNREADABLE_AT, answer(REVOKED, 20 * NS_PER_S)) is None
    assert is_wrong(UNREADABLE_AT, answer(VALID, 20 * NS_PER_S)) == "bound"


# ---- the owner of a key


@pytest.mark.parametrize(
    ("row", "subject", "why"),
    [("1", "1234", None), ("1", "825373492", "bound"), ("1", None, "bound"), ("2", "1234", "bound")],
)
def test_an_answer_that_names_somebody_else_is_wrong(row: str, subject: str | None, why: str | None) -> None:
    timeline = history((0, 1, Version(VALID, 1, subject="1234")))
    given = answer(VALID, 5 * NS_PER_S)._replace(row=row, subject=subject)
    assert is_wrong(timeline, given) == why
