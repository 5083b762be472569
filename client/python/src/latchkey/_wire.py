"""Encodes requests and decodes replies (protocol/PROTOCOL.md). No sockets, no clock."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from ._errors import InvalidRequest

Verdict = Literal[
    "valid",
    "unknown",
    "malformed",
    "revoked",
    "disabled",
    "deleted",
    "expired",
    "not_yet_valid",
    "insufficient_scope",
    "forbidden",
    "unavailable",
]

VERSION: Final = 1
VERIFY, PING, STATUS, SYNC, WHY = 0x01, 0x02, 0x03, 0x04, 0x05
VERIFIED, PONG, STATUS_REPLY, SYNCED, WHY_REPLY, ERROR = 0x81, 0x82, 0x83, 0x84, 0x85, 0xFF

HEADER_BYTES: Final = 16
REQUEST_BYTES_MAX: Final = 65536
REPLY_BYTES_MAX: Final = 1050644
BATCH_KEYS_MAX: Final = 256
KEY_BYTES_MAX: Final = 4096
SOURCE_BYTES_MAX: Final = 63
SCOPES_MAX: Final = 32
SCOPE_BYTES_MAX: Final = 255
SYNC_TIMEOUT_MS_MAX: Final = 60000
MAX_AGE_ANY: Final = 0xFFFFFFFF
AGE_UNKNOWN: Final = 0xFFFFFFFF

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
REFUSALS: Final = (
    "none bad_version bad_type bad_length bad_reserved bad_flags bad_count bad_source bad_scope"
    " truncated trailing bad_timeout unknown_source not_allowed timed_out overloaded stopping"
    " no_reasons operation_not_allowed"
).split()

_SOURCE_CHARACTERS: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
)
_header: Final = struct.Struct("<BBHIQ")
_question: Final = struct.Struct("<HBBBBHI")
_answer: Final = struct.Struct("<BBHI")
_claim: Final = struct.Struct("<BH")
_TEXT_CLAIMS: Final = {1: "source", 2: "key_id", 3: "subject", 4: "tenant", 5: "scope", 7: "metadata"}
_EXPIRES: Final = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """The daemon's verdict and data on one key. True exactly if the holder is admitted."""

    verdict: Verdict
    #: True if no change is missing that committed longer ago than the daemon's bound.
    fresh: bool
    #: Seconds since the data was last proven complete; None: never, or no source asked.
    age: float | None
    # None if the key's row has no value or this process may not know it.
    source: str | None = None
    key_id: str | None = None
    subject: str | None = None
    tenant: str | None = None
    #: The key's scopes, separated by one space.
    scope: str | None = None
    metadata: str | None = None
    #: Seconds since 1970 UTC, rounded down.
    expires: int | None = None

    def __bool__(self) -> bool:
        return self.verdict == "valid"

    @property
    def scopes(self) -> frozenset[str]:
        """The key's scopes as a set; empty if it has none."""
        return frozenset(self.scope.split(" ")) if self.scope else frozenset()


class WireError(Exception):
    """Bytes that violate the protocol; the text names the rule."""


# ---- requests


def as_bytes(key: str | bytes) -> bytes:
    """Returns a presented key as bytes. Text decoded with surrogateescape becomes the original
    bytes.

    Raises InvalidRequest for other types: None, for example, is a missing header.
    """
    if not isinstance(key, (str, bytes)):
        raise InvalidRequest("a key is text or bytes")
    return _utf8(key, "a key", "surrogateescape") if isinstance(key, str) else key


def keys_as_bytes(keys: Iterable[str | bytes]) -> list[bytes]:
    """Converts several keys. Raises InvalidRequest for a single text, whose letters would be
    verified."""
    if isinstance(keys, (str, bytes)):
        raise InvalidRequest("a list of keys, not one")
    return [as_bytes(key) for key in keys]


def _utf8(text: str, what: str, errors: str = "strict") -> bytes:
    try:
        return text.encode("utf-8", errors)
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} that is no Unicode text") from None


class Question(NamedTuple):
    """The terms of a request, checked and encoded."""

    flags: int
    max_age_ms: int
    source: bytes
    all_count: int
    any_count: int
    scopes: bytes


def question(
    source: str | None,
    all_scopes: Iterable[str],
    any_scopes: Iterable[str],
    max_age: float | None,
    claims: bool,
    metadata: bool,
) -> Question:
    """Checks and encodes the terms. Raises InvalidRequest for terms on which the daemon would close
    the connection."""
    # An empty source is more likely an unset variable than a request for every source.
    if not isinstance(source, (str, type(None))):
        raise InvalidRequest("a source is a text")
    named = b"" if source is None else _utf8(source, "a source")
    in_range = source is None or 1 <= len(named) <= SOURCE_BYTES_MAX
    if not in_range or not _SOURCE_CHARACTERS.issuperset(named):
        raise InvalidRequest("a source has 1 to 63 characters out of A-Z a-z 0-9 _ - .")
    age_ms = MAX_AGE_ANY
    if max_age is not None:
        if not isinstance(max_age, (int, float)) or not max_age >= 0:
            raise InvalidRequest("a maximum age is a number of seconds, 0 or more")
        # Rounded down: refusing slightly too early is safer than admitting too late.
        age_ms = int(min(max_age * 1000, MAX_AGE_ANY - 1))
    all_count, all_bytes = _scopes(all_scopes)
    any_count, any_bytes = _scopes(any_scopes)
    return Question(
        flags=int(claims) | int(metadata) << 1,
        max_age_ms=age_ms,
        source=named,
        all_count=all_count,
        any_count=any_count,
        scopes=all_bytes + any_bytes,
    )


def _scopes(names: Iterable[str]) -> tuple[int, bytes]:
    if isinstance(names, str):
        raise InvalidRequest("a list of scopes, not one text")
    encoded = b""
    count = 0
    for name in names:
        if not isinstance(name, str):
            raise InvalidRequest("a scope is a text")
        octets = _utf8(name, "a scope")
        if not 1 <= len(octets) <= SCOPE_BYTES_MAX:
            raise InvalidRequest("a scope must have 1 to 255 bytes")
        if any(octet <= 0x20 or octet == 0x7F for octet in octets):
            raise InvalidRequest("a scope with a space or a control character")
        encoded += bytes((len(octets),)) + octets
        count += 1
    if count > SCOPES_MAX:
        raise InvalidRequest("more than 32 scopes in one list")
    return count, encoded


def encode(type_: int, request_id: int, body: bytes = b"") -> bytearray:
    """Encodes one frame."""
    return bytearray(_header.pack(VERSION, type_, 0, HEADER_BYTES + len(body), request_id) + body)


def _sent_length(key: bytes) -> int:
    # A key over the limit is malformed; one byte over the limit suffices to get this verdict.
    return min(len(key), KEY_BYTES_MAX + 1)


def batches(asked: Question, keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Divides the keys into as few requests as possible."""
    empty = HEADER_BYTES + _question.size + len(asked.source) + len(asked.scopes)
    start, size = 0, empty
    for i, key in enumerate(keys):
        more = 2 + _sent_length(key)
        if i - start == BATCH_KEYS_MAX or size + more > REQUEST_BYTES_MAX:
            yield keys[start:i]
            start, size = i, empty
        size += more
    if keys:
        yield keys[start:]


def encode_keys(type_: int, request_id: int, asked: Question, keys: Sequence[bytes]) -> bytearray:
    """Encodes a verify or why request for keys that fit into it."""
    frame = bytearray(HEADER_BYTES + _question.size)
    frame += asked.source
    frame += asked.scopes
    for key in keys:
        length = _sent_length(key)
        frame += length.to_bytes(2, "little")
        frame += key[:length]
    _header.pack_into(frame, 0, VERSION, type_, 0, len(frame), request_id)
    _question.pack_into(
        frame,
        HEADER_BYTES,
        asked.flags if type_ == VERIFY else 0,
        len(asked.source),
        asked.all_count,
        asked.any_count,
        0,
        len(keys),
        asked.max_age_ms,
    )
    return frame


def sync_timeout(seconds: float) -> bytes:
    """Encodes the body of a sync request."""
    timeout_ms = int(seconds * 1000) if 0 < seconds <= SYNC_TIMEOUT_MS_MAX else 0
    if not 1 <= timeout_ms <= SYNC_TIMEOUT_MS_MAX:
        raise InvalidRequest("a sync timeout is 0.001 to 60 seconds")
    return timeout_ms.to_bytes(4, "little")


# ---- replies


class Frame(NamedTuple):
    """One complete reply with an undecoded body."""

    type: int
    request_id: int
    body: bytes


def cut(buffer: bytearray) -> Frame | None:
    """Removes the first frame from `buffer`; None: incomplete. Raises WireError."""
    if len(buffer) < HEADER_BYTES:
        return None
    version, type_, reserved, length, request_id = _header.unpack_from(buffer)
    if version != VERSION:
        raise WireError("bad_version")
    if reserved != 0:
        raise WireError("bad_reserved")
    if not HEADER_BYTES <= length <= REPLY_BYTES_MAX:
        raise WireError("bad_length")
    if not (VERIFIED <= type_ <= WHY_REPLY or type_ == ERROR):
        raise WireError("bad_type")
    if len(buffer) < length:
        return None
    body = bytes(memoryview(buffer)[HEADER_BYTES:length])
    del buffer[:length]
    return Frame(type_, request_id, body)


def _text(octets: bytes) -> str:
    if 0 in octets:
        raise WireError("bad_length")
    # Databases may hold invalid UTF-8 (SQL_ASCII): the escaped form differs from every other text.
    return octets.decode("utf-8", "surrogateescape")


def decode_verified(body: bytes) -> list[Answer]:
    """Decodes the answers to a verify request. Raises WireError."""
    if len(body) < 4:
        raise WireError("truncated")
    count, reserved = struct.unpack_from("<HH", body)
    if reserved != 0:
        raise WireError("bad_reserved")
    if count > BATCH_KEYS_MAX:
        raise WireError("bad_count")
    answers = []
    at = 4
    for _ in range(count):
        if len(body) - at < _answer.size:
            raise WireError("truncated")
        verdict, flags, claims_length, age_ms = _answer.unpack_from(body, at)
        at += _answer.size
        end = at + claims_length
        if end > len(body):
            raise WireError("truncated")
        claims: dict[str, str | int] = _decode_claims(body, at, end) if claims_length else {}
        at = end
        if verdict >= len(VERDICTS) or flags > 1:
            # A newer daemon's verdict or flag has an unknown meaning: this key gets no answer.
            answers.append(Answer("unavailable", False, None))
            continue
        age = None if age_ms == AGE_UNKNOWN else age_ms / 1000
        # mypy cannot see that only "expires" is a number.
        answers.append(Answer(VERDICTS[verdict], flags == 1, age, **claims))  # type: ignore[arg-type]
    if at != len(body):
        raise WireError("trailing")
    return answers


def _decode_claims(body: bytes, at: int, end: int) -> dict[str, str | int]:
    claims: dict[str, str | int] = {}
    while at != end:
        if end - at < _claim.size:
            raise WireError("truncated")
        tag, length = _claim.unpack_from(body, at)
        at += _claim.size
        if end - at < length:
            raise WireError("truncated")
        name = _TEXT_CLAIMS.get(tag)
        if name is not None:
            claims[name] = _text(body[at : at + length])
        elif tag == _EXPIRES:
            if length != 8:
                raise WireError("bad_length")
            claims["expires"] = int.from_bytes(body[at : at + 8], "little", signed=True)
        # Unknown tags are claims of a newer daemon: skip them by their length.
        at += length
    return claims


def decode_empty(body: bytes) -> None:
    """Decodes a pong. Raises WireError."""
    if body:
        raise WireError("trailing")


def decode_synced(body: bytes) -> float:
    """Decodes the waiting time in seconds. Raises WireError."""
    if len(body) != 8:
        raise WireError("truncated" if len(body) < 8 else "trailing")
    return int.from_bytes(body, "little") / 1e6


def decode_text(body: bytes) -> str:
    """Decodes the JSON text of a status_reply or why_reply. Raises WireError."""
    return _text(body)


def decode_error(body: bytes) -> tuple[str, str]:
    """Decodes an error's name and text. Raises WireError."""
    if len(body) < 4:
        raise WireError("truncated")
    code, length = struct.unpack_from("<HH", body)
    if len(body) - 4 < length:
        raise WireError("truncated")
    text = _printable(_text(body[4 : 4 + length]))
    if len(body) - 4 > length:
        raise WireError("trailing")
    # A newer daemon may have more errors.
    return REFUSALS[code] if code < len(REFUSALS) else f"unknown_refusal_{code}", text


# Invisible characters that str.isprintable() accepts (Default_Ignorable_Code_Point).
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def _printable(text: str) -> str:
    # An impostor must not write lines into a log.
    return "".join(c if c.isprintable() and not _UNSEEN.match(c) else "?" for c in text)


def wipe(frame: bytearray) -> None:
    """Overwrites a sent frame, so that keys do not stay in memory."""
    frame[:] = bytes(len(frame))

