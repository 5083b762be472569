"""Child processes that cannot outlive this one, run as a chosen user, in a predictable environment.

setpriv(1) does the work between fork and exec. It beats a `preexec_fn`, which would run Python in
the forked child of a process that has threads, and it sets the parent-death signal *after* the
change of user, which would have cleared it.

The kernel sends the parent-death signal when the *thread* that forked ends, so long-lived children
must be started by a thread that lives as long, in practice the main thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .wait import scaled

# Any of these variables, inherited from the shell or service manager, would change the behaviour under test.
_UNWANTED_PREFIXES = ("PG", "LISTEN_", "WATCHDOG_")
_UNWANTED = ("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "LATCHKEY_SOCKET")


@dataclass(frozen=True)
class User:
    """Numeric identity of a child; needs no entry in the password file."""

    uid: int
    gid: int

    @classmethod
    def of(cls, uid: int, gid: int | None = None) -> User:
        """`uid` with the given group, else its primary group, else the group of the same number."""
        if gid is None:
            try:
                gid = pwd.getpwuid(uid).pw_gid
            except KeyError:
                gid = uid
        return cls(uid, gid)


@dataclass(frozen=True)
class Completed:
    """A program that ran to its end."""

    command: list[str]
    exit_code: int
    stdout: str
    stderr: str

    def json_lines(self) -> list[dict[str, Any]]:
        """Standard output, parsed as one JSON object per line."""
        try:
            return [json.loads(line) for line in self.stdout.splitlines() if line.strip()]
        except json.JSONDecodeError as error:
            raise AssertionError(f"not JSON lines ({error}): {self}") from None

    def expect(self, *exit_codes: int) -> Completed:
        """Returns itself; raises if the exit code is none of these."""
        if self.exit_code not in exit_codes:
            raise AssertionError(f"exit code {self.exit_code}, expected {exit_codes}: {self}")
        return self

    def __str__(self) -> str:
        return f"{' '.join(self.command)}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


def environment(additions: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process' environment without variables that would steer PostgreSQL or Latchkey."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _UNWANTED and not name.startswith(_UNWANTED_PREFIXES)
    }
    return kept | dict(additions or {})


def _as_user(command: Sequence[str], user: User | None, death_signal: str) -> list[str]:
    prefix = ["setpriv", "--pdeathsig", death_signal]
    if user is not None and (user.uid, user.gid) != (os.geteuid(), os.getegid()):
        prefix += ["--reuid", str(user.uid), "--regid", str(user.gid), "--clear-groups"]
    return [*prefix, "--", *command]


def spawn(
    command: Sequence[str],
    *,
    output: IO[bytes],
    user: User | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: str = "KILL",
    limits: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Start a long-lived child. The pid is that of the program: setpriv replaces itself by it.

    `limits` are options of prlimit(1), such as "--nofile=64".

    The child gets its own process group, so that Ctrl-C reaches only this process, which then stops
    the child in good order. If this process dies while the child is stopped, the kernel wakes the
    child.
    """
    return subprocess.Popen(
        [*(["prlimit", *limits] if limits else []), *_as_user(command, user, death_signal)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=environment(env),
        cwd=cwd,
        process_group=0,
    )


def run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    user: User | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60.0,
) -> Completed:
    """Run a program to its end, or kill it after `timeout_s` (scaled) and raise."""
    done = subprocess.run(
        _as_user(command, user, "KILL"),
        input=stdin,
        capture_output=True,
        env=environment(env),
        cwd=cwd,
        timeout=scaled(timeout_s),
        check=False,
    )
    stdout = done.stdout.decode(errors="replace")
    stderr = done.stderr.decode(errors="replace")
    return Completed(list(command), done.returncode, stdout, stderr)


def children_of(pid: int) -> list[int]:
    """Living direct children of a process, with any owner."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end between the listing and the reading.
        with contextlib.suppress(OSError):
            letter, parent = _stat(entry)[:2]
            if int(parent) == pid and letter != "Z":
                found.append(int(entry.name))
    return found


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may already be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def state(pid: int) -> str:
    """The kernel's letter for the process' state: "T" stopped, "Z" not yet reaped; "" if it is gone."""
    try:
        return _stat(Path(f"/proc/{pid}"))[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether the process still runs; a process that waits to be reaped does not."""
    return state(pid) not in ("", "Z")


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads so far, in steps of about 10 ms."""
    user, system = _stat(Path(f"/proc/{pid}"))[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def running_seconds(pid: int) -> float:
    """Running time of the process' first thread so far; exact (schedstat, proc(5))."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _stat(process: Path) -> list[str]:
    # The name field may hold spaces and parentheses; the fields after its end cannot.
    return (process / "stat").read_text().rpartition(")")[2].split()
