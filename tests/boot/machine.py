"""A private Debian booted by systemd-nspawn: a real systemd that shares only the kernel with the host.
All changes in it are discarded when it is switched off."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from harness.child import Completed
from harness.programs import REPOSITORY
from harness.wait import scaled, until

# Packages that every host has.
_HOST = "systemd,systemd-sysv,dbus,libpam-systemd,adduser"
# Packages that the tests need in addition to the package's dependencies.
_MORE = ("postgresql-15", "perl")


class CannotBoot(Exception):
    """This machine cannot boot another one; the text gives the reason."""


def can_boot() -> None:
    """Raises CannotBoot for each obstacle that is known beforehand."""
    if os.geteuid() != 0:
        raise CannotBoot("only root can boot a machine")
    for tool in ("debootstrap", "systemd-nspawn"):
        if shutil.which(tool) is None:
            raise CannotBoot(f"{tool} is not installed")
    tried = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        raise CannotBoot(f"no namespaces can be made here: {tried.stderr.strip()}")


def _do(*command: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed:\n{done.stdout[-3000:]}")


def _mirror() -> str:
    """The mirror of this host's own packages of the release."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in told.stdout.splitlines():
        site, release = line.split()
        if release == "bookworm" or release == "stable":
            return site
    raise CannotBoot("this host's sources.list names no bookworm")


def base(package: Path) -> Path:
    """The root folder of an installed Debian 12 with the dependencies of `package`. Kept in build/."""
    depends = subprocess.run(
        ["dpkg-deb", "--field", str(package), "Depends"], capture_output=True, text=True, check=True
    ).stdout
    needed = {part.split("|")[0].split("(")[0].strip() for part in depends.split(",")}
    packages = sorted(needed | set(_MORE))
    name = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:12]
    root = REPOSITORY / "build" / "boot" / name
    if root.is_dir():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_suffix(f".{os.getpid()}")
    print(f"== installing a Debian below {root.parent}", file=sys.stderr, flush=True)
    try:
        _do("debootstrap", "--variant=minbase", f"--include={_HOST}", "bookworm", str(unfinished),
            _mirror())  # fmt: skip
        # Packages must not start services when they are installed.
        policy = unfinished / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        inside = ("systemd-nspawn", "--quiet", f"--directory={unfinished}", "--register=no",
                  "--keep-unit", "--pipe", "--setenv=DEBIAN_FRONTEND=noninteractive")  # fmt: skip
        _do(*inside, "apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
        _do(*inside, "apt-get", "clean")
        policy.unlink()
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


class Machine:
    """`with Machine(root, folder) as machine:` boots a machine, and switches it off at the end.

    `folder` is /mnt inside, for the exchange of files.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder
        self._log = folder / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Machine:
        with self._log.open("wb") as log:
            self._process = self._spawn(log)
        try:
            self._leader = until(self._find_leader, 20, "it boots")
            until(lambda: self.state() in ("running", "degraded"), 60, "it has booted")
        except AssertionError as error:
            self._end()
            raise CannotBoot(f"{error}\n{self._log.read_text()[-2000:]}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["systemd-nspawn", f"--directory={self._root}", "--volatile=overlay", "--boot",
             "--register=no", "--keep-unit", "--private-network", "--console=pipe", "--quiet",
             f"--machine=latchkey-test-{os.getpid()}", f"--bind={self._folder}:/mnt"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def _find_leader(self) -> int:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"systemd-nspawn ended with {self._process.returncode}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return 0

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        if self._leader:
            os.kill(self._leader, signal.SIGRTMIN + 4)  # systemd(1): poweroff
        try:
            process.wait(scaled(20))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait(scaled(20))

    # ---- inside

    def command(self, *command: str, user: str = "root") -> list[str]:
        """The command of this host that runs a command in the machine."""
        inside = ["nsenter", "--target", str(self._leader), "--all", "--",
                  "env", "--ignore-environment", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                  "DEBIAN_FRONTEND=noninteractive"]  # fmt: skip
        if user != "root":
            inside += ["runuser", "--user", user, "--"]
        return [*inside, *command]

    def run(self, *command: str, user: str = "root", stdin: str = "", code: int | None = 0) -> str:
        """Run a command inside; returns its standard output. `code` None accepts any exit code."""
        done = subprocess.run(
            self.command(*command, user=user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=scaled(120),
        )
        completed = Completed(list(command), done.returncode, done.stdout, done.stderr)
        if code is not None:
            completed.expect(code)
        return completed.stdout

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Write a file inside."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, stdin=text)

    def state(self) -> str:
        """The state of the whole system."""
        return self.run("systemctl", "is-system-running", code=None).strip()

    def unit(self, name: str, field: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={field}", name).strip()

    def journal(self, unit: str, *options: str) -> str:
        """The log of a unit."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "--unit", unit, *options)

    def wait(self, predicate: Callable[[], object], deadline_s: float, what: str) -> None:
        """Poll; a failure shows the end of the daemon's log."""
        try:
            until(predicate, deadline_s, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal('latchkeyd', '-n', '40')}") from None

    def start(self, command: Sequence[str], user: str, output: Path) -> subprocess.Popen[bytes]:
        """Start a command inside, beside the test; the caller ends it."""
        with output.open("wb") as file:
            return subprocess.Popen(
                self.command(*command, user=user),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
