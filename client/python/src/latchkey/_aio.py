"""The asyncio client: all calls share one connection, pipelined."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from . import _request as request
from . import _wire as wire
from ._errors import ConnectionClosed, InvalidRequest, LatchkeyError, Refused, TimedOut
from ._socket import Backoff, RequestIds, connect, process, seconds, socket_path

T = TypeVar("T")

_READ_BYTES = 65536


@dataclass(slots=True)
class _Pending:
    question: request.Request[Any]
    request_id: int
    future: asyncio.Future[Any]


class _Stream:
    """One connection; replies come in the order of the requests. It does its own I/O: an asyncio
    transport may keep written bytes indefinitely, and keys must be wiped."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        self._pending: deque[_Pending] = deque()
        self._in, self._out = bytearray(), bytearray()
        self._ids = RequestIds()
        self._loop = loop
        self._process = process()
        self._socket = connect(path)
        self.usable = True
        loop.add_reader(self._socket, self._readable)

    def ask(self, question: request.Request[T]) -> asyncio.Future[T]:
        """Sends one request. If the returned future is cancelled, its reply is skipped."""
        request_id = self._ids.next()
        frame = question.encode(request_id)
        future: asyncio.Future[T] = self._loop.create_future()
        self._pending.append(_Pending(question, request_id, future))
        waits = bool(self._out)
        self._out += frame
        wire.wipe(frame)
        if not waits:
            self._writable()
        return future

    def end(self, error: LatchkeyError) -> None:
        """Closes the connection; all requests under way fail with `error`."""
        if self.usable:
            self.usable = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            wire.wipe(self._out)
        while self._pending:
            self._fail(self._pending.popleft().future, error)

    def abandon(self) -> None:
        """Closes the connection from outside its event loop. That loop may run in another thread,
        or run again later, and must remove the socket before it is closed; otherwise it would
        ignore the next socket with the same number. A forked child must not touch the loop, which
        also watches for its parent."""
        if self._process == process():
            error = ConnectionClosed("the client is used from another event loop")
            try:
                self._loop.call_soon_threadsafe(self.end, error)
                return
            except RuntimeError:
                pass  # its loop is closed
        self.usable = False
        self._socket.close()

    def expire(self, future: asyncio.Future[Any]) -> None:
        """Handles the deadline of one request. The connection ends with it, because all later
        requests would also wait for its reply. A reply that arrived while this process was delayed
        counts: a delayed loop runs its timers before it reads its sockets."""
        while not future.done() and self.usable and self._readable():
            pass
        if future.done():
            return
        self._fail(future, TimedOut("latchkeyd did not answer in time"))
        self.end(ConnectionClosed("given up: latchkeyd did not answer an earlier request in time"))

    @staticmethod
    def _fail(future: asyncio.Future[Any], error: LatchkeyError) -> None:
        if not future.done():
            future.set_exception(error)

    # ---- bytes

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(self._out)  # the reader finds the end, and perhaps the reason
        self._out[:sent] = bytes(sent)
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._socket, self._writable)
        else:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> bool:
        """Reads once. False: nothing to read."""
        try:
            part = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            self.end(ConnectionClosed("latchkeyd closed the connection before it answered"))
            return True
        self._in += part
        try:
            while self.usable and (frame := wire.cut(self._in)) is not None:
                self._reply(frame)
        except wire.WireError as error:
            self.end(request.not_latchkeyd(error))
        return True

    def _reply(self, frame: wire.Frame) -> None:
        if frame.type == wire.ERROR and frame.request_id == 0:
            # Concerns the connection, not a request.
            name, text = wire.decode_error(frame.body)
            self.end(Refused(name, text, unasked=True))
            return
        if not self._pending:
            raise wire.WireError("bad_type")
        pending = self._pending.popleft()
        try:
            value = pending.question.result(frame, pending.request_id)
            if not pending.future.done():
                pending.future.set_result(value)
        except Refused as error:
            self._fail(pending.future, error)
            if error.ends_connection:
                self.end(ConnectionClosed("latchkeyd closed after it refused another request"))
        except LatchkeyError as error:
            self._fail(pending.future, error)
            self.end(error)


class AsyncClient:
    """Asyncio client of one daemon, for the tasks of one event loop at a time.

    `path` and `timeout` (seconds) are those of Client. Cancelling a call does not affect other
    calls. When a deadline passes, the connection is closed; other calls that wait for it are
    retried. Every method raises a LatchkeyError if there is no answer.
    """

    #: Maximum number of requests under way; further ones wait.
    PENDING_MAX = 4096

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, timeout: float = 1.0
    ) -> None:
        self.path = socket_path(path)
        self.timeout = seconds(timeout)
        self._closed = False
        self._process = process()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream: _Stream | None = None
        self._backoff = Backoff()
        self._turns = asyncio.Semaphore(self.PENDING_MAX)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection; requests under way fail. The client cannot be used afterwards."""
        self._closed = True
        if self._loop is not asyncio.get_running_loop() or self._process != process():
            self._abandon()
        elif self._stream is not None and self._stream.usable:
            self._stream.end(ConnectionClosed("the client is closed"))

    # ---- requests

    async def verify(
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
        """See Client.verify."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, claims, metadata)
        answers = await self._ask(request.verify(asked, [wire.as_bytes(key)]), self.timeout)
        return answers[0]

    async def verify_many(
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
        """See Client.verify_many."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, claims, metadata)
        batches = wire.batches(asked, wire.keys_as_bytes(keys))
        deadline = asyncio.get_running_loop().time() + self.timeout
        answers: list[wire.Answer] = []
        for batch in batches:
            left = deadline - asyncio.get_running_loop().time()
            found = await self._ask(request.verify(asked, batch), left)
            answers += found
        return answers

    async def ping(self) -> None:
        """See Client.ping."""
        await self._ask(request.ping(), self.timeout)

    async def sync(self, timeout: float = 10.0) -> float:
        """See Client.sync. Uses a connection of its own, because later replies would wait for this
        one."""
        question = request.sync(timeout)
        alone = AsyncClient(self.path, timeout=self.timeout)
        try:
            return await alone._ask(question, self.timeout + timeout)
        finally:
            await alone.aclose()

    async def status(self) -> dict[str, Any]:
        """See Client.status."""
        return await self._ask(request.status(), self.timeout)

    async def why(
        self,
        key: str | bytes,
        *,
        source: str | None = None,
        all_scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        max_age: float | None = None,
    ) -> dict[str, Any]:
        """See Client.why."""
        asked = wire.question(source, all_scopes, any_scopes, max_age, False, False)
        return await self._ask(request.why(asked, wire.as_bytes(key)), self.timeout)

    # ---- retries until an answer or the deadline

    async def _ask(self, question: request.Request[T], timeout: float) -> T:
        loop = self._settle_here()
        deadline = loop.time() + timeout
        turns = self._turns
        await _acquire(turns, timeout)
        try:
            while True:
                try:
                    found = await self._ask_once(question, loop, deadline)
                    self._backoff.reset()
                    return found
                except LatchkeyError as error:
                    if not error.may_pass or self._closed:
                        raise
                    delay, left = self._backoff.next(), deadline - loop.time()
                    await asyncio.sleep(min(delay, left))
                    if delay >= left or self._loop is not loop:
                        raise  # another loop now owns the connection
        finally:
            turns.release()

    def _settle_here(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise InvalidRequest("the client is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop or self._process != process():
            # Two processes on one connection would take each other's answers, and futures of another loop
            # cannot be awaited in this one.
            self._turns = asyncio.Semaphore(self.PENDING_MAX)
            self._loop, self._process = loop, process()
            self._abandon()
        return loop

    def _abandon(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and stream.usable:
            stream.abandon()

    async def _ask_once(
        self, question: request.Request[T], loop: asyncio.AbstractEventLoop, deadline: float
    ) -> T:
        if self._stream is None or not self._stream.usable:
            self._stream = _Stream(self.path, loop)
        stream = self._stream
        future = stream.ask(question)
        timer = loop.call_at(deadline, stream.expire, future)
        try:
            return await future
        finally:
            timer.cancel()


async def _acquire(turns: asyncio.Semaphore, timeout: float) -> None:
    if not turns.locked():
        await turns.acquire()
        return
    try:
        await asyncio.wait_for(turns.acquire(), timeout)
    except asyncio.TimeoutError:
        raise TimedOut(f"{AsyncClient.PENDING_MAX} other requests were under way") from None
