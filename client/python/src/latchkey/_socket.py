"""The daemon's socket: its path, connecting, and connection errors."""

from __future__ import annotations

import errno
import os
import random
import socket

from ._errors import InvalidRequest, Unreachable

DEFAULT_SOCKET = "/run/latchkey/latchkey.sock"

_PATH_BYTES_MAX = 107

# Errors that occur while a daemon restarts or is overloaded. AF_UNIX's connect() does not wait for room in a
# full backlog: it fails with EAGAIN, and poll cannot wait for room.
_MAY_PASS = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ECONNRESET)

_HINTS = {
    errno.ENOENT: " Is latchkeyd running, and is this its socket?",
    errno.ECONNREFUSED: " latchkeyd is not running.",
    errno.EACCES: " This user may not open it: see latchkeyd's `mode` and `group`.",
    errno.EAGAIN: " Too many wait to be connected.",
}


def socket_path(path: str | os.PathLike[str] | None) -> str:
    """Returns `path`, or else $LATCHKEY_SOCKET, or else the default."""
    found = os.fspath(path) if path is not None else os.environ.get("LATCHKEY_SOCKET", "")
    found = found or DEFAULT_SOCKET
    if len(os.fsencode(found)) > _PATH_BYTES_MAX:
        raise InvalidRequest(f"a socket's path has at most {_PATH_BYTES_MAX} bytes: {found}")
    return found


def connect(path: str) -> socket.socket:
    """Returns a connected, non-blocking socket without waiting, or raises Unreachable."""
    made: socket.socket | None = None
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.setblocking(False)
        made.connect(path)
    except OSError as error:
        if made is not None:
            made.close()
        code = error.errno or 0
        text = f"cannot connect to {path}: {os.strerror(code)}.{_HINTS.get(code, '')}"
        raise Unreachable(text, may_pass=code in _MAY_PASS) from None
    except BaseException:
        if made is not None:
            made.close()
        raise
    return made


_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


# Runs in the child before it can have other threads.
os.register_at_fork(after_in_child=_forked)


def process() -> tuple[int, int]:
    """Identifies the owner of a connection: two processes on one would take each other's answers.
    (The fork count is needed because a process id may recur in a grandchild.)"""
    return os.getpid(), _forks


def seconds(timeout: float) -> float:
    """Returns `timeout` if it is valid. Infinity means no limit."""
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise InvalidRequest("a timeout is a number of seconds, 0 or more")
    return timeout


class RequestIds:
    """Request ids that start at an unpredictable number, so that a reply to a request of another
    process or connection matches none."""

    def __init__(self) -> None:
        self._last = int.from_bytes(os.urandom(8), "little")

    def next(self) -> int:
        """Returns 1 to 2^64 - 1; id 0 stands for the connection."""
        self._last = self._last % 0xFFFFFFFFFFFFFFFF + 1
        return self._last


class Backoff:
    """Delays before retries: 2 ms, doubling to 250 ms, half of it random, so that the processes of
    a host do not reconnect at the same time."""

    _FIRST_S, _MAX_S = 0.002, 0.25

    def __init__(self) -> None:
        self._delay = self._FIRST_S

    def reset(self) -> None:
        """Call after a success."""
        self._delay = self._FIRST_S

    def next(self) -> float:
        """Returns the next delay in seconds."""
        delay = self._delay * random.uniform(0.5, 1)
        self._delay = min(2 * self._delay, self._MAX_S)
        return delay
