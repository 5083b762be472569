"""The daemon's log on a full pipe, a full disk, a closed pipe, and at a start that fails."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wire
from harness.programs import program
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation, one_key

KEY = b"sk_good"


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    with one_key(cluster, databases, KEY.decode(), source="main") as made:
        yield made


def connected(path: Path) -> Raw | None:
    """A connection, or None if no process listens there yet."""
    try:
        return Raw(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def full_pipe() -> tuple[int, int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    return reader, writer


def test_a_log_that_nobody_reads_holds_nobody_up(there: Installation) -> None:
    """Fault 50: standard error is a full pipe."""
    reader, writer = full_pipe()
    config = there.folder / "silent.toml"
    config.write_text(there.config)
    command = [str(program("latchkeyd")), "--config", str(config)]
    daemon = subprocess.Popen(command, stderr=writer)
    try:
        with until(lambda: connected(there.socket), 20, "it serves") as raw:
            for _ in range(50):
                daemon.send_signal(1)
                assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        daemon.terminate()
        assert daemon.wait(scaled(20)) == 0
    finally:
        daemon.kill()
        daemon.wait()
        os.close(reader)
        os.close(writer)


@contextlib.contextmanager
def started(there: Installation, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    config = there.folder / "log.toml"
    config.write_text(there.config)
    daemon = subprocess.Popen([str(program("latchkeyd")), "--config", str(config)], stderr=stderr)
    try:
        yield daemon
    finally:
        daemon.kill()
        daemon.wait()


@pytest.mark.parametrize("where", ["a full disk", "a closed pipe"])
def test_lines_that_cannot_be_written_are_counted(there: Installation, where: str) -> None:
    if where == "a full disk":
        stderr = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stderr = os.pipe()
        os.close(reader)
    with started(there, stderr) as daemon:
        os.close(stderr)
        with until(lambda: connected(there.socket), 20, "it serves"):
            pass
        lost = until(lambda: there.cli.status()["log_lines_dropped"], 10, "lines are lost")
        daemon.send_signal(signal.SIGHUP)
        until(lambda: there.cli.status()["log_lines_dropped"] > lost, 10, "so are others")
        daemon.terminate()
        assert daemon.wait(scaled(20)) == 0


def has_loader(pid: int) -> bool:
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.append((task / "comm").read_text())
    return any(name.startswith("load ") for name in names)


@pytest.mark.parametrize("reason", ["a finding", "an error"])
def test_why_a_start_fails_is_the_last_line_and_whole(there: Installation, reason: str) -> None:
    """The last line is whole even if much output waits: the reader starts once the loader has ended."""
    if reason == "a finding":
        there.sql("ALTER TABLE external_credentials DROP COLUMN copper_id CASCADE")
        last, code = ("critical: L", "copper_id"), 1
    else:
        Path(there.socket).write_text("no socket")
        last, code = ("latchkeyd: ", str(there.socket)), 1
    reader, writer = full_pipe()
    with started(there, writer) as daemon, os.fdopen(reader, "rb") as log:
        os.close(writer)
        limit = time.monotonic() + scaled(20)
        while not has_loader(daemon.pid):  # without a pause, because the thread may be short-lived
            assert time.monotonic() < limit, "it loads"
        until(lambda: not has_loader(daemon.pid), 20, "it ends")
        text = log.read().decode().lstrip("x")
        assert daemon.wait(scaled(20)) == code
    lines = text.split("\n")
    assert lines.pop() == "", "the last line is whole"
    assert len(lines) > 1, "there are others"
    assert all(part in lines[-1] for part in last), text
