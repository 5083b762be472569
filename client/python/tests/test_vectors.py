"""Tests with the frames of tests/vectors/wire.txt; the head of that file explains the format."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from latchkey import _request as request
from latchkey import _wire as wire

VECTORS = Path(__file__).resolve().parents[3] / "tests/vectors/wire.txt"
CLAIMS = ("source", "key_id", "subject", "tenant", "scope", "expires", "metadata")


@dataclass
class Vector:
    """One block of the file."""

    name: str = ""
    frame: bytes = b""
    direction: str = ""
    reader: str = ""
    error: str = ""
    meaning: list[tuple[str, str]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """The values of a field that may occur more than once."""
        return [value for known, value in self.meaning if known == name]

    def one(self, name: str) -> str:
        """The value of a field that occurs once."""
        (value,) = self.all(name)
        return value


def vectors() -> Iterator[Vector]:
    for block in VECTORS.read_text(encoding="ascii").split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if not lines:
            continue
        vector = Vector()
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "hex":
                vector.frame += bytes.fromhex(value)
            elif name in ("name", "direction", "reader") or (
                name == "error" and vector.meaning == []
            ):
                setattr(vector, name, value)
            else:
                vector.meaning.append((name, value))
        yield vector


def unescaped(text: str) -> bytes:
    """Decodes an escaped text of the table."""
    return re.sub(
        rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text.encode("ascii")
    )


def escaped(text: str) -> str:
    """The inverse of unescaped()."""
    return "".join(
        chr(octet) if 0x20 <= octet <= 0x7E and octet != 0x5C else f"\\x{octet:02x}"
        for octet in text.encode("utf-8", "surrogateescape")
    )


ALL = list(vectors())
TYPES = {
    "verify": wire.VERIFY,
    "ping": wire.PING,
    "status": wire.STATUS,
    "sync": wire.SYNC,
    "why": wire.WHY,
    "verified": wire.VERIFIED,
    "pong": wire.PONG,
    "status_reply": wire.STATUS_REPLY,
    "synced": wire.SYNCED,
    "why_reply": wire.WHY_REPLY,
    "error": wire.ERROR,
}
REQUESTS = [v for v in ALL if v.meaning and v.frame[1] < 0x80]
REPLIES = [v for v in ALL if v.meaning and v.frame[1] >= 0x80]
BAD = [v for v in ALL if not v.meaning and v.reader == "client"]


def test_the_table_has_been_read() -> None:
    assert len(REQUESTS) > 10 and len(REPLIES) > 10 and len(BAD) > 10


# ---- requests


def written(vector: Vector) -> bytes:
    """Encodes a request from its meaning with the functions of the clients."""
    kind, number = vector.one("type"), int(vector.one("request_id"))
    if kind == "ping":
        return bytes(request.ping().encode(number))
    if kind == "status":
        return bytes(request.status().encode(number))
    if kind == "sync":
        return bytes(request.sync(int(vector.one("timeout_ms")) / 1000).encode(number))
    age = vector.one("max_age_ms")
    flags = vector.all("flags")[0].split() if kind == "verify" else []
    asked = wire.question(
        vector.one("source") or None,
        vector.all("all_scope"),
        vector.all("any_scope"),
        None,
        "claims" in flags,
        "metadata" in flags,
    )._replace(max_age_ms=wire.MAX_AGE_ANY if age == "any" else int(age))
    keys = [unescaped(key) for key in vector.all("key")]
    if kind == "why":
        return bytes(request.why(asked, *keys).encode(number))
    return bytes(request.verify(asked, keys).encode(number))


@pytest.mark.parametrize("vector", REQUESTS, ids=lambda vector: vector.name)
def test_a_request_is_written_as_the_table_says(vector: Vector) -> None:
    assert written(vector).hex(" ") == vector.frame.hex(" ")


# ---- replies


def read(octets: bytes) -> list[tuple[str, str]]:
    """Decodes a frame into its meaning. Raises WireError."""
    frame = wire.cut(bytearray(octets))
    if frame is None:
        return []
    kind = next(name for name, number in TYPES.items() if number == frame.type)
    meaning = [("type", kind), ("request_id", str(frame.request_id))]
    if kind == "verified":
        for answer in wire.decode_verified(frame.body):
            age = "unknown" if answer.age is None else str(round(answer.age * 1000))
            freshness = "fresh" if answer.fresh else "old"
            meaning.append(("answer", f"{answer.verdict} {freshness} {age}"))
            for name in CLAIMS:
                value = getattr(answer, name)
                if value is not None:
                    meaning.append((name, escaped(str(value))))
    elif kind == "error":
        name, text = wire.decode_error(frame.body)
        meaning += [("code", name), ("text", escaped(text))]
    elif kind == "synced":
        meaning.append(("waited_us", str(round(wire.decode_synced(frame.body) * 1e6))))
    elif kind == "pong":
        wire.decode_empty(frame.body)
    else:
        meaning.append(("json", escaped(wire.decode_text(frame.body))))
    return meaning


@pytest.mark.parametrize("vector", REPLIES, ids=lambda vector: vector.name)
def test_a_reply_means_what_the_table_says(vector: Vector) -> None:
    assert read(vector.frame) == vector.meaning


@pytest.mark.parametrize("vector", BAD, ids=lambda vector: vector.name)
def test_a_bad_reply_earns_the_error_of_the_table(vector: Vector) -> None:
    with pytest.raises(wire.WireError, match=f"^{vector.error}$"):
        read(vector.frame)


def of_length(octets: bytes) -> bytes:
    """Corrects the length field of a frame."""
    return octets[:4] + len(octets).to_bytes(4, "little") + octets[8:]


@pytest.mark.parametrize("vector", REPLIES, ids=lambda vector: vector.name)
def test_a_reply_cut_short_or_too_long_is_refused(vector: Vector) -> None:
    if vector.one("type") in ("status_reply", "why_reply"):
        return  # their text ends with their frame
    for length in range(wire.HEADER_BYTES, len(vector.frame)):
        with pytest.raises(wire.WireError, match="^truncated$"):
            read(of_length(vector.frame[:length]))
    with pytest.raises(wire.WireError, match="^trailing$"):
        read(of_length(vector.frame + b"\0"))


@pytest.mark.parametrize("vector", REPLIES, ids=lambda vector: vector.name)
def test_a_stream_that_stops_inside_a_frame_has_none_yet(vector: Vector) -> None:
    for length in range(len(vector.frame)):
        assert wire.cut(bytearray(vector.frame[:length])) is None
