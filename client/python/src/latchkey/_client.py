"""The blocking client, for programs with or without threads."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TypeVar

from . import _request as request
from . import _wire as wire
from ._errors import ConnectionClosed, InvalidRequest, LatchkeyError, Refused, TimedOut
from ._socket import Backoff, RequestIds, connect, process, seconds, socket_path

T = TypeVar("T")

_READ_BYTES = 65536
# Effectively unlimited, and within the range of settimeout().
_WAIT_MAX_S = 1e6


class _Connection:
    """A connection with one request under way at a time."""

    def __init__(self, path: str) -> None:
        self._socket = connect(path)
        self._buffer = bytearray()
        self._ids = RequestIds()
        self._process = process()

    @property
    def is_ours(self) -> bool:
        """True if this process made the connection; False if it was inherited by a fork."""
        return self._process == process()

    def close(self) -> None:
        self._socket.close()

    def ask(self, question: request.Request[T], deadline: float) -> T:
        """Sends one request and returns its result. Raises Refused, after which the connection may
        still be usable, or another LatchkeyError."""
        request_id = self._ids.next()
        return question.result(self._exchange(question.encode(request_id), deadline), request_id)

    def _exchange(self, frame: bytearray, deadline: float) -> wire.Frame:
        try:
            self._send(frame, deadline)
            return self._receive(deadline)
        except wire.WireError as error:
            raise request.not_latchkeyd(error) from None
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionClosed("latchkeyd closed the connection before it answered") from None
        except socket.timeout:
            raise TimedOut("latchkeyd did not answer in time") from None
        except OSError as error:
            raise ConnectionClosed(f"the connection failed: {error.strerror}") from None
        finally:
            wire.wipe(frame)

    def _allow_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self._socket.settimeout(min(left, _WAIT_MAX_S))

    def _send(self, frame: bytearray, deadline: float) -> None:
        self._allow_until(deadline)
        try:
            self._socket.sendall(frame)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon may have sent the reason

    def _receive(self, deadline: float) -> wire.Frame:
        while (reply := wire.cut(self._buffer)) is None:
            part = self._read(deadline)
            if not part:
                raise ConnectionResetError
            self._buffer += part
        if self._buffer:  # no other request is under way
            raise wire.WireError("trailing")
        return reply

    def _read(self, deadline: float) -> bytes:
        try:
            self._allow_until(deadline)
            return self._socket.recv(_READ_BYTES)
        except socket.timeout:
            # A reply that arrived while this process was delayed counts.
            self._socket.setblocking(False)
            try:
                return self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                raise socket.timeout from None


class Client:
    """Blocking client of one daemon, for any number of threads. Each call uses a connection of its
    own; connections are made when needed and kept for later calls. After a fork, the child uses new
    connections.

    `path` is the socket's path; None selects $LATCHKEY_SOCKET, or else /run/latchkey/latchkey.sock.
    `timeout` is in seconds and covers a whole call: connecting, all retries and the reply. Within
    it, calls that fail because of a restart of the daemon, a full backlog or an overload are
    retried.

    Every method raises a LatchkeyError if there is no answer. An invalid path or timeout raises
    InvalidRequest.
    """

    #: Maximum number of idle connections that are kept open. It does not limit connections in use.
    IDLE_MAX = 16

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, timeout: float = 1.0
    ) -> None:
        self.path = socket_path(path)
        self.timeout = seconds(timeout)
        self._idle: list[_Connection] = []  # append and pop are atomic
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all idle connections. The client cannot be used afterwards."""
        self._closed = True
        self._forget_idle()

    # ---- requests

    def verify(
        self,
        key: str | bytes,
        *,
        source: str | None = None,
        all_scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        max_age: float | None = None,
        claims: bool = True,
        metadata: bool = False,
    ) -> wire.Answer:
        """Verifies one key and returns its Answer, which is true if the holder is admitted.

        The key must hold all of `all_scopes` and at least one of `any_scopes` (if given). If the
        data is older than `max_age` seconds, the verdict is "unavailable"; None accepts any age.
        `source` None selects every source that this process may use. Without `claims`, the answer
        does not identify the key's owner; `metadata` adds the row's metadata.

        Raises InvalidRequest for arguments that the protocol does not permit, and another
        LatchkeyError if there is no answer.
        """
        asked = wire.question(source, all_scopes, any_scopes, max_age, claims, metadata)
        answers = self._ask(request.verify(asked, [wire.as_bytes(key)]), self._deadline())
        return answers[0]

    def verify_many(
        self,
        keys: Iterable[str | bytes],
        *,
        source: str | None = None,
        all_scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        max_age: float | None = None,
        claims: bool = True,
        metadata: bool = False,
    ) -> list[wire.Answer]:
        """Returns one Answer per key, in the order of the keys, in as few requests as possible. The
        timeout covers all of them. See verify() for arguments and errors."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, claims, metadata)
        batches = wire.batches(asked, wire.keys_as_bytes(keys))
        deadline = self._deadline()
        answers: list[wire.Answer] = []
        for batch in batches:
            found = self._ask(request.verify(asked, batch), deadline)
            answers += found
        return answers

    def ping(self) -> None:
        """Returns once the daemon has answered. Raises a LatchkeyError otherwise."""
        self._ask(request.ping(), self._deadline())

    def sync(self, timeout: float = 10.0) -> float:
        """Returns once every change that committed before this call is in force; the result is
        the waiting time in seconds. Raises Refused with the refusal "timed_out" if this cannot
        be proven within `timeout` seconds (0.001 to 60), which are added to the client's own
        timeout."""
        return self._ask(request.sync(timeout), self._deadline() + timeout)

    def status(self) -> dict[str, Any]:
        """Returns the daemon's status, the JSON object that `latchkey status --json` prints."""
        return self._ask(request.status(), self._deadline())

    def why(
        self,
        key: str | bytes,
        *,
        source: str | None = None,
        all_scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        max_age: float | None = None,
    ) -> dict[str, Any]:
        """Explains the verdict on one key: returns the JSON object that `latchkey why --json`
        prints. See verify() for arguments. Raises Refused with the refusal "no_reasons" if this
        process may not know reasons."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, False, False)
        return self._ask(request.why(asked, wire.as_bytes(key)), self._deadline())

    # ---- retries until an answer or the deadline

    def _deadline(self) -> float:
        return time.monotonic() + self.timeout

    def _ask(self, question: request.Request[T], deadline: float) -> T:
        backoff = Backoff()
        while True:
            try:
                return self._ask_once(question, deadline)
            except LatchkeyError as error:
                if not error.may_pass:
                    raise
                # An event that ended one connection has most likely ended all.
                self._forget_idle()
                delay, left = backoff.next(), deadline - time.monotonic()
                time.sleep(max(min(delay, left), 0))
                if delay >= left:
                    raise

    def _ask_once(self, question: request.Request[T], deadline: float) -> T:
        connection = self._take()
        reusable = False
        try:
            found = connection.ask(question, deadline)
            reusable = True
            return found
        except Refused as refusal:
            reusable = not refusal.ends_connection
            raise
        finally:
            if reusable and len(self._idle) < self.IDLE_MAX and not self._closed:
                self._idle.append(connection)
            else:
                # Also after a timeout: a late reply would be taken for the next request's.
                connection.close()

    def _take(self) -> _Connection:
        if self._closed:
            raise InvalidRequest("the client is closed")
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return _Connection(self.path)
            if connection.is_ours:
                return connection
            connection.close()  # closes this process's copy only; the parent keeps its connection

    def _forget_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
