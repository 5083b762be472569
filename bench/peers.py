"""Alternatives to Latchkey, started privately with the same keys."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from stand import ROOT, SERVER

from harness.programs import program
from harness.wait import until

TOOL = str(ROOT / "scripts" / "debian-tool")
REDIS = [TOOL, "redis-server redis-tools libjemalloc2 liblzf1 libatomic1", "redis-server"]
MEMCACHED = [TOOL, "memcached libevent-2.1-7 libsasl2-2", "memcached"]
# The number of store requests that are sent before their replies are read. memcached stops reading in the
# middle of some thousand requests that arrive at once.
_CHUNK = 500


@contextlib.contextmanager
def started(command: list[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server on the server's processor; it is ready when it listens at `path`."""
    pinned = ["taskset", "--cpu-list", str(SERVER), *command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(pinned, stdout=log, stderr=log)
        try:
            until(lambda: process.poll() is None and connects(path), 20, f"{Path(command[0]).name} serves")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def connects(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        return True
    return False


def fill(path: Path, rows: int, store: Callable[[bytes, bytes], bytes], reply: bytes) -> None:
    """Store the generated keys; each is answered with `reply`."""
    keys = subprocess.Popen(
        [str(program("latchkey-bench")), "keys", "--values", "--generate", str(rows)],
        stdout=subprocess.PIPE,
    )
    assert keys.stdout is not None
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        stored = 0
        while stored < rows:
            lines = [keys.stdout.readline().split() for _ in range(min(_CHUNK, rows - stored))]
            peer.sendall(b"".join(store(key, value) for key, value in lines))
            wanted = len(reply) * len(lines)
            told = b""
            while len(told) < wanted:
                told += peer.recv(1 << 20)
            if told != reply * len(lines):
                raise SystemExit(f"a key could not be stored: {told[:100]!r}")
            stored += len(lines)
    keys.wait()


def redis_set(key: bytes, value: bytes) -> bytes:
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$64\r\n%s\r\n" % (len(key), key, value)


@contextlib.contextmanager
def redis(folder: Path, rows: int) -> Iterator[subprocess.Popen[bytes]]:
    """Redis without persistence."""
    path = folder / "redis.sock"
    command = [*REDIS, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    with started(command, path) as process:
        fill(path, rows, redis_set, b"+OK\r\n")
        yield process


@contextlib.contextmanager
def memcached(folder: Path, rows: int) -> Iterator[subprocess.Popen[bytes]]:
    """memcached with one thread, and enough memory to evict nothing."""
    path = folder / "memcached.sock"
    command = [*MEMCACHED, "-s", str(path), "-u", "root", "-t", "1", "-c", "4096",
               "-m", str(256 + rows // 2500)]  # fmt: skip
    with started(command, path) as process:
        fill(path, rows, lambda key, value: b"ms %s 64\r\n%s\r\n" % (key, value), b"HD\r\n")
        yield process


@contextlib.contextmanager
def echo(folder: Path, *, spin: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """The echo server, the lower bound."""
    path = folder / ("spinning.sock" if spin else "echo.sock")
    command = [str(program("latchkey-bench")), "echo", "--socket", str(path)]
    with started([*command, "--spin"] if spin else command, path) as process:
        yield process


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
