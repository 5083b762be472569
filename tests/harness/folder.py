"""Short temporary folders that are always removed, at the latest by the next run.

They are short because the name of a Unix socket holds 107 bytes. A killed Python process cannot
remove its folder. Each folder therefore holds a lock file, and the creation of a folder removes
those of the same user whose lock is free.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "latchkey-test-"
_LOCK = ".lock"
_LONGEST_USEFUL_ROOT = 40  # leaves two thirds of a socket name for the rest of the path


class TemporaryFolder:
    """A folder that every user may enter (mode 0755) and only its creator may write to."""

    def __init__(self) -> None:
        root = tempfile.gettempdir()
        if len(root) > _LONGEST_USEFUL_ROOT:
            root = "/tmp"
        _sweep(Path(root))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        self.path.chmod(0o755)
        # The lock file is locked under another name first, so a sweep never sees it unlocked.
        fresh = self.path / ".fresh"
        self._lock = os.open(fresh, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        fresh.rename(self.path / _LOCK)
        self._closed = False
        atexit.register(self.close)

    def subfolder(self, name: str, mode: int = 0o755) -> Path:
        """A folder inside, with exactly this mode, regardless of the umask."""
        made = self.path / name
        made.mkdir()
        made.chmod(mode)
        return made

    def close(self) -> None:
        """Remove everything. May be called twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _sweep(root: Path) -> None:
    for folder in root.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
