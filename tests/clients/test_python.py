"""Features of the Python client alone: threads, forks, tasks, installation."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake import Fake, answering, read_request, verified
from harness.programs import REPOSITORY
from harness.wait import scaled
from latchkey import AsyncClient, Client, ConnectionClosed, InvalidRequest, LatchkeyError, TimedOut
from latchkey._client import _Connection
from latchkey._socket import process
from latchkey.asgi import LatchkeyMiddleware
from served import Here

VERDICT_OF = {"key_valid": "valid", "key_revoked": "revoked", "key_expired": "expired"}


def test_threads_share_a_client(here: Here) -> None:
    wrong: list[str] = []

    def ask(client: Client, key: str) -> None:
        for _ in range(200):
            found = client.verify(key).verdict
            if found != VERDICT_OF[key]:
                wrong.append(f"{key}: {found}")

    with Client(here.keys.socket, timeout=30) as client:
        threads = [
            threading.Thread(target=ask, args=(client, key)) for key in [*VERDICT_OF] * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(60))
    assert not wrong


def test_after_a_fork_the_child_has_a_connection_of_its_own(here: Here) -> None:
    client = Client(here.keys.socket, timeout=30)
    assert client.verify("key_valid")
    child = os.fork()
    if child == 0:
        try:
            right = all(client.verify("key_revoked").verdict == "revoked" for _ in range(500))
            os._exit(0 if right else 1)
        except BaseException:
            os._exit(2)
    for _ in range(500):
        assert client.verify("key_valid")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    client.close()


def test_threads_of_a_child_take_no_connection_of_its_parent(here: Here) -> None:
    """As with gunicorn --preload: each worker's threads find the parent's idle connections."""

    def wrong_answers(client: Client) -> int:
        wrong = []

        def ask(key: str) -> None:
            wrong.extend(
                key for _ in range(100) if client.verify(key).verdict != VERDICT_OF[key]
            )

        threads = [threading.Thread(target=ask, args=(key,)) for key in [*VERDICT_OF] * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(scaled(60))
        return len(wrong)

    with Client(here.keys.socket, timeout=30) as client:
        for _ in range(5):
            assert wrong_answers(client) == 0
            inherited = {os.fstat(one._socket.fileno()).st_ino for one in client._idle}
            children = []
            for _ in range(2):
                child = os.fork()
                if child == 0:
                    try:
                        wrong = wrong_answers(client)
                        own = {os.fstat(one._socket.fileno()).st_ino for one in client._idle}
                        os._exit(1 if wrong else 2 if own & inherited else 0)
                    except BaseException:
                        os._exit(3)
                children.append(child)
            assert wrong_answers(client) == 0
            for child in children:
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0


def test_a_grandchild_with_the_number_of_its_grandparent_is_another_process() -> None:
    before = process()
    child = os.fork()
    if child == 0:
        os._exit(0 if process()[1] != before[1] else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert process() == before


@pytest.mark.parametrize("timeout", [float("nan"), -1, "1", None])
def test_a_timeout_that_is_none_is_refused(timeout: object) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequest):
            kind("/nowhere", timeout=timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "question",
    [
        lambda client: client.verify(None),
        lambda client: client.verify(7),
        lambda client: client.verify("\ud800"),
        lambda client: client.verify("key", max_age="5s"),
        lambda client: client.verify("key", source=7),
        lambda client: client.verify("key", source="\ud800"),
        lambda client: client.verify("key", all_scopes=[7]),
        lambda client: client.verify("key", any_scopes=["\ud800"]),
        lambda client: client.verify_many("key"),
        lambda client: client.verify_many(b"key"),
        lambda client: client.verify_many(["key", None]),
        lambda client: client.why(None),
    ],
)
def test_what_cannot_be_asked_is_a_failure_with_a_name(question: Callable[[Any], Any]) -> None:
    """It is a LatchkeyError like all others, so a caller that catches these admits no key and answers 503."""
    with pytest.raises(InvalidRequest):
        question(Client("/nowhere"))

    async def ask() -> None:
        async with AsyncClient("/nowhere") as client:
            await question(client)

    with pytest.raises(InvalidRequest):
        asyncio.run(ask())


def test_an_endless_timeout_is_one(here: Here) -> None:
    with Client(here.keys.socket, timeout=float("inf")) as client:
        assert client.verify("key_valid")

    async def ask() -> bool:
        async with AsyncClient(here.keys.socket, timeout=float("inf")) as client:
            return bool(await client.verify("key_valid"))

    assert asyncio.run(ask())


def test_want_of_descriptors_is_a_failure_with_a_name(here: Here) -> None:
    client = Client(here.keys.socket, timeout=0.1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(LatchkeyError) as caught:
            client.verify("key_valid")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in kept:
            os.close(descriptor)
    assert caught.value.failure == "connect"
    assert client.verify("key_valid")
    client.close()


def test_a_closed_client_says_so(here: Here) -> None:
    client = Client(here.keys.socket)
    assert client.verify("key_valid")
    client.close()
    with pytest.raises(InvalidRequest, match="closed"):
        client.verify("key_valid")


def test_middleware_with_a_demand_that_cannot_be_asked_does_not_start() -> None:
    async def application(*_: object) -> None:
        raise AssertionError("not to be reached")

    with pytest.raises(InvalidRequest):
        LatchkeyMiddleware(application, all_scopes=["two words"])


def test_no_error_holds_the_key(path: Path) -> None:
    for client in (Client(path, timeout=0.05),):
        with pytest.raises(LatchkeyError) as caught:
            client.verify("sk_secret")
        assert "sk_secret" not in repr(caught.value)


def test_many_tasks_share_a_connection(here: Here) -> None:
    async def ask_all() -> None:
        async with AsyncClient(here.keys.socket, timeout=30) as client:
            keys = [*VERDICT_OF] * 2000  # more than the client sends at once
            answers = await asyncio.gather(*(client.verify(key) for key in keys))
            assert [answer.verdict for answer in answers] == [VERDICT_OF[key] for key in keys]

    before = here.keys.cli.status()["connections"]["accepted"]
    asyncio.run(ask_all())
    after = here.keys.cli.status()["connections"]["accepted"]
    assert after - before == 2  # this connection and that of `latchkey status`


def test_a_cancelled_call_costs_the_others_nothing(path: Path) -> None:
    async def ask() -> None:
        async with AsyncClient(path, timeout=30) as client:
            calls = [asyncio.create_task(client.verify("key")) for _ in range(3)]
            while fake.connections == 0:
                await asyncio.sleep(0.01)
            calls[1].cancel()
            go_on.set()
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(one).__name__ for one in done] == ["Answer", "CancelledError", "Answer"]

    go_on = threading.Event()

    def late(connection):  # type: ignore[no-untyped-def]
        assert go_on.wait(scaled(20))
        answering(lambda request_id: verified(request_id, 0))(connection)

    with Fake(path, late) as fake:
        asyncio.run(ask())
        assert fake.connections == 1


def test_one_deadline_that_passes_lets_the_others_ask_again(path: Path) -> None:
    def deaf_at_first(connection):  # type: ignore[no-untyped-def]
        if fake.connections == 1:
            while read_request(connection) is not None:
                pass
        answering(lambda request_id: verified(request_id, 0))(connection)

    async def ask() -> None:
        async with AsyncClient(path, timeout=0.3) as client:
            hasty = asyncio.create_task(client.verify("key"))
            await asyncio.sleep(0)
            client.timeout = 30
            patient = asyncio.create_task(client.verify("key"))
            with pytest.raises(TimedOut):
                await hasty
            assert await patient

    with Fake(path, deaf_at_first) as fake:
        asyncio.run(ask())


def test_a_client_outlives_its_loop(here: Here) -> None:
    client = AsyncClient(here.keys.socket, timeout=30)

    async def ask() -> bool:
        return bool(await client.verify("key_valid"))

    assert asyncio.run(ask())
    assert asyncio.run(ask())

    async def close() -> None:
        await client.aclose()

    asyncio.run(close())


def test_loops_in_turn_each_hear_their_answers(here: Here) -> None:
    """A loop must stop watching its socket: otherwise it misses events of the next socket with that number."""
    client = AsyncClient(here.keys.socket, timeout=scaled(5))
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def ask() -> None:
        started = time.monotonic()
        assert await client.verify("key_valid")
        assert time.monotonic() - started < scaled(5) / 2
        # A socket of another part of the program.
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b"x")
            got = asyncio.get_running_loop().sock_recv(ours, 1)
            assert await asyncio.wait_for(got, scaled(5)) == b"x"

    for _ in range(3):
        for loop in loops:
            loop.run_until_complete(ask())
    for loop in loops:
        loop.run_until_complete(asyncio.sleep(0))  # releases the socket that the other loop took
    loops[1].run_until_complete(client.aclose())
    for loop in loops:
        assert len(loop._selector.get_map()) == 1  # type: ignore[attr-defined]  # it wakes itself
        loop.close()


def test_a_child_that_closes_its_client_leaves_its_parent_its_own(here: Here) -> None:
    """A fork shares the event loop's epoll: if the child unregistered a socket, the parent would miss its events."""
    client = AsyncClient(here.keys.socket, timeout=scaled(5))
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(client.verify("key_valid"))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(client.aclose())
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    started = time.monotonic()
    assert loop.run_until_complete(client.verify("key_valid"))
    assert time.monotonic() - started < scaled(5) / 2
    # Conversely, within one process, a loop forgets a socket that another one has closed.
    asyncio.run(client.aclose())
    loop.run_until_complete(asyncio.sleep(0))
    assert len(loop._selector.get_map()) == 1  # type: ignore[attr-defined]  # it wakes itself
    loop.close()


def test_a_loop_that_runs_elsewhere_loses_its_call(path: Path) -> None:
    """The client belongs to one loop at a time: calls under way in another one fail and are not repeated."""
    client = AsyncClient(path, timeout=scaled(20))
    failed: list[LatchkeyError] = []

    async def lose() -> None:
        try:
            await client.verify("key")
        except LatchkeyError as error:
            failed.append(error)

    def deaf_at_first(connection):  # type: ignore[no-untyped-def]
        if fake.connections == 1:
            while read_request(connection) is not None:
                asked.set()
        answering(lambda request_id: verified(request_id, 0))(connection)

    async def ask() -> None:
        assert await client.verify("key")
        await client.aclose()

    asked = threading.Event()
    started = time.monotonic()
    with Fake(path, deaf_at_first) as fake:
        other = threading.Thread(target=asyncio.run, args=(lose(),))
        other.start()
        assert asked.wait(scaled(10))
        asyncio.run(ask())
        other.join(scaled(30))
        assert fake.connections == 2
    assert [type(error) for error in failed] == [ConnectionClosed]
    assert time.monotonic() - started < scaled(10)


def test_what_arrived_between_two_looks_at_the_clock_is_an_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like test_scenario's test of a delayed client, which cannot choose the moment."""
    send = _Connection._send

    def held_up(connection: _Connection, frame: bytearray, deadline: float) -> None:
        send(connection, frame, deadline)
        assert select.select([connection._socket], [], [], scaled(20))[0]
        time.sleep(max(deadline - time.monotonic(), 0) + 0.01)

    def half_at_last(connection: socket.socket) -> None:
        for length in (None, None, -1):
            if (request_id := read_request(connection)) is not None:
                connection.sendall(verified(request_id, 0)[:length])
        while read_request(connection) is not None:
            pass

    monkeypatch.setattr(_Connection, "_send", held_up)
    with Fake(path, half_at_last) as fake, Client(path, timeout=scaled(0.5)) as client:
        assert client.verify("key")
        assert client.verify("key")
        with pytest.raises(TimedOut):
            client.verify("key")
        assert fake.connections == 1


def test_what_is_under_way_ends_with_the_client(path: Path) -> None:
    def deaf(connection):  # type: ignore[no-untyped-def]
        while read_request(connection) is not None:
            pass

    async def ask() -> None:
        client = AsyncClient(path, timeout=30)
        call = asyncio.create_task(client.verify("key"))
        while fake.connections == 0:
            await asyncio.sleep(0.01)
        await client.aclose()
        with pytest.raises(ConnectionClosed):
            await call

    started = time.monotonic()
    with Fake(path, deaf) as fake:
        asyncio.run(ask())
    assert time.monotonic() - started < scaled(10)


def test_it_installs_with_pip_and_nothing_else(scratch: Path, here: Here) -> None:
    source = scratch / "python"
    shutil.copytree(REPOSITORY / "client/python", source)  # pip writes files into the source folder
    target = scratch / "site"
    pip = ["/usr/bin/python3", "-m", "pip", "install", "-q", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=scaled(120))
    assert (target / "latchkey/py.typed").is_file()
    done = subprocess.run(
        ["/usr/bin/python3", str(source / "examples/verify.py")],
        env={"PYTHONPATH": str(target), "LATCHKEY_SOCKET": str(here.keys.socket)},
        input="key_valid\n",
        capture_output=True,
        text=True,
        timeout=scaled(30),
        check=True,
    )
    assert done.stdout == f"in, as {here.keys.user}\n"
