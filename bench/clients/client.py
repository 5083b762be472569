"""The same as client.c for Python: the blocking client, or with --asyncio the asynchronous one."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from latchkey import AsyncClient, Client

AT_ONCE = 64


def waiting(mode: str, until: float, keys: list[str]) -> int:
    """Return the number of answers."""
    answers = 0
    with Client() as client:
        while time.monotonic() < until:
            if mode == "one":
                assert client.verify(keys[answers % len(keys)])
                answers += 1
            else:
                at = answers % (len(keys) - AT_ONCE)
                assert all(client.verify_many(keys[at : at + AT_ONCE]))
                answers += AT_ONCE
    return answers


async def with_tasks(mode: str, until: float, keys: list[str]) -> int:
    """Return the number of answers."""
    answers = 0

    async def ask(client: AsyncClient) -> None:
        nonlocal answers
        while time.monotonic() < until:
            assert await client.verify(keys[answers % len(keys)])
            answers += 1

    async with AsyncClient() as client:
        if mode != "batch":
            tasks = 1 if mode == "one" else AT_ONCE
            await asyncio.gather(*(ask(client) for _ in range(tasks)))
        while time.monotonic() < until:
            at = answers % (len(keys) - AT_ONCE)
            assert all(await client.verify_many(keys[at : at + AT_ONCE]))
            answers += AT_ONCE
    return answers


def main() -> None:
    """Run as described in client.c."""
    *options, mode, number = sys.argv[1:]
    seconds = float(number)
    keys = sys.stdin.read().split()
    started = time.monotonic()
    if options == ["--asyncio"]:
        answers = asyncio.run(with_tasks(mode, started + seconds, keys))
    else:
        answers = waiting(mode, started + seconds, keys)
    print(json.dumps({"answers": answers, "seconds": time.monotonic() - started}))


main()
