"""The client that waits: for threads, and for programs without any."""

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
# So long a wait is endless to whoever waits, and settimeout() takes it.
_WAIT_MAX_S = 1e6


class _Connection:
    """One request and its reply at a time."""

    def __init__(self, path: str) -> None:
        self._socket = connect(path)
        self._buffer = bytearray()
        self._ids = RequestIds()
        self._process = process()

    @property
    def is_ours(self) -> bool:
        """Made by this process, and not by one that it was forked from."""
        return self._process == process()

    def close(self) -> None:
        self._socket.close()

    def ask(self, question: request.Request[T], deadline: float) -> T:
        """Raises Refused, and then may be used again, or another LatchkeyError."""
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
            pass  # perhaps it has said why

    def _receive(self, deadline: float) -> wire.Frame:
        while (reply := wire.cut(self._buffer)) is None:
            part = self._read(deadline)
            if not part:
                raise ConnectionResetError
            self._buffer += part
        if self._buffer:  # nothing more was asked
            raise wire.WireError("trailing")
        return reply

    def _read(self, deadline: float) -> bytes:
        try:
            self._allow_until(deadline)
            return self._socket.recv(_READ_BYTES)
        except socket.timeout:
            # What arrived while this process was held up counts.
            self._socket.setblocking(False)
            try:
                return self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                raise socket.timeout from None


class Client:
    """Asks one daemon. Any number of threads may share it; each call has a connection to itself,
    which is made when it is needed and kept for the next one. After a fork, the child's are new.

    `path` of the socket: $LATCHKEY_SOCKET if None, or else /run/latchkey/latchkey.sock.
    `timeout` in seconds covers a whole call: connecting, all retries and the reply. A call that a
    restart of the daemon, a full backlog or an overload made fail is tried again within it.
    Every method raises a LatchkeyError if there is no answer.
    """

    #: Connections that are kept open while nothing is asked. More are made when they are needed.
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
        """End all idle connections. The client cannot be used any more."""
        self._closed = True
        self._forget_idle()

    # ---- questions

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
        """May the holder of this key in? So it is if the answer is true.

        `all_scopes` must all be held and one at least of `any_scopes`; knowledge older than
        `max_age` seconds gives "unavailable"; `source` None means every one that this process may
        use; without `claims` the answer does not say whose key it is.
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
        """One answer to each key, in their order, in as few requests as possible. See verify()."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, claims, metadata)
        batches = wire.batches(asked, wire.keys_as_bytes(keys))
        deadline = self._deadline()
        answers: list[wire.Answer] = []
        for batch in batches:
            found = self._ask(request.verify(asked, batch), deadline)
            answers += found
        return answers

    def ping(self) -> None:
        """Returns once the daemon has answered."""
        self._ask(request.ping(), self._deadline())

    def sync(self, timeout: float = 10.0) -> float:
        """Returns once everything is in force that had committed before this call; the seconds
        that it took. Refused ("timed_out") if that cannot be proven within `timeout` seconds (at
        most 60), which is added to the client's own."""
        return self._ask(request.sync(timeout), self._deadline() + timeout)

    def status(self) -> dict[str, Any]:
        """How the daemon is: what `latchkey status --json` prints."""
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
        """The verdict on one key explained: what `latchkey why --json` prints."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, False, False)
        return self._ask(request.why(asked, wire.as_bytes(key)), self._deadline())

    # ---- asking until there is an answer, or the deadline has passed

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
                # What ended one connection has most likely ended all.
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
                # After a timeout, too: what comes late would pass for the next one's reply.
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
            connection.close()  # here; it goes on where it was made

    def _forget_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
