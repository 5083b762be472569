"""The judge compares answers with the history, without a daemon or a database."""

from __future__ import annotations

import struct
from array import array

import pytest
from oracle.clients import real_us
from oracle.history import DELETED, LONG_AGO, NS_PER_S, REVOKED, VALID, Promise, Version
from oracle.judge import Batch, Judge, Notice, now_ns
from oracle.tables import Key

KEYS = [Key(0, "one", b"sk_0"), Key(1, "two", b"sk_1")]
GOOD, BAD = Version(VALID, 17), Version(REVOKED, 17)


@pytest.fixture
def judge() -> Judge:
    return Judge(KEYS, Promise(NS_PER_S, 20 * NS_PER_S))


def reply(*verdicts: int, fresh: int = 1, age_ms: int = 0, claims: bytes = b"") -> bytes:
    answers = (struct.pack("<BBHI", v, fresh, len(claims), age_ms) + claims for v in verdicts)
    return struct.pack("<HH", len(verdicts), 0) + b"".join(answers)


def batch(body: bytes, *keys: int, sent: int | None = None) -> Batch:
    """A batch, sent and answered now by default."""
    sent = now_ns() if sent is None else sent
    return Batch(sent, now_ns(), real_us(), real_us(), None, LONG_AGO, array("H", keys), body)


def long_after(moment: int) -> Batch:
    """A fresh `valid` on key 0, half a minute later."""
    later = moment + 30 * NS_PER_S
    real = real_us()
    return Batch(later, later, real, real, None, LONG_AGO, array("H", [0]), reply(VALID))


def test_an_answer_that_fits_is_counted_and_no_more(judge: Judge) -> None:
    judge.committed(judge.begin({KEYS[0]: GOOD}))
    judge.take([batch(reply(VALID, 1), 0, 1)])
    assert judge.violations == [] and judge.trouble == []
    assert judge.counts["judged"] == 2
    assert (judge.counts["fresh valid"], judge.counts["fresh refusal"]) == (1, 1)


def test_a_wrong_answer_is_explained_with_the_history_of_its_key(judge: Judge) -> None:
    judge.committed(judge.begin({KEYS[0]: GOOD}))
    judge.committed(judge.begin({KEYS[0]: BAD}))
    judge.take([long_after(now_ns())])
    (violation,) = judge.violations
    assert violation.key == KEYS[0] and judge.broken == {"age": 1, "bound": 1}
    text = judge.explain(violation)
    for part in ("sk_0", "source one", "valid, row 17", "revoked, row 17", "1 x valid, fresh"):
        assert part in text, text


def test_an_answer_waits_for_the_outcome_of_a_commit(judge: Judge) -> None:
    judge.committed(judge.begin({KEYS[0]: GOOD}))
    revocation = judge.begin({KEYS[0]: BAD})
    judge.take([batch(reply(DELETED), 0), batch(reply(REVOKED), 0)])
    assert (judge.counts["waited"], judge.counts["judged"]) == (2, 0)
    judge.aborted(revocation)
    judge.take([batch(reply(VALID), 0)])
    assert judge.counts["judged"] == 3
    wrong = [violation.answer.verdict for violation in judge.violations]
    assert wrong == [DELETED, REVOKED]


def test_a_commit_that_begins_later_holds_up_nothing(judge: Judge) -> None:
    answer = batch(reply(1), 0)
    judge.begin({KEYS[0]: GOOD})
    judge.take([answer])
    assert (judge.counts["waited"], judge.counts["judged"]) == (0, 1)


def test_the_row_is_taken_from_the_claims(judge: Judge) -> None:
    judge.committed(judge.begin({KEYS[0]: GOOD}))
    for row, wrong in ((b"17", 0), (b"18", 1)):
        claims = b"\x01\x03\x00one" + b"\x02\x02\x00" + row
        judge.take([batch(reply(VALID, claims=claims), 0)])
        assert len(judge.violations) == wrong


def test_the_subject_is_taken_from_the_claims(judge: Judge) -> None:
    judge.committed(judge.begin({KEYS[0]: GOOD._replace(row="k17", subject="ann")}))
    for subject, wrong in ((b"ann", 0), (b"eve", 1)):
        claims = b"\x02\x03\x00k17" + b"\x03\x03\x00" + subject
        judge.take([batch(reply(VALID, claims=claims), 0)])
        assert len(judge.violations) == wrong


def test_every_source_must_have_been_seen_fresh(judge: Judge) -> None:
    before = now_ns()
    judge.take([batch(reply(1), 0)])
    assert not judge.fresh_since(before)
    judge.take([batch(reply(1, fresh=0, age_ms=5000), 1)])
    assert not judge.fresh_since(before)
    judge.take([batch(reply(1), 1)])
    assert judge.fresh_since(before)
    assert not judge.fresh_since(now_ns())


def test_a_reply_that_no_client_should_get_is_trouble(judge: Judge) -> None:
    judge.take([Notice("synced"), Notice("wrong reply", "type 7"), batch(reply(1, 1), 0)])
    assert judge.trouble == [
        "wrong reply: type 7",
        "a reply has more answers than its request had keys",
    ]
