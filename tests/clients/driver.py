"""The Python counterpart of driver.c; with --asyncio for AsyncClient."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import latchkey


def terms(words: list[str]) -> dict[str, Any]:
    """max age, source, all scopes, any scopes; `-` means none."""
    max_age, source, all_scopes, any_scopes = words
    return {
        "max_age": None if max_age == "any" else int(max_age) / 1000,
        "source": None if source == "-" else source,
        "all_scopes": [] if all_scopes == "-" else all_scopes.split(","),
        "any_scopes": [] if any_scopes == "-" else any_scopes.split(","),
    }


def told(answer: latchkey.Answer) -> dict[str, Any]:
    """An answer as all drivers print it."""
    age_ms = None if answer.age is None else round(answer.age * 1000)
    facts = {
        "verdict": answer.verdict,
        "fresh": answer.fresh,
        "age_ms": age_ms,
        "source": answer.source,
        "key_id": answer.key_id,
        "sub": answer.subject,
        "tenant": answer.tenant,
        "scope": answer.scope,
        "exp": answer.expires,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def call(client: Any, words: list[str]) -> tuple[Any, Callable[[Any], dict[str, Any]]]:
    """The client's call for a command, and the function that formats its result."""
    command, timeout_ms, *rest = words
    client.timeout = int(timeout_ms) / 1000
    if command == "ping":
        return client.ping, lambda _: {}
    if command == "status":
        return client.status, lambda value: {"json": value}
    if command == "sync":
        seconds = int(rest[0]) / 1000
        return lambda: client.sync(seconds), lambda waited: {"waited_us": round(waited * 1e6)}
    about, keys = terms(rest[:4]), rest[4:]
    if command == "why":
        return lambda: client.why(keys[0], **about), lambda value: {"json": value}
    if len(keys) == 1:
        return lambda: client.verify(keys[0], **about), lambda one: {"answers": [told(one)]}
    return (
        lambda: client.verify_many(keys, **about),
        lambda answers: {"answers": [told(answer) for answer in answers]},
    )


def failed(error: latchkey.LatchkeyError) -> dict[str, Any]:
    """A failure as all drivers print it."""
    told_ = {"failure": error.failure, "text": str(error)}
    if isinstance(error, latchkey.Refused):
        told_["refusal"] = error.refusal
    return told_


def main() -> None:
    """The loop of the blocking client."""
    client = latchkey.Client()
    for line in sys.stdin:
        try:
            ask, printed = call(client, line.rstrip("\n").split("\t"))
            result = printed(ask())
        except latchkey.LatchkeyError as error:
            result = failed(error)
        print(json.dumps(result), flush=True)
    client.close()


async def main_asyncio() -> None:
    """The loop of the asyncio client."""
    loop = asyncio.get_running_loop()
    async with latchkey.AsyncClient() as client:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                ask, printed = call(client, line.rstrip("\n").split("\t"))
                asked: Awaitable[Any] = ask()
                result = printed(await asked)
            except latchkey.LatchkeyError as error:
                result = failed(error)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--asyncio"]:
        asyncio.run(main_asyncio())
    else:
        main()
