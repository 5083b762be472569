"""The environment of the demo: a private PostgreSQL, a folder with a configuration, latchkeyd,
latchkey.

A command shown by the narrator runs here with the same arguments, the same environment and the same
working folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness import child, seeds
from harness.child import Completed, User
from harness.folder import TemporaryFolder
from harness.postgres import PrivateCluster
from harness.programs import Daemon, DaemonFailed, program

from .narrator import Narrator

DATABASE = "app"
# Two users without an account: the kernel tells the daemon the uid, and the daemon needs no more.
WEB_UID = 30001
STRANGER_UID = 30002

_LOG_TAIL_LINES = 30

# Answers stop being `fresh` after 2 s, so that the viewer need not wait for the usual 5 s.
_CONFIGURATION = """
[listen]
socket = "{socket}"
mode   = "0666"                # everybody may knock; [[allow]] decides

[freshness]
heartbeat = "250ms"            # how often it is proven that nothing was missed
bound     = "2s"               # an older answer is not called fresh

[[database]]
name          = "main"
conninfo      = "{conninfo}"
password_file = "{password_file}"

[[source]]
name   = "external_credentials"
preset = "external_credentials"

[[source]]
name   = "auth"
preset = "auth_api_key"

[[source]]
name    = "api_keys"
preset  = "api_keys"
peppers = "{peppers}"

[[allow]]                      # root and the daemon's own user may ask everything anyway
uid     = {web_uid}
sources = ["api_keys"]
"""


class Stage:
    """Everything that the demo starts. Leaving the `with` block stops and deletes it all."""

    def __init__(self, narrator: Narrator) -> None:
        self.narrator = narrator
        self._open = contextlib.ExitStack()
        self._daemon: Daemon | None = None
        self.service = _unprivileged()
        self.started = time.monotonic()
        self.v1 = seeds.Pepper.random()
        self.keys: dict[str, str] = {}  # the named keys of the chapters
        self.figures: dict[str, str] = {}  # measured values for the summary

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    # ---- setup

    def start_database(self) -> None:
        """A private server with an empty database."""
        # "peer": on a machine with other users, none of them can become its superuser.
        self.cluster = self._open.enter_context(PrivateCluster(superuser_auth="peer"))
        self.cluster.createdb(DATABASE)
        self.connect()

    def connect(self) -> None:
        """Open a session as the application's owner; again after each start of the server."""
        self.conn = self.cluster.connect(DATABASE)
        self._open.callback(self.conn.close)

    def make_folder(self) -> None:
        """Create the folder of peppers, password and configuration. Only the daemon's user may read its secrets."""
        temporary = TemporaryFolder()
        self._open.callback(temporary.close)
        self.folder = temporary.path
        self.peppers = temporary.subfolder("peppers", 0o700)
        self.socket = temporary.subfolder("run") / "latchkey.sock"
        self._give(self.peppers)
        self._give(self.socket.parent)

    def add_pepper(self, pepper: seeds.Pepper) -> Path:
        """Add the file of another version."""
        path = pepper.write_to(self.peppers)
        self._give(path)
        return path

    def write_password(self, password: str) -> Path:
        """Write the file with the daemon's database password."""
        path = self.folder / "password"
        path.touch(mode=0o600)
        path.write_text(password + "\n")
        self._give(path)
        return path

    def write_configuration(self, password_file: Path) -> str:
        """Write latchkey.toml; returns its text."""
        text = _CONFIGURATION.format(
            socket=self.socket,
            conninfo=self.cluster.conninfo(DATABASE, "latchkey"),
            password_file=password_file,
            peppers=self.peppers,
            web_uid=WEB_UID,
        )
        (self.folder / "latchkey.toml").write_text(text.lstrip())
        return text

    def start_daemon(self) -> Daemon:
        """Start latchkeyd as the unprivileged user; returns before it is ready."""
        user = self.service
        self._daemon = Daemon(
            self.folder / "latchkey.toml",
            uid=None if user is None else user.uid,
            gid=None if user is None else user.gid,
            wait=False,
        )
        self._open.callback(self._daemon.close)
        return self._daemon.start()

    @property
    def daemon(self) -> Daemon:
        """The daemon, which must have been started."""
        if self._daemon is None:
            raise DaemonFailed("latchkeyd has not been started yet")
        return self._daemon

    def log_tail(self) -> str:
        """The end of the daemon's log, for error messages."""
        lines = self._daemon.log().splitlines()[-_LOG_TAIL_LINES:] if self._daemon else []
        return "\n".join(["latchkeyd's log ends with:", *(f"  {line}" for line in lines or ["-"])])

    def log_messages(self) -> list[str]:
        """The daemon's log without the time at the beginning of each line."""
        return [line.partition(" ")[2] for line in self.daemon.log().splitlines()]

    # ---- requests that are not shown

    def status(self) -> dict[str, Any]:
        """`latchkey --json status`, made after this call.

        The daemon reuses a report for a tenth of a second, so this waits for the second different
        one.
        """
        made = {self._status()["uptime_s"]}
        while True:
            status = self._status()
            made.add(status["uptime_s"])
            if len(made) > 1:
                return status

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("latchkey", "--json", "status").stdout)
        return status

    def database_state(self) -> str:
        """The daemon's state of its database, e.g. "live"."""
        return str(self.status()["databases"][0]["state"])

    def accepted_by_pepper(self) -> dict[str, int]:
        """The number of accepted keys of api_keys so far, by the version of their pepper."""
        sources = {source["name"]: source for source in self.status()["sources"]}
        hits: dict[str, int] = sources["api_keys"]["accepted_by_pepper"]
        return hits

    # ---- actions that are shown

    def shell(
        self, *arguments: str, keys: Iterable[str] = (), uid: int | None = None, why: str = ""
    ) -> Completed:
        """Show and run one of Latchkey's programs, with `keys` on its standard input, as `uid`."""
        keys = list(keys)
        shown = shlex.join(arguments)
        if uid is not None:
            shown = f"as {uid} {shown}"
        if keys:
            echo = "echo" if len(keys) == 1 else "printf '%s\\n'"
            shown = f"{echo} {' '.join(map(self.narrator.hide, keys))} | {shown}"
        self.narrator.command(shown, why)
        return self.run(*arguments, keys=keys, uid=uid)

    def run(self, *arguments: str, keys: Iterable[str] = (), uid: int | None = None) -> Completed:
        """Run a program without showing it."""
        user = None if uid is None else User.of(uid)
        name, *rest = arguments
        return child.run(
            [str(program(name, user)), *rest],
            stdin="".join(key + "\n" for key in keys).encode(),
            user=user,
            env={"LATCHKEY_SOCKET": str(self.socket)},
            cwd=self.folder,
        )

    def verify(
        self,
        key: str,
        verdict: str,
        *contains: str,
        options: Iterable[str] = (),
        uid: int | None = None,
        why: str = "",
    ) -> str:
        """Ask about one key, and check the verdict, the exit code and parts of the answer."""
        done = self.shell("latchkey", "verify", *options, keys=[key], uid=uid, why=why)
        code = {"valid": 0, "unavailable": 3}.get(verdict, 1)
        self.expect(done, code, *contains, verdict=verdict)
        return done.stdout

    def expect(self, done: Completed, code: int, *contains: str, verdict: str = "") -> None:
        """Check a program's exit code and parts of its output, then show the output."""
        said = done.stdout + done.stderr
        what = f"`{' '.join([Path(done.command[0]).name, *done.command[1:]])}`"
        if verdict:
            self.narrator.check(f"verdict of {what}", verdict, (said.split() or [""])[0])
        self.narrator.check(f"exit code of {what}, which said:\n{said}", code, done.exit_code)
        for part in contains:
            self.narrator.check_holds(f"{part!r} in the answer of {what}", part in said, said)
        self.narrator.output(said, mark="✓")
        if code > 1:
            self.narrator.output(f"(exit code {code})")

    def sql(self, text: str, tag: str) -> float:
        """Show, run and commit one statement; returns the time at which the server confirmed it.

        `tag` is the server's expected report, e.g. "UPDATE 1".
        """
        self.narrator.sql(text)
        with self.conn.cursor() as cursor:
            cursor.execute(text)
            committed = time.monotonic()
            self.narrator.check(f"what PostgreSQL says to {text!r}", tag, cursor.statusmessage)
            self.narrator.output(tag)
            return committed

    def value(self, text: str) -> object:
        """One value from the database; nothing is shown."""
        with self.conn.cursor() as cursor:
            cursor.execute(text)
            ((value,),) = cursor.fetchall()
            return value

    def sync(self, committed: float) -> float:
        """Run `latchkey sync`; returns the milliseconds since `committed`, including the start of the program."""
        done = self.shell("latchkey", "sync")
        passed_ms = (time.monotonic() - committed) * 1000
        self.expect(done, 0, "is in force")
        return passed_ms

    # ---- details

    def _give(self, path: Path) -> None:
        if self.service is not None:
            os.chown(path, self.service.uid, self.service.gid)


def _unprivileged() -> User | None:
    """The user for the daemon; None for the present user if it is unprivileged."""
    return User.of(pwd.getpwnam("nobody").pw_uid) if os.geteuid() == 0 else None
