"""A private PostgreSQL server in a temporary folder that is removed afterwards."""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import random
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from . import child
from .folder import TemporaryFolder
from .wait import NotInTime, scaled, until

SUPERUSER = "postgres"
# The only role with a password: a daemon that ignores its password file must fail to connect.
PASSWORD_ROLE = "latchkey"

_DEBIAN = Path("/usr/lib/postgresql/15/bin")
_PROGRAMS = Path(os.environ.get("LATCHKEY_PG_BIN", _DEBIAN))
_START_DEADLINE_S = 60.0
_STOP_DEADLINE_S = 30.0
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_SETTINGS = {
    "max_connections": "50",
    "log_statement": "none",
    "log_line_prefix": "'%m [%p] %q%u@%d %a '",
    "timezone": "'UTC'",
    "password_encryption": "'scram-sha-256'",  # not the default of PostgreSQL 13
    # The data need not survive a crash of the machine; they survive one of the server without these.
    "fsync": "off",
    "full_page_writes": "off",
    # Shared memory in the data folder: a killed server leaves nothing in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
}


class ServerFailed(AssertionError):
    """PostgreSQL did not start or stop as it should; the text ends with its log."""


class PrivateCluster:
    """One server. Use as a context manager, or call `start()` and `close()`.
A server. Use it as a context manager, or call `start()` and `close()`.

`tcp` adds a listener on 127.0.0.1 with a free port, which stays the same over restarts. `settings`
are lines for postgresql.conf, values in its own quoting. `superuser_auth="peer"` admits only root
and the server's user as superuser, for machines where others have accounts: through "trust" they
could run programs as the server's user. `primary` makes it a standby of that server, which must run
(see `standby`).
    """

    def __init__(
        self,
        *,
        tcp: bool = False,
        settings: Mapping[str, str] | None = None,
        superuser_auth: str = "trust",
        primary: PrivateCluster | None = None,
    ) -> None:
        self._tcp = tcp
        self._settings = _SETTINGS | dict(settings or {})
        self._superuser_auth = superuser_auth
        self._user = unprivileged_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        self._folder = TemporaryFolder()
        self.port = 5432  # names the socket file; with `tcp`, also a free port on 127.0.0.1
        try:
            self.socket_dir = self._folder.subfolder("s")
            self._data = self._folder.subfolder("data", 0o700)
            self._log = self._folder.path / "postgresql.log"
            if self._user is not None:
                os.chown(self.socket_dir, self._user.uid, self._user.gid)
                os.chown(self._data, self._user.uid, self._user.gid)
            if primary is None:
                self._initialise()
            else:
                self._copy(primary)
            if tcp:
                self.port = _free_port()
        except BaseException:
            self._folder.close()
            raise
        atexit.register(self.close)

    def __enter__(self) -> PrivateCluster:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- life

    def start(self) -> PrivateCluster:
        """Start the server and return once it accepts connections. Does nothing if it runs."""
        if self._process is not None:
            return self
        # If this process dies, PostgreSQL gets an "immediate shutdown": it ends its children and
        # frees its memory.
        with self._log.open("ab") as output:
            self._process = child.spawn(
                [str(_PROGRAMS / "postgres"), "-D", str(self._data), *self._listen_options()],
                output=output,
                user=self._user,
                cwd=self._folder.path,
                death_signal="QUIT",
            )
        try:
            until(self._accepts, _START_DEADLINE_S, "PostgreSQL accepts connections")
        except NotInTime as error:
            self.kill9()
            raise ServerFailed(f"{error}\n{self.logs()}") from None
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop it as pg_ctl does: "smart", "fast" or "immediate". Does nothing if it is not running."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(scaled(_STOP_DEADLINE_S))
        except subprocess.TimeoutExpired:
            self.kill9()
            raise ServerFailed(f'would not stop in mode "{mode}"\n{self.logs()}') from None
        self._process = None

    def kill9(self) -> None:
        """A crash: every process of the server dies at once. The next start must recover."""
        if self._process is None:
            return
        postmaster = self._process.pid
        self._halt_postmaster()
        victims = child.children_of(postmaster)
        for pid in [postmaster, *victims]:
            child.send(pid, signal.SIGKILL)
        self._process.wait(scaled(_STOP_DEADLINE_S))
        self._process = None
        self._frozen = False
        until(
            lambda: not any(child.alive(pid) for pid in victims),
            _STOP_DEADLINE_S,
            "all processes of the killed server are gone",
        )

    def restart(self, mode: str = "fast") -> None:
        """Stop and start with the same socket and port."""
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """Hang the server: connections stay open and get no answers, until `thaw`, `kill9` or `stop`."""
        if self._process is not None and not self._frozen:
            self._frozen = True
            self._halt_postmaster()
            for pid in child.children_of(self._process.pid):
                child.send(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server continue."""
        if self._process is not None and self._frozen:
            self._frozen = False
            for pid in [*child.children_of(self._process.pid), self._process.pid]:
                child.send(pid, signal.SIGCONT)

    def snapshot(self) -> Path:
        """A copy of all data at this instant, whether the server runs or not. It is deleted with the server."""
        frozen = self._frozen
        self.freeze()
        copy = self._folder.path / f"snapshot-{len(list(self._folder.path.glob('snapshot-*')))}"
        try:
            child.run(["cp", "-a", str(self._data), str(copy)]).expect(0)
        finally:
            if not frozen:
                self.thaw()
        if self._process is not None:
            (copy / "postmaster.pid").unlink()  # a restored machine has no such process
        return copy

    def restore(self, snapshot: Path) -> None:
        """Replace the data by those of the snapshot. The server must not run."""
        assert self._process is None
        child.run(["rm", "-rf", str(self._data)]).expect(0)
        child.run(["cp", "-a", str(snapshot), str(self._data)]).expect(0)

    def standby(self) -> PrivateCluster:
        """A hot standby of this server, not started yet; the caller closes it."""
        return PrivateCluster(primary=self)

    def promote(self) -> None:
        """Make a standby a primary on a new timeline; returns once it is one."""
        assert self.sql("SELECT pg_promote()") == [(True,)], self.logs()

    def close(self) -> None:
        """Stop the server and delete everything. May be called twice; runs at exit."""
        atexit.unregister(self.close)
        try:
            self.stop("immediate")
        finally:
            self._remove_shared_memory()
            self._folder.close()

    @property
    def pid(self) -> int:
        """The process id of the postmaster; 0 if the server is not running."""
        return 0 if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server process exists, frozen or not."""
        return self._process is not None and self._process.poll() is None

    # ---- use

    def conninfo(
        self, dbname: str = "postgres", user: str = SUPERUSER, *, tcp: bool = False, **more: str
    ) -> str:
        """A libpq connection string; `more` are further keywords of libpq."""
        parameters = {
            "host": "127.0.0.1" if tcp else str(self.socket_dir),
            "port": str(self.port),
            "dbname": dbname,
            "user": user,
        } | more
        return " ".join(f"{name}={_conninfo_value(value)}" for name, value in parameters.items())

    def connect(
        self,
        dbname: str = "postgres",
        user: str = SUPERUSER,
        *,
        autocommit: bool = True,
        **more: str,
    ) -> Connection:
        """A new psycopg2 connection; the caller closes it."""
        more = {"connect_timeout": "10", "application_name": "harness"} | more
        made = psycopg2.connect(self.conninfo(dbname, user, tcp=False, **more))
        made.autocommit = autocommit
        return made

    def sql(
        self,
        text: str,
        parameters: Sequence[Any] | Mapping[str, Any] | None = None,
        *,
        dbname: str = "postgres",
        user: str = SUPERUSER,
    ) -> list[tuple[Any, ...]]:
        """Run and commit SQL on a new connection; returns the rows of the last statement, if any."""
        with contextlib.closing(self.connect(dbname, user)) as made, made.cursor() as cursor:
            cursor.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def psql(self, text: str, dbname: str = "postgres", user: str = SUPERUSER) -> str:
        """Run printed DDL as an operator does: with the real psql, stopping at the first error."""
        command = [str(_client("psql")), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
        command += ["-d", self.conninfo(dbname, user), "-f", "-"]
        return child.run(command, stdin=text.encode()).expect(0).stdout

    def create_role(self, name: str) -> None:
        """Create a login role unless there is one: roles belong to the server, and outlive a test's database."""
        self.sql(
            f"DO $$ BEGIN CREATE ROLE {name} LOGIN;"
            " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )

    def createdb(self, name: str) -> None:
        """A new, empty database."""
        self.sql('CREATE DATABASE "{}"'.format(name.replace('"', '""')))

    def logs(self) -> str:
        """The server's log so far."""
        try:
            return self._log.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # ---- details

    def _initialise(self) -> None:
        command = [str(_PROGRAMS / "initdb"), "-D", str(self._data), "--username", SUPERUSER]
        command += ["--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        child.run(command, user=self._user, cwd=self._folder.path, timeout_s=120).expect(0)
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        with (self._data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        peer = self._superuser_auth == "peer"
        rules = [
            f"local all {PASSWORD_ROLE} scram-sha-256",
            f"host  all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256",
            f"local all {SUPERUSER} {'peer map=harness' if peer else 'trust'}",
            f"host  all {SUPERUSER} 127.0.0.1/32 {'reject' if peer else 'trust'}",
            "local all,replication all trust",
            "host  all,replication all 127.0.0.1/32 trust",
        ]
        (self._data / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        names = {"root", pwd.getpwuid(os.geteuid()).pw_name}
        identities = [f"harness {name} {SUPERUSER}" for name in sorted(names)]
        (self._data / "pg_ident.conf").write_text("\n".join(identities) + "\n")

    def _copy(self, primary: PrivateCluster) -> None:
        """Copy the primary with its settings and access rules."""
        command = [str(_client("pg_basebackup")), "-D", str(self._data), "--write-recovery-conf"]
        command += ["--checkpoint", "fast", "--no-sync", "-d", primary.conninfo(dbname="")]
        child.run(command, user=self._user, cwd=self._folder.path, timeout_s=120).expect(0)

    def _listen_options(self) -> list[str]:
        listen = "127.0.0.1" if self._tcp else ""
        options = ["-k", str(self.socket_dir), "-p", str(self.port)]
        return [*options, "-c", f"listen_addresses={listen}"]

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            raise ServerFailed(f"PostgreSQL ended with {code} while starting\n{self.logs()}")
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def _halt_postmaster(self) -> None:
        """Stop the postmaster, so that it creates no children that a signal to all would miss."""
        assert self._process is not None
        pid = self._process.pid
        child.send(pid, signal.SIGSTOP)
        until(lambda: child.state(pid) in ("T", "Z", ""), _STOP_DEADLINE_S, "postmaster stopped")

    def _remove_shared_memory(self) -> None:
        """Free the small System V segment that otherwise only an orderly stop or a new start would free."""
        with contextlib.suppress(OSError, IndexError, AssertionError):
            # Line 7 of postmaster.pid holds the key and the id; the file survives only a crash.
            segment = (self._data / "postmaster.pid").read_text().splitlines()[6].split()[1]
            child.run(["ipcrm", "-m", segment], user=self._user, cwd=self._folder.path)


def _client(name: str) -> Path:
    """The path of a client program; Debian's where the server comes without one."""
    return _PROGRAMS / name if (_PROGRAMS / name).exists() else _DEBIAN / name


def unprivileged_user() -> child.User | None:
    """The user for PostgreSQL, which refuses to be root; None for the present user."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return child.User(entry.pw_uid, entry.pw_gid)
    raise ServerFailed("root needs a user `postgres` or `nobody` to run PostgreSQL as")


def _free_port() -> int:
    """A port below the range that the kernel uses for outgoing connections.

    A port from that range might be taken when the server starts again.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerFailed("no free TCP port")


def _conninfo_value(value: str) -> str:
    if value and not any(c in value for c in " '\\"):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
