"""Tests of the middleware alone: where it finds a key, and how it handles each answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from latchkey import Answer, AsyncClient, InvalidRequest, TimedOut
from latchkey.asgi import LatchkeyMiddleware, SeveralCredentials, presented_key


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer a")], b"a"),
        ([(b"Authorization", b"bearer  a ")], b"a"),
        ([(b"x-api-key", b" b")], b"b"),
        ([(b"authorization", b"Basic eA=="), (b"x-api-key", b"b")], b"b"),
        ([(b"authorization", b"Bearer ")], None),
        ([(b"authorization", b"Bearer "), (b"x-api-key", b"b")], b"b"),
        ([(b"x-api-key", b" ")], None),
        ([], None),
        # HTTP's white space is only the space and the tab.
        ([(b"authorization", b"Bearer \t voil\xc3\xa0 \t")], b"voil\xc3\xa0"),
        ([(b"authorization", b"Bearer a\x0b")], b"a\x0b"),
        ([(b"x-api-key", b"\tb\x0c\t")], b"b\x0c"),
    ],
)
def test_where_a_key_is_presented(headers: list[tuple[bytes, bytes]], key: bytes | None) -> None:
    assert presented_key(headers) == key


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")],
        [(b"authorization", b"Bearer a"), (b"Authorization", b"Bearer a")],
        [(b"authorization", b"Basic eA=="), (b"authorization", b"Bearer b")],
        [(b"x-api-key", b"b"), (b"authorization", b"Bearer a")],
        [(b"x-api-key", b"a"), (b"X-Api-Key", b"b")],
    ],
)
def test_several_credentials_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(SeveralCredentials):
        presented_key(headers)
    start, body = asked("valid", headers=headers)
    assert start["status"] == 400
    assert json.loads(body["body"]) == {"error": "invalid_request"}
    assert asked("valid", "websocket", headers) == [{"type": "websocket.close", "code": 1008}]


def test_demands_last() -> None:
    """Required scopes do not depend on the iterable's type or on later changes to it."""
    told: list[Any] = []

    class Told(AsyncClient):
        async def verify(self, key: str | bytes, **terms: Any) -> Answer:
            told.append(tuple(terms["all_scopes"]))
            return Answer("insufficient_scope", True, 0.0)

    listed = ["admin"]
    for scopes in (listed, (scope for scope in ["admin"])):
        middleware = LatchkeyMiddleware(None, Told("/nowhere"), all_scopes=scopes)  # type: ignore[arg-type]
        for _ in range(3):
            key = {"type": "http", "headers": [(b"x-api-key", b"k")]}
            asyncio.run(middleware._refusal(key))  # type: ignore[arg-type]
            listed.clear()
    assert told == [("admin",)] * 6


@pytest.mark.parametrize(
    "paths", ["/health", "", b"/health", ["health"], [""], [b"/health"], [None], [["/"]]]
)
def test_public_paths_that_are_none_are_refused(paths: Any) -> None:
    """Each letter of a single text would be public, "/" among them."""
    with pytest.raises(InvalidRequest):
        LatchkeyMiddleware(None, Fixed("valid"), public_paths=paths)  # type: ignore[arg-type]


def test_a_public_path_needs_no_key() -> None:
    let_in = []

    async def application(scope: Any, *_: Any) -> None:
        let_in.append(scope["path"])

    async def send(_: Any) -> None:
        pass

    paths = ["/health", "/"]
    middleware = LatchkeyMiddleware(application, Fixed("valid"), public_paths=iter(paths))
    for path in ("/health", "/", "/healthy", "/health/", "h", ""):
        scope = {"type": "http", "path": path, "headers": []}
        asyncio.run(middleware(scope, None, send))  # type: ignore[arg-type]
    assert let_in == paths


def test_scopes_are_split_at_one_space() -> None:
    """Unicode has other white space characters, which a scope may contain."""
    scopes = Answer("valid", True, 0.0, scope="read\u00a0admin a\u2003b").scopes
    assert scopes == {"read\u00a0admin", "a\u2003b"}
    assert Answer("valid", True, 0.0, scope="").scopes == frozenset()
    assert Answer("valid", True, 0.0).scopes == frozenset()


class Fixed(AsyncClient):
    """A client that always gives one answer, or always fails."""

    def __init__(self, verdict: str | None) -> None:
        super().__init__("/nowhere")
        self._verdict: Any = verdict

    async def verify(self, key: str | bytes, **_: Any) -> Answer:
        if self._verdict is None:
            raise TimedOut("latchkeyd did not answer in time")
        return Answer(self._verdict, True, 0.0)


def asked(
    verdict: str | None,
    kind: str = "http",
    headers: Sequence[tuple[bytes, bytes]] = ((b"authorization", b"Bearer key"),),
) -> list[dict[str, Any]]:
    """Returns the messages of the middleware, or `{"let": "in"}` if the request passes."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is to be read")

    async def application(scope: Any, *_: Any) -> None:
        assert scope["latchkey"].verdict == "valid"
        sent.append({"let": "in"})

    scope = {"type": kind, "path": "/", "headers": headers}
    asyncio.run(LatchkeyMiddleware(application, Fixed(verdict))(scope, receive, send))
    return sent


def test_a_valid_key_is_let_in() -> None:
    assert asked("valid") == asked("valid", "websocket") == [{"let": "in"}]


@pytest.mark.parametrize(
    ("verdict", "status", "error", "header"),
    [
        ("insufficient_scope", 403, "insufficient_scope", b"www-authenticate"),
        ("revoked", 401, "invalid_token", b"www-authenticate"),
        ("unknown", 401, "invalid_token", b"www-authenticate"),
        ("unavailable", 503, "unavailable", b"retry-after"),
        ("forbidden", 503, "unavailable", b"retry-after"),
        (None, 503, "unavailable", b"retry-after"),
    ],
)
def test_all_else_is_refused(verdict: str | None, status: int, error: str, header: bytes) -> None:
    start, body = asked(verdict)
    assert start["status"] == status
    assert header in dict(start["headers"])
    assert json.loads(body["body"]) == {"error": error}
    assert asked(verdict, "websocket") == [{"type": "websocket.close", "code": 1008}]
