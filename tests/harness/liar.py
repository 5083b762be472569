"""A PostgreSQL that lies: a proxy before a real server that falsifies chosen answers.

`with LyingServer(target) as liar:` listens on a Unix socket that libpq finds in `liar.folder`. It
holds back each answer (PostgreSQL manual, "Message Flow": all messages up to ReadyForQuery) until it
is complete. `liar.tell(kind, lie)` falsifies the next answer to a statement of that kind, once. LIES
holds one function for each way in which an answer can be wrong; each takes its randomness from the
given `random.Random`.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .folder import TemporaryFolder

Answer = list[bytes]
Lie = Callable[[Answer, random.Random], Answer]

# The purpose of a daemon's statement, recognized by a part of its text; the first match counts.
_KINDS = (
    ("preparation", "PREPARE "),
    ("listen", "LISTEN "),
    ("settings", "idle_session_timeout"),
    ("rights", "has_function_privilege"),
    ("identity", "pg_walfile_name"),
    ("look-up", "json_build_object"),
    ("heartbeat", "json_agg(v.version"),
    ("notify", "pg_notify"),
    ("digest of rows", "COPY (SELECT h.id"),
    ("load", "COPY "),
    ("digest", "sum(h.hash)"),
    ("last use", "written"),
    ("rows", "ANY ("),
    ("time zone", "timezone("),
)
KINDS = ("startup", *(kind for kind, _ in _KINDS))


def kind_of(statement: str) -> str:
    """One of KINDS, or "other"."""
    return next((kind for kind, part in _KINDS if part in statement), "other")


# ---- messages


def message(kind: str, body: bytes = b"") -> bytes:
    """A message of the server."""
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def _is(one: bytes, kinds: str) -> bool:
    return chr(one[0]) in kinds


def _without(answer: Answer, kinds: str) -> Answer:
    return [one for one in answer if not _is(one, kinds)]


def _fields(row: bytes) -> list[bytes | None]:
    (count,) = struct.unpack_from("!h", row, 5)
    found: list[bytes | None] = []
    at = 7
    for _ in range(count):
        (length,) = struct.unpack_from("!i", row, at)
        at += 4
        found.append(None if length < 0 else row[at : at + length])
        at += max(0, length)
    return found


def _row(fields: list[bytes | None]) -> bytes:
    body = struct.pack("!h", len(fields))
    for one in fields:
        body += struct.pack("!i", -1) if one is None else struct.pack("!i", len(one)) + one
    return message("D", body)


def _columns(description: bytes) -> list[tuple[bytes, bytes]]:
    (count,) = struct.unpack_from("!h", description, 5)
    found, at = [], 7
    for _ in range(count):
        end = description.index(b"\0", at) + 1
        found.append((description[at:end], description[end : end + 18]))
        at = end + 18
    return found


def _description(columns: list[tuple[bytes, bytes]]) -> bytes:
    return message("T", struct.pack("!h", len(columns)) + b"".join(n + f for n, f in columns))


def _each(
    answer: Answer,
    *,
    row: Callable[[list[bytes | None]], list[bytes | None]] = lambda fields: fields,
    columns: Callable[[list[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]] = lambda all_: all_,
) -> Answer:
    changed = []
    for one in answer:
        if _is(one, "D"):
            one = _row(row(_fields(one)))
        elif _is(one, "T"):
            one = _description(columns(_columns(one)))
        changed.append(one)
    return changed


def _one_field(change: Callable[[bytes, random.Random], bytes | None]) -> Lie:
    def lie(answer: Answer, rng: random.Random) -> Answer:
        def row(fields: list[bytes | None]) -> list[bytes | None]:
            if fields:
                at = rng.randrange(len(fields))
                fields[at] = change(fields[at] or b"", rng)
            return fields

        return _each(answer, row=row)

    return lie


def _some_bytes(rng: random.Random, most: int = 40) -> bytes:
    # Never the letter of an active row: that would be a well-formed lie instead of a broken answer.
    return rng.randbytes(rng.randrange(most)).replace(b"a", b"b")


def _first(answer: Answer, kinds: str, new: list[bytes]) -> Answer:
    """Inserted before the first message of these kinds, or at the end."""
    at = next((i for i, one in enumerate(answer) if _is(one, kinds)), max(0, len(answer) - 1))
    return [*answer[:at], *new, *answer[at:]]


def _type(answer: Answer, rng: random.Random) -> Answer:
    return _each(answer, columns=lambda all_: [
        (name, facts[:6] + struct.pack("!i", rng.choice([16, 20, 25, 705, 1184, 99999])) + facts[10:])
        for name, facts in all_
    ])  # fmt: skip


def _format(answer: Answer, _: random.Random) -> Answer:
    return _each(answer, columns=lambda all_: [
        (name, facts[:16] + struct.pack("!h", 1 - struct.unpack("!h", facts[16:])[0]))
        for name, facts in all_
    ])  # fmt: skip


def _flip(answer: Answer, rng: random.Random) -> Answer:
    changed = [bytearray(one) for one in answer]
    for _ in range(rng.randrange(1, 8)):
        one = rng.choice(changed)
        if len(one) > 5 and not _is(bytes(one), "dD"):  # for rows, `random field` does this
            one[rng.randrange(5, len(one))] ^= 1 << rng.randrange(8)
    return [bytes(one) for one in changed]


def _notification(payload: bytes) -> bytes:
    return message("A", struct.pack("!i", 1) + b"latchkey\0" + payload + b"\0")


def _flood(answer: Answer, rng: random.Random) -> Answer:
    odd = [b"", b"{", b"[" * 7000, b'{"t":1}', b'{"t":"public.t","ids":{}}', b'{"t":"public.t","ids":[1]}',
           b'{"t":"public.t","all":"yes"}', b"\xff\xfe", b'{"t":"public.t","ids":["\\ud800"]}',
           b'{"t":"public.t","ids":["9999999999999999999999","x","-1"]}', b'{"t":"\xc2\x9b31m"}']  # fmt: skip
    return [*(_notification(rng.choice(odd)) for _ in range(1000)), *answer]


def _errors(answer: Answer, rng: random.Random) -> Answer:
    body = rng.choice([b"\0", b"", b"M", b"Mno end", b"\xff\xff\0\0", b"SERROR\0", b"C\0M\0\0",
                       b"VFATAL\0C57P01\0Mgone\x9b\x1b[2J\0\0", b"M" + b"x" * 20000 + b"\0\0"])  # fmt: skip
    return [message("E", body), *(one for one in answer if _is(one, "Z"))]


def _copy_out(answer: Answer, rng: random.Random) -> Answer:
    data = [message("d", _some_bytes(rng)) for _ in range(rng.randrange(3))]
    return [message("H", struct.pack("!bhh", 1, 1, 1)), *data, message("c"), message("C", b"COPY 1\0"),
            *(one for one in answer if _is(one, "Z"))]  # fmt: skip


def _rows(answer: Answer, rng: random.Random) -> Answer:
    column = (b"a\0", struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
    return [_description([column]), *(_row([_some_bytes(rng)]) for _ in range(rng.randrange(3))),
            message("C", b"SELECT 1\0"), *(one for one in answer if _is(one, "Z"))]  # fmt: skip


def _copy_cut(answer: Answer, rng: random.Random) -> Answer:
    data = [i for i, one in enumerate(answer) if _is(one, "d")]
    if not data:
        return _rows(answer, rng)
    cut = rng.choice(data)
    return [one for i, one in enumerate(answer) if not (_is(one, "d") and i >= cut)]


def _copy_torn(answer: Answer, rng: random.Random) -> Answer:
    return [message("d", one[5 : rng.randrange(5, len(one))]) if _is(one, "d") else one for one in answer]


LIES: dict[str, Lie] = {
    "no row": lambda answer, _: _without(answer, "D"),
    "only done": lambda answer, _: _without(answer, "TDHdc"),
    "nothing": lambda answer, _: [one for one in answer if _is(one, "Z")],
    "empty query": lambda answer, _: [message("I"), *(one for one in answer if _is(one, "Z"))],
    "NULL": _one_field(lambda *_: None),
    "all NULL": lambda answer, _: _each(answer, row=lambda fields: [None] * len(fields)),
    "a column less": lambda answer, _: _each(answer, row=lambda f: f[:-1], columns=lambda c: c[:-1]),
    "no column": lambda answer, _: _each(answer, row=lambda _: [], columns=lambda _: []),
    "a field less": lambda answer, _: _each(answer, row=lambda fields: fields[:-1]),
    "a column more": lambda answer, _: _each(answer, row=lambda f: [*f, b"x"], columns=lambda c: c + c[:1]),
    "a field more": lambda answer, _: _each(answer, row=lambda fields: [*fields, b"x"]),
    "other type": _type,
    "other format": _format,
    "random field": _one_field(lambda _, rng: _some_bytes(rng)),
    "empty field": _one_field(lambda *_: b""),
    "short field": _one_field(lambda old, _: old[:-1]),
    "long field": _one_field(lambda old, rng: old + b"\0" + _some_bytes(rng)),
    "deep JSON": _one_field(lambda *_: b"[" * 100_000),
    "other JSON": _one_field(lambda _, rng: rng.choice([b"{}", b"[]", b"null", b"0", b'"x"', b"[1]", b"[[]]",
                                                        b'{"is_table":1}', b"[null,null,null]", b"1e999"])),
    "rows twice": lambda answer, _: [o for one in answer for o in ([one] * (2 if _is(one, "D") else 1))],
    "answer twice": lambda answer, _: [*_without(answer, "Z"), *answer],
    "an end before": lambda answer, _: [message("Z", b"I"), *answer],
    "COPY": _copy_out,
    "COPY IN": lambda answer, _: [message("G", struct.pack("!bh", 1, 0)), *answer],
    "COPY BOTH": lambda answer, _: [message("W", struct.pack("!bh", 1, 0)), *answer],
    "rows": _rows,
    "COPY without end": _copy_cut,
    "torn COPY": _copy_torn,
    "empty COPY": lambda answer, _: _without(answer, "d"),
    "huge message": lambda answer, _: [b"D" + struct.pack("!i", 0x7FFFFFFF) + b"x", *answer],
    "huge field": lambda answer, _: _first(answer, "DC", [message("D", struct.pack("!hi", 1, 0x7FFFFFF0))]),
    "negative field": lambda answer, _: _first(answer, "DC", [message("D", struct.pack("!hi", 1, -2))]),
    "many fields": lambda answer, _: _first(answer, "DC", [message("D", struct.pack("!h", -1))]),
    "no such message": lambda answer, _: _first(answer, "TDC", [message("~", b"what?")]),
    "odd errors": _errors,
    "flood": _flood,
    "bits flipped": _flip,
}  # fmt: skip


# ---- connections


class LyingServer:
    """A lying server (see the module). `target` is the real server's socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._folder = TemporaryFolder()
        self.folder = self._folder.path
        self._lock = threading.Lock()
        self._armed: tuple[str, Lie, random.Random] | None = None
        self._always = False
        self._told = 0
        self._open: set[socket.socket] = set()
        path = self.folder / target.name
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        os.chmod(path, 0o777)  # the client may run as another user
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="lying server", daemon=True).start()

    def __enter__(self) -> LyingServer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._folder.close()

    def tell(self, kind: str, lie: Lie, rng: random.Random, *, always: bool = False) -> None:
        """Falsify the next answer to a statement of this kind, or with `always` all until `honest()`."""
        with self._lock:
            self._armed = (kind, lie, rng)
            self._always = always

    @property
    def told(self) -> int:
        """The number of falsified answers sent."""
        with self._lock:
            return self._told

    def cut(self) -> None:
        """End all connections; an armed lie stays armed."""
        with self._lock:
            for opened in self._open:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    def honest(self) -> None:
        """Stop falsifying answers."""
        with self._lock:
            self._armed = None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(str(self._target))
            except OSError:
                client.close()
                server.close()
                continue
            with self._lock:
                self._open |= {client, server}
            asked: deque[str] = deque(["startup"])
            ends = threading.Barrier(2)
            for serve in (self._listen_to_client, self._answer):
                threading.Thread(
                    target=self._one_way, args=(serve, client, server, asked, ends), daemon=True
                ).start()

    def _one_way(self, serve, client, server, asked, ends) -> None:  # type: ignore[no-untyped-def]
        with contextlib.suppress(OSError, EOFError):
            serve(client, server, asked)
        for opened in (client, server):
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
        if ends.wait() == 0:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _listen_to_client(self, client: socket.socket, server: socket.socket, asked: deque[str]) -> None:
        head = _exactly(client, 4)
        server.sendall(head + _exactly(client, struct.unpack("!i", head)[0] - 4))
        statement = ""
        prepared: dict[bytes, str] = {}
        while True:
            one = _message(client)
            if _is(one, "Q"):
                statement = _text(one[5:])
            elif _is(one, "P"):
                name, _, rest = one[5:].partition(b"\0")
                prepared[name] = statement = _text(rest)
                if name:
                    statement = f"PREPARE {name.decode()}"
            elif _is(one, "B"):
                statement = prepared[one[5:].split(b"\0", 2)[1]]
            if _is(one, "QS"):
                asked.append(kind_of(statement))
            server.sendall(one)

    def _answer(self, client: socket.socket, server: socket.socket, asked: deque[str]) -> None:
        answer: Answer = []
        while True:
            one = _message(server)
            if not asked:
                client.sendall(one)  # unasked: a notification, or the end
                continue
            answer.append(one)
            if _is(one, "Z"):
                lie, falsified = self._falsified(asked.popleft(), answer)
                client.sendall(b"".join(falsified))
                with self._lock:
                    self._told += lie
                answer = []
            elif _is(one, "R") and one[5:9] != bytes(4):  # the server wants a password first
                client.sendall(one)
                answer.pop()

    def _falsified(self, kind: str, answer: Answer) -> tuple[bool, Answer]:
        with self._lock:
            if self._armed is None or self._armed[0] != kind:
                return False, answer
            _, lie, rng = self._armed
            if not self._always:
                self._armed = None
        return True, lie(answer, rng)


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode(errors="replace")


def _exactly(source: socket.socket, size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        part = source.recv(size - len(taken))
        if not part:
            raise EOFError
        taken += part
    return bytes(taken)


def _message(source: socket.socket) -> bytes:
    head = _exactly(source, 5)
    return head + _exactly(source, struct.unpack("!i", head[1:])[0] - 4)
