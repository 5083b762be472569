"""Bytes from the socket: malformed input costs its own connection at most."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest

from harness import seeds, wire
from harness.wait import until
from harness.wire import Raw
from installation import Databases, Installation

KEY = b"sk_wire_good"


@pytest.fixture(scope="module")
def served(cluster, databases: Databases) -> Iterator[Installation]:
    """A daemon with one good key. It must survive every test of this module."""
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    there.more = '[limits]\nstall_timeout = "300ms"\nidle_timeout = "60s"\n'
    seeds.insert_external(there.conn, KEY.decode(), 42)
    with there.serve() as daemon:
        there.pid = daemon.pid  # type: ignore[attr-defined]
        yield there
        assert daemon.exit_code is None, daemon.log_tail()
    there.close()


@pytest.fixture(autouse=True)
def still_serves(served: Installation) -> Iterator[None]:
    """After each test, another client is answered normally."""
    yield
    with Raw(served.socket) as other:
        assert other.ask(wire.verify([KEY])).verdicts == ["valid"]


GOOD = wire.verify([KEY], all_scopes=[], source=b"plain")

REFUSED = {
    "a version of the future": (wire.frame(wire.PING, version=2), "bad_version"),
    "version zero": (wire.frame(wire.PING, version=0), "bad_version"),
    "HTTP by mistake": (b"GET /verify HTTP/1.1\r\nHost: localhost\r\n\r\n", "bad_version"),
    "TLS by mistake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), "bad_version"),
    "type zero": (wire.frame(0), "bad_type"),
    "a type of the future": (wire.frame(6), "bad_type"),
    "a reply as request": (wire.frame(wire.PONG), "bad_type"),
    "reserved bits in the header": (wire.frame(wire.PING, reserved=1), "bad_reserved"),
    "length zero": (wire.frame(wire.PING, length=0), "bad_length"),
    "length of less than a header": (wire.frame(wire.PING, length=15), "bad_length"),
    "length over the limit": (wire.frame(wire.PING, length=65537), "bad_length"),
    "length of four gigabytes": (wire.frame(wire.PING, length=0xFFFFFFFF), "bad_length"),
    "an unknown flag": (wire.verify([KEY], flags=4), "bad_flags"),
    "all flags": (wire.verify([KEY], flags=0xFFFF), "bad_flags"),
    "a why with a flag": (wire.verify([KEY], flags=1, type_=wire.WHY), "bad_flags"),
    "a why of no key": (wire.verify([], flags=0, type_=wire.WHY), "bad_count"),
    "a why of two keys": (wire.verify([KEY, KEY], flags=0, type_=wire.WHY), "bad_count"),
    "a why without a body": (wire.frame(wire.WHY), "truncated"),
    "reserved byte of verify": (wire.verify([KEY], reserved=1), "bad_reserved"),
    "no key": (wire.verify([]), "bad_count"),
    "257 keys": (wire.verify([b"k"] * 257), "bad_count"),
    "33 scopes, all of": (wire.verify([KEY], all_scopes=[b"s"] * 33), "bad_count"),
    "33 scopes, any of": (wire.verify([KEY], any_scopes=[b"s"] * 33), "bad_count"),
    "a source name too long": (wire.verify([KEY], source=b"s" * 64), "bad_source"),
    "a source name with a slash": (wire.verify([KEY], source=b"../etc"), "bad_source"),
    "a source name that is no text": (wire.verify([KEY], source=b"\xff\x00"), "bad_source"),
    "an empty scope": (wire.verify([KEY], all_scopes=[b""]), "bad_scope"),
    "a scope with a space": (wire.verify([KEY], any_scopes=[b"a b"]), "bad_scope"),
    "a scope with a zero byte": (wire.verify([KEY], any_scopes=[b"a\0b"]), "bad_scope"),
    "more keys announced than sent": (wire.verify([KEY], key_count=2), "truncated"),
    "fewer keys announced than sent": (wire.verify([KEY, KEY], key_count=1), "trailing"),
    "a ping with a body": (wire.frame(wire.PING, body=b"x"), "trailing"),
    "a status with a body": (wire.frame(wire.STATUS, body=b"x"), "trailing"),
    "a sync without a timeout": (wire.frame(wire.SYNC), "truncated"),
    "a sync with a timeout of zero": (wire.frame(wire.SYNC, body=bytes(4)), "bad_timeout"),
    "a sync that never ends": (wire.frame(wire.SYNC, body=b"\xff" * 4), "bad_timeout"),
    "a sync with too much": (wire.frame(wire.SYNC, body=b"\1\0\0\0\0"), "trailing"),
}


@pytest.mark.parametrize(("request_bytes", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_request_is_told_why_and_ends_its_connection(
    served: Installation, request_bytes: bytes, error: str
) -> None:
    before = served.cli.status()["protocol_errors"]
    with Raw(served.socket) as raw:
        raw.send(wire.verify([KEY], 7) + request_bytes + wire.verify([KEY], 9))
        answered, refused, *more = raw.all()
    assert (answered.request_id, answered.verdicts) == (7, ["valid"])
    assert refused.error == error
    assert more == [], "nothing after a refused request is looked at"
    assert served.cli.status()["protocol_errors"] == before + 1


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_a_frame_that_breaks_off_gets_no_answer(served: Installation, cut: int) -> None:
    with Raw(served.socket) as raw:
        raw.send(GOOD[:cut])
        raw.end()
        assert raw.all() == []


@pytest.mark.parametrize("cut", range(1, len(GOOD) - wire.HEADER_BYTES))
def test_a_body_cut_short_within_its_frame_is_truncated(served: Installation, cut: int) -> None:
    body = GOOD[wire.HEADER_BYTES :][:-cut]
    with Raw(served.socket) as raw:
        raw.send(wire.frame(wire.VERIFY, 5, body))
        (refused,) = raw.all()
        assert (refused.request_id, refused.error) == (5, "truncated")


def test_half_a_frame_is_given_up_after_the_stall_timeout(served: Installation) -> None:
    before = served.cli.status()["connections"]["closed_stalled"]
    with Raw(served.socket) as raw:
        raw.send(GOOD[:20])
        assert raw.all() == []  # the daemon closes the connection, not the client
    assert served.cli.status()["connections"]["closed_stalled"] == before + 1


def test_one_byte_now_and_then_buys_no_more_time(served: Installation) -> None:
    with Raw(served.socket) as raw:
        raw.socket.settimeout(0.05)
        sent = 0

        def closed() -> bool:
            nonlocal sent
            try:
                raw.socket.send(GOOD[sent % 20 : sent % 20 + 1] if sent < 20 else b"\0")
                sent += 1
                return raw.socket.recv(1) == b""
            except TimeoutError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True

        until(closed, 10, "a slow sender is closed")
        assert sent < len(GOOD), "closed because of its slowness, not of its frame"


def test_whoever_does_not_take_its_replies_is_closed(served: Installation) -> None:
    before = served.cli.status()["connections"]["closed_stalled"]
    flood = wire.verify([KEY] * 256) * 16
    with Raw(served.socket) as raw:
        raw.socket.settimeout(0.2)

        def gave_up() -> bool:
            try:
                while True:
                    raw.socket.send(flood)
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                return True
            return served.cli.status()["connections"]["closed_stalled"] == before + 1

        until(gave_up, 15, "a caller that does not read is closed")


def test_random_bytes_cost_their_own_connection(served: Installation) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for _ in range(300):
        data = dice.randbytes(dice.randrange(1, 400))
        if dice.random() < 0.5:  # with a valid version, so that the daemon parses further
            data = bytes([1, dice.choice([1, 1, 1, 2, 3, 4]), 0, 0]) + data
        with Raw(served.socket) as raw:
            raw.send(data)
            raw.end()
            for reply in raw.all():
                assert reply.type == wire.ERROR or reply.type != wire.VERIFIED or (
                    "valid" not in reply.verdicts
                )


def test_damaged_requests_never_yield_another_yes(served: Installation) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    request = wire.verify([b"sk_wire_wrong"], 3, all_scopes=[b"read"], source=b"plain")
    for _ in range(500):
        damaged = bytearray(request)
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        with Raw(served.socket) as raw:
            raw.send(bytes(damaged))
            raw.end()
            for reply in raw.all():
                assert reply.type != wire.VERIFIED or "valid" not in reply.verdicts


@pytest.mark.parametrize("step", [1, 3, 16, 17, 1000])
def test_a_stream_cut_anywhere_is_answered_as_the_whole(served: Installation, step: int) -> None:
    stream = b"".join(
        wire.verify([KEY, b"nobody"], i) if i % 3 else wire.frame(wire.PING, i) for i in range(1, 40)
    )
    with Raw(served.socket) as raw:
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for at in range(0, len(stream), step):
            raw.send(stream[at : at + step])
        raw.end()
        replies = raw.all()
    assert [reply.request_id for reply in replies] == list(range(1, 40))
    for reply in replies:
        if reply.request_id % 3:
            assert reply.verdicts == ["valid", "unknown"]
        else:
            assert reply.type == wire.PONG


def test_thousands_of_pipelined_requests_are_answered_in_order(served: Installation) -> None:
    count = 20_000
    with Raw(served.socket) as raw:
        sent = 0
        for start in range(0, count, 500):
            raw.send(b"".join(wire.verify([KEY], i, flags=0) for i in range(start, start + 500)))
            for i in range(start, start + 500):
                reply = raw.receive()
                assert reply is not None and reply.request_id == i
                sent += reply.verdicts == ["valid"]
    assert sent == count


def test_the_largest_batch_with_all_claims_fits_its_reply(served: Installation) -> None:
    with Raw(served.socket) as raw:
        assert raw.ask(wire.verify([KEY] * 256)).verdicts == ["valid"] * 256


def test_a_bad_key_in_a_batch_is_malformed_and_its_neighbours_are_answered(
    served: Installation,
) -> None:
    keys = [KEY, b"", b"x" * 4096, b"x" * 4097, b"sk\0", KEY]
    with Raw(served.socket) as raw:
        assert raw.ask(wire.verify(keys)).verdicts == [
            "valid",
            "malformed",
            "unknown",
            "malformed",
            "malformed",
            "valid",
        ]


def test_a_maximum_age_of_zero_is_never_met(served: Installation) -> None:
    with Raw(served.socket) as raw:
        assert raw.ask(wire.verify([KEY], max_age_ms=0)).verdicts == ["unavailable"]


def test_an_unknown_source_is_an_error_that_leaves_the_connection(served: Installation) -> None:
    with Raw(served.socket) as raw:
        assert raw.ask(wire.verify([KEY], source=b"nowhere")).error == "unknown_source"
        assert raw.ask(wire.verify([KEY], source=b"plain")).verdicts == ["valid"]


def test_a_sync_holds_back_what_follows_and_then_it_is_answered(served: Installation) -> None:
    sync = wire.frame(wire.SYNC, 1, (5000).to_bytes(4, "little"))
    with Raw(served.socket) as raw:
        raw.send(sync + wire.verify([KEY], 2) + sync + wire.frame(wire.PING, 3))
        types = [raw.receive() for _ in range(4)]
    assert [reply.type for reply in types if reply] == [
        wire.SYNCED,
        wire.VERIFIED,
        wire.SYNCED,
        wire.PONG,
    ]


def test_a_caller_that_half_closes_still_gets_its_replies(served: Installation) -> None:
    with Raw(served.socket) as raw:
        raw.send(wire.verify([KEY], 1) + wire.verify([b"nobody"], 2))
        raw.end()
        assert [reply.verdicts for reply in raw.all()] == [["valid"], ["unknown"]]


def test_a_caller_that_dies_leaves_nothing_open(served: Installation) -> None:
    for _ in range(50):
        with Raw(served.socket) as raw:
            raw.send(wire.verify([KEY] * 200))
    until(
        lambda: served.cli.status()["connections"]["open"] == 1,
        10,
        "only the connection that asks is open",
    )
