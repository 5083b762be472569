"""Stops one thread of a process, as a debugger does. Needs root, or a child process."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# <linux/ptrace.h>, <linux/wait.h>
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread_id(pid: int, name: str) -> int:
    """The id of the only thread with this name."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    (task,) = (task for task in tasks if (task / "comm").read_text().rstrip("\n") == name)
    return int(task.name)


class StoppedThread:
    """Stops one thread while the others run. Enter and leave it in the same thread."""

    def __init__(self, tid: int) -> None:
        self._tid = tid

    def __enter__(self) -> StoppedThread:
        _ptrace(_SEIZE, self._tid)
        _ptrace(_INTERRUPT, self._tid)
        os.waitpid(self._tid, _WALL)
        return self

    def __exit__(self, *_: object) -> None:
        _ptrace(_DETACH, self._tid)


def _ptrace(request: int, tid: int) -> None:
    if _libc.ptrace(request, tid, None, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of thread {tid}: {os.strerror(error)}")
