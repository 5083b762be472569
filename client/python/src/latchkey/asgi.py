"""Middleware for ASGI applications (FastAPI, Starlette, Quart, Django): every request needs a key.

    app.add_middleware(LatchkeyMiddleware, all_scopes=["read"])

The Answer is then in scope["latchkey"]; in FastAPI and Starlette that is request.scope["latchkey"].
Refusals are JSON with the status codes of RFC 6750 §3.1: 401 without a valid key, 403 if the key lacks
a scope, 503 if there is no answer, and 400 for several credentials in one request.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from ._aio import AsyncClient
from ._errors import InvalidRequest, LatchkeyError
from ._wire import Answer, question

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_log = logging.getLogger("latchkey")

# The white space of RFC 9110 §5.6.3. Other characters that strip() removes belong to a key.
_SPACES = b" \t"


class SeveralCredentials(ValueError):
    """A request presents more than one credential (RFC 6750 §2 forbids it): another component might
    use a different one than this middleware."""


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Returns the key in `Authorization: Bearer KEY` or in `X-API-Key: KEY`, or None if there is
    neither. Raises SeveralCredentials if a header occurs twice or both contain a key."""
    authorizations, keys = [], []
    for name, value in headers:
        if name.lower() == b"authorization":
            authorizations.append(value)
            if value[:7].lower() == b"bearer " and value[7:].strip(_SPACES):
                keys.append(value[7:].strip(_SPACES))
        elif name.lower() == b"x-api-key" and value.strip(_SPACES):
            keys.append(value.strip(_SPACES))
    if len(authorizations) > 1 or len(keys) > 1:
        raise SeveralCredentials
    return keys[0] if keys else None


class LatchkeyMiddleware:
    """Passes HTTP requests and WebSockets whose key is valid and holds the scopes."""

    def __init__(
        self,
        app: _App,
        client: AsyncClient | None = None,
        *,
        all_scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        source: str | None = None,
        max_age: float | None = None,
        public_paths: Iterable[str] = (),
    ) -> None:
        """`public_paths` need no key: complete paths, as in scope["path"]. The other arguments are
        those of Client.verify (`max_age` in seconds). `client` None creates an AsyncClient with
        default path and timeout. Raises InvalidRequest if an argument is invalid."""
        self._app = app
        self._client = client or AsyncClient()
        # Copies: a generator would be empty on the second use, and a list may be changed.
        self._terms: dict[str, Any] = {
            "all_scopes": _copied(all_scopes),
            "any_scopes": _copied(any_scopes),
            "source": source,
            "max_age": max_age,
        }
        self._public = _paths(public_paths)
        # Reports invalid arguments when the program starts, not at each request.
        question(**self._terms, claims=True, metadata=False)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan" or scope.get("path") in self._public:
            await self._app(scope, receive, send)
            return
        refusal = await self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            # Closed before acceptance; the server turns this into a 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _reply(send, *refusal)

    async def _refusal(self, scope: _Scope) -> tuple[int, str, bytes] | None:
        """Returns status, error and a header's value; None if the request may pass."""
        try:
            key = presented_key(scope["headers"])
        except SeveralCredentials:
            return 400, "invalid_request", b'Bearer error="invalid_request"'
        if key is None:
            return 401, "missing_key", b"Bearer"
        try:
            answer = await self._client.verify(key, **self._terms)
        except LatchkeyError as error:
            _log.error("no answer (%s): %s", error.failure, error)
            return 503, "unavailable", b"1"
        scope["latchkey"] = answer
        return _judge(answer)


def _copied(scopes: Iterable[str]) -> Iterable[str]:
    return scopes if isinstance(scopes, str) else tuple(scopes)  # question() refuses a single text


def _paths(paths: Iterable[str]) -> frozenset[str]:
    # Iterating a single text would make each of its letters a public path, "/" among them.
    if isinstance(paths, (str, bytes)):
        raise InvalidRequest("a list of public paths, not one text")
    found = tuple(paths)
    if not all(isinstance(path, str) and path.startswith("/") for path in found):
        raise InvalidRequest('a public path is a text that begins with "/"')
    return frozenset(found)


def _judge(answer: Answer) -> tuple[int, str, bytes] | None:
    if answer:
        return None
    if answer.verdict == "insufficient_scope":
        return 403, "insufficient_scope", b'Bearer error="insufficient_scope"'
    if answer.verdict in ("unavailable", "forbidden"):
        # A problem of this service: the holder of the key must not conclude that the key is bad.
        _log.error("no answer: latchkeyd says %s", answer.verdict)
        return 503, "unavailable", b"1"
    # Do not reveal the reason to the holder.
    return 401, "invalid_token", b'Bearer error="invalid_token"'


async def _reply(send: _Send, status: int, error: str, value: bytes) -> None:
    body = json.dumps({"error": error}).encode()
    name = b"retry-after" if status == 503 else b"www-authenticate"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (name, value),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
