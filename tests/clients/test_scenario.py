"""The required behaviour of every client, against a real daemon and against fake servers.

The commands go to a driver, a small program for each client (README.md); answers and failures have
the same names in all of them.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers import NAMES, Driver
from fake import Fake, answering, read_request, turn_away, verified
from harness import wire
from harness.wait import scaled, until
from served import Here

STRANGER = "no_such_key"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(name: str, here: Here, scratch: Path) -> Iterator[Driver]:
    with Driver(name, here.keys.socket, scratch) as made:
        yield made


# ---- answers


def test_a_valid_key_and_whose_it_is(driver: Driver, here: Here) -> None:
    (answer,) = driver.verify("key_timed")["answers"]
    assert answer.pop("age_ms") < scaled(10_000)
    expires = here.keys.value(
        "SELECT floor(extract(epoch FROM expires_at))::bigint FROM api_keys WHERE id = %s",
        here.ids["timed"],
    )
    assert answer == {
        "verdict": "valid",
        "fresh": True,
        "source": "api_keys",
        "key_id": str(here.ids["timed"]),
        "sub": str(here.keys.user),
        "tenant": str(here.keys.tenant),
        "scope": "read write",
        "exp": expires,
    }
    assert "exp" not in driver.verify("key_valid")["answers"][0]


def test_each_refusal_has_its_verdict(driver: Driver) -> None:
    assert driver.verdicts("key_revoked") == ["revoked"]
    assert driver.verdicts("key_expired") == ["expired"]
    assert driver.verdicts(STRANGER) == ["unknown"]
    assert driver.verdicts("") == ["malformed"]
    assert driver.verdicts("x" * 4096) == ["unknown"]
    assert driver.verdicts("x" * 4097) == ["malformed"]
    assert driver.verdicts("x" * 100_000) == ["malformed"]


def test_scopes(driver: Driver) -> None:
    assert driver.verdicts("key_valid", all_scopes=["read", "write"]) == ["valid"]
    assert driver.verdicts("key_valid", all_scopes=["read", "admin"]) == ["insufficient_scope"]
    assert driver.verdicts("key_valid", any_scopes=["admin", "write"]) == ["valid"]
    assert driver.verdicts("key_valid", any_scopes=["admin", "root"]) == ["insufficient_scope"]
    both = {"all_scopes": ["read"], "any_scopes": ["root"]}
    assert driver.verdicts("key_valid", **both) == ["insufficient_scope"]


def test_many_keys_get_their_answers_in_order(driver: Driver) -> None:
    few = driver.verdicts("key_valid", STRANGER, "key_revoked", "", "key_expired")
    assert few == ["valid", "unknown", "revoked", "malformed", "expired"]
    # More keys than fit into one request, first by number, then by bytes.
    keys = ["key_valid", "key_revoked", STRANGER] * 300
    assert driver.verdicts(*keys) == ["valid", "revoked", "unknown"] * 300
    keys = ["x" * 4000, "key_valid"] * 100
    assert driver.verdicts(*keys) == ["unknown", "valid"] * 100


def test_a_maximum_age_of_nothing_is_never_met(driver: Driver) -> None:
    assert driver.verdicts("key_valid", max_age="0") == ["unavailable"]
    assert driver.verdicts("key_valid", max_age=str(60_000)) == ["valid"]
    assert driver.verdicts("key_valid", max_age="any") == ["valid"]


def test_a_revocation_is_in_force_after_a_sync(driver: Driver, here: Here, name: str) -> None:
    token = f"key_to_revoke_{name}"
    row = here.keys.issue(token)
    assert driver.run("sync", 10000, 10000)["waited_us"] > 0
    assert driver.verdicts(token) == ["valid"]
    here.keys.sql("UPDATE api_keys SET status = 'revoked' WHERE id = %s", row)
    assert "waited_us" in driver.run("sync", 10000, 10000)
    assert driver.verdicts(token) == ["revoked"]


def test_status_why_and_ping(driver: Driver, here: Here) -> None:
    assert driver.run("ping", 10000) == {}
    status = driver.run("status", 10000)["json"]
    assert [source["name"] for source in status["sources"]] == ["api_keys"]
    why = driver.run("why", 10000, "any", "-", "admin", "-", "key_revoked")["json"]
    assert (why["verdict"], why["key_id"]) == ("revoked", str(here.ids["revoked"]))
    failing = [reason["condition"] for reason in why["rows"][0]["failing"]]
    assert failing == ["revoked", "insufficient_scope"]


# ---- failures caused by the caller


def test_what_makes_no_sense_is_not_sent(driver: Driver, here: Here) -> None:
    def protocol_errors() -> object:
        return here.keys.cli.status()["protocol_errors"]

    before = protocol_errors()
    for terms in (
        {"source": "no such source"},
        {"source": "x" * 64},
        {"all_scopes": ["two words"]},
        {"any_scopes": ["x" * 256]},
        {"all_scopes": ["s"] * 33},
    ):
        for keys in (["key_valid"], ["key_valid", STRANGER]):
            result = driver.verify(*keys, **terms)
            assert result.get("failure") == "argument", (terms, result)
            assert result["text"]
    assert driver.run("sync", 1000, 0)["failure"] == "argument"
    assert driver.run("sync", 1000, 60_001)["failure"] == "argument"
    assert driver.verdicts("key_valid") == ["valid"]
    assert protocol_errors() == before


def test_a_refused_request_costs_only_itself(driver: Driver) -> None:
    result = driver.verify("key_valid", source="nobody")
    assert (result["failure"], result["refusal"]) == ("refused", "unknown_source")
    assert "source" in result["text"]
    assert driver.verdicts("key_valid", source="api_keys") == ["valid"]


def test_request_ids_begin_anywhere(name: str, path: Path, scratch: Path) -> None:
    """A reply to another client's request must not match one of this client."""
    ids: list[int] = []

    def reply(request_id: int) -> bytes:
        ids.append(request_id)
        return verified(request_id, 0)

    with Fake(path, answering(reply)):
        for _ in range(2):
            with Driver(name, path, scratch) as driver:
                assert driver.verdicts("key_valid") == driver.verdicts("key_valid") == ["valid"]
    first, second, third, fourth = ids
    assert first != third and abs(first - third) > 1000
    assert first != second and third != fourth


def test_a_reply_to_another_request_is_no_answer(name: str, path: Path, scratch: Path) -> None:
    with Fake(path, answering(lambda request_id: verified(request_id ^ 1, 0))):
        with Driver(name, path, scratch) as driver:
            assert driver.verify("key_valid")["failure"] == "protocol"


# ---- a missing or silent daemon


def timed(driver: Driver, timeout_ms: int) -> tuple[dict[str, object], float]:
    """The result of a request, and its duration in seconds."""
    started = time.monotonic()
    result = driver.verify("key_valid", timeout_ms=timeout_ms)
    return result, time.monotonic() - started


def assert_honoured(took_s: float, timeout_ms: int) -> None:
    """Not before the deadline, and not unlimited. The tests do not check its precision."""
    assert took_s > 0.9 * timeout_ms / 1000
    assert took_s < timeout_ms / 1000 + scaled(3)


def test_no_daemon_at_all(name: str, path: Path, scratch: Path) -> None:
    with Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, 300)
    assert result["failure"] == "connect"
    assert str(path) in str(result["text"]) and "running" in str(result["text"])
    assert_honoured(took_s, 300)


def test_a_daemon_that_is_restarted_in_the_middle(driver: Driver, here: Here) -> None:
    assert driver.verdicts("key_valid") == ["valid"]
    here.daemon.restart()
    assert driver.verdicts("key_valid") == ["valid"]  # learns that its connection is gone
    here.daemon.stop()
    try:
        result, took_s = timed(driver, 300)
        assert result["failure"] == "connect"
        assert_honoured(took_s, 300)
        driver.start("verify", int(scaled(60_000)), "any", "-", "-", "-", "key_revoked")
        driver.start("verify", 10_000, "any", "-", "-", "-", *["key_valid", STRANGER] * 200)
    finally:
        here.daemon.start().wait_ready()
    assert driver.result()["answers"][0]["verdict"] == "revoked"
    assert len(driver.result()["answers"]) == 400


def test_a_daemon_that_hangs(driver: Driver, here: Here) -> None:
    assert driver.verdicts("key_revoked") == ["revoked"]
    here.daemon.freeze()
    try:
        result, took_s = timed(driver, 300)
    finally:
        here.daemon.thaw()
    assert result["failure"] == "timeout"
    assert_honoured(took_s, 300)
    # The late answer to that request must not become the answer to the next one.
    assert driver.verdicts("key_revoked") == ["revoked"]
    assert driver.verdicts("key_valid") == ["valid"]


def test_what_arrived_while_it_was_held_up_is_an_answer(
    name: str, path: Path, scratch: Path
) -> None:
    """The host was suspended or too busy: the deadline has passed, and the reply is there."""
    timeout_ms = int(scaled(1000))

    def behave(connection: socket.socket) -> None:
        while (request_id := read_request(connection)) is not None:
            driver.freeze()
            connection.sendall(verified(request_id, 0))
            over = time.monotonic() + timeout_ms / 1000 + 0.3
            until(lambda: time.monotonic() > over, 30, "its deadline passes")
            driver.thaw()

    with Fake(path, behave), Driver(name, path, scratch) as driver:
        for _ in range(2):
            result = driver.verify("key", timeout_ms=timeout_ms)
            assert result.get("answers", [{}])[0].get("verdict") == "valid", result


def test_a_full_backlog_is_waited_for(name: str, path: Path, scratch: Path) -> None:
    fake = Fake(path, answering(lambda request_id: verified(request_id, 0)), backlog=0)
    waiting = []
    while True:  # until the backlog is full and connect() fails with EAGAIN
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.setblocking(False)
        waiting.append(one)
        try:
            one.connect(str(path))
        except BlockingIOError:
            break
    with Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, 300)
        assert result["failure"] == "connect", result
        assert_honoured(took_s, 300)
        driver.start("verify", int(scaled(20_000)), "any", "-", "-", "-", "key")
        with fake:
            for one in waiting:
                one.close()
            assert driver.result()["answers"][0]["verdict"] == "valid"


# ---- servers other than latchkeyd

GARBAGE = {
    "another protocol": lambda _: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "zeros": lambda _: bytes(64),
    "another request's reply": lambda request_id: verified(request_id + 1, 0),
    "another kind of reply": lambda request_id: wire.frame(wire.PONG, request_id),
    "a request": lambda request_id: wire.frame(wire.PING, request_id),
    "too many answers": lambda request_id: verified(request_id, 0, 0),
    "too few answers": verified,
    "a later version": lambda request_id: b"\2" + verified(request_id, 0)[1:],
    "an endless reply": lambda request_id: wire.frame(
        wire.VERIFIED, request_id, length=0xFFFFFFFF
    ),
    "a cut answer": lambda request_id: wire.frame(wire.VERIFIED, request_id, b"\1\0\0\0\0"),
    "a trailing byte": lambda request_id: wire.frame(
        wire.VERIFIED, request_id, verified(request_id, 0)[16:] + b"\0"
    ),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_named_at_once(name: str, path: Path, scratch: Path, kind: str) -> None:
    with Fake(path, answering(GARBAGE[kind])), Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, int(scaled(20_000)))
        assert result["failure"] == "protocol", result
        assert "latchkeyd" in str(result["text"])
        assert took_s < scaled(10)


def test_a_later_daemons_word_is_no_answer_to_that_key(
    name: str, path: Path, scratch: Path
) -> None:
    """A verdict or a flag that the client does not know; the rest of the reply is valid."""

    def later(request_id: int) -> bytes:
        answers = [(0, 1), (11, 1), (255, 0), (0, 3), (0, 128), (3, 1)]
        body = struct.pack("<HH", len(answers), 0)
        for verdict, flags in answers:
            body += struct.pack("<BBHI", verdict, flags, 4, 5) + b"\x02\x01\x007"
        return wire.frame(wire.VERIFIED, request_id, body)

    with Fake(path, answering(later)), Driver(name, path, scratch) as driver:
        answers = driver.verify(*"abcdef")["answers"]
    none = {"verdict": "unavailable", "fresh": False}
    known = {"fresh": True, "age_ms": 5, "key_id": "7"}
    assert answers == [
        {"verdict": "valid"} | known, none, none, none, none, {"verdict": "revoked"} | known
    ]  # fmt: skip


def test_a_reply_may_come_byte_by_byte(name: str, path: Path, scratch: Path) -> None:
    def dribble(connection: socket.socket) -> None:
        while (request_id := read_request(connection)) is not None:
            for octet in verified(request_id, 0, 3):
                connection.sendall(bytes((octet,)))

    with Fake(path, dribble), Driver(name, path, scratch) as driver:
        assert driver.verdicts("one", "two") == ["valid", "revoked"]


def test_a_server_that_never_answers(name: str, path: Path, scratch: Path) -> None:
    def listen_only(connection: socket.socket) -> None:
        while read_request(connection) is not None:
            pass

    with Fake(path, listen_only), Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, 300)
        assert result["failure"] == "timeout"
        assert_honoured(took_s, 300)


def test_half_a_reply_is_no_reply(name: str, path: Path, scratch: Path) -> None:
    def half(connection: socket.socket) -> None:
        request_id = read_request(connection)
        if request_id is not None:
            connection.sendall(verified(request_id, 0)[:-1])

    with Fake(path, half) as fake, Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, 300)
        assert result["failure"] in ("closed", "connect"), result
        assert "closed" in str(result["text"])
        assert_honoured(took_s, 300)
        # The client retried, with pauses.
        assert 2 <= fake.connections < 50


def test_who_may_not_ask_is_told_at_once(name: str, path: Path, scratch: Path) -> None:
    def stranger(connection: socket.socket) -> None:
        turn_away(connection, "not_allowed", "no [[allow]] rule\nadmits you")

    with Fake(path, stranger) as fake, Driver(name, path, scratch) as driver:
        result, took_s = timed(driver, int(scaled(20_000)))
        assert (result["failure"], result["refusal"]) == ("refused", "not_allowed")
        assert "admits you" in str(result["text"])
        assert "\n" not in str(result["text"])  # the text may be logged
        assert took_s < scaled(10)
        assert fake.connections == 1


def test_an_overload_is_waited_for(name: str, path: Path, scratch: Path) -> None:
    def busy_at_first(connection: socket.socket) -> None:
        if fake.connections <= 3:
            turn_away(connection, "overloaded", "too many connections")
        else:
            answering(lambda request_id: verified(request_id, 0))(connection)

    with Fake(path, busy_at_first) as fake, Driver(name, path, scratch) as driver:
        assert driver.verdicts("key") == ["valid"]
        assert fake.connections == 4
