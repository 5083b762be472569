"""The built programs, and latchkeyd as a child."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from . import child
from .child import Completed, User
from .folder import TemporaryFolder
from .notify import NotifySocket
from .wait import NotInTime, scaled, until

REPOSITORY = Path(__file__).resolve().parents[2]

_LOG_TAIL_LINES = 100


def build_folder() -> Path:
    """The folder of the built programs: $LATCHKEY_BUILD (relative to the repository) or release."""
    return REPOSITORY / os.environ.get("LATCHKEY_BUILD", "build/release")


def sanitized() -> bool:
    """Whether the programs run under a sanitizer, which keeps freed memory, locks none, and needs descriptors."""
    return build_folder().name in ("asan", "tsan")


def program(name: str, user: User | None = None) -> Path:
    """The path of a built program, or of a copy if `user` cannot reach the build folder."""
    built = build_folder() / "bin" / name
    if not built.is_file():
        raise FileNotFoundError(f"{built} is not there: build first, or set LATCHKEY_BUILD")
    if user is None or user.uid == os.geteuid() or _anybody_may_enter(built.parent):
        return built
    return _copy_for_anybody(built)


def check_config(
    config: str | Path, *, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> Completed:
    """`latchkeyd --check` on a file, or on a configuration's text."""
    folder = TemporaryFolder()
    try:
        path = config_file(config, folder)
        command = [str(program("latchkeyd")), "--config", str(path), "--check"]
        return child.run(command, env=env, timeout_s=timeout_s)
    finally:
        folder.close()


class DaemonFailed(AssertionError):
    """The daemon did not behave as it should; the text ends with its log."""


class Daemon:
    """A latchkeyd. `with Daemon(config) as daemon:` runs it from READY=1 to an orderly stop.

    `config` is a path or the text of a file. `env` adds to the environment, e.g.
    CREDENTIALS_DIRECTORY. `uid` runs it as another user, `arguments` are added to its command line,
    `limits` are options of prlimit(1). `hosts` are the lines of its /etc/hosts, instead of the
    machine's. With `wait=False`, entering starts it but does not wait until it is ready. The orderly
    stop at the end of the block fails unless the exit code is 0, so that findings of the sanitizers
    are not lost.
    """

    def __init__(
        self,
        config: str | Path,
        *,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        uid: int | None = None,
        gid: int | None = None,
        limits: Sequence[str] = (),
        hosts: str | None = None,
        wait: bool = True,
    ) -> None:
        self._limits = list(limits)
        self._hosts = hosts
        self._user = None if uid is None else User.of(uid, gid)
        self._arguments = list(arguments)
        self._wait = wait
        self._process: subprocess.Popen[bytes] | None = None
        self._ready_before_start = 0
        self._last_log = ""
        self._program = program("latchkeyd", self._user)
        self.folder = TemporaryFolder()
        self.config_path = config_file(config, self.folder)
        self.log_path = self.folder.path / "latchkeyd.log"
        self._notify = NotifySocket(self.folder.path / "notify")
        self._env = {"NOTIFY_SOCKET": str(self._notify.path)} | dict(env or {})
        atexit.register(self.close)

    def __enter__(self) -> Daemon:
        try:
            self.start()
            if self._wait:
                self.wait_ready()
            return self
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            code = self.stop()
            if kind is None and code != 0:
                raise DaemonFailed(f"latchkeyd ended with {code}\n{self.log_tail()}")
        finally:
            self.close()

    # ---- life

    def start(self) -> Daemon:
        """Start it without waiting for readiness. The log continues that of an earlier run."""
        if self._process is not None:
            raise DaemonFailed("latchkeyd runs already")
        self._ready_before_start = self._notify.lines.count("READY=1")
        command = [str(self._program), "--config", str(self.config_path), *self._arguments]
        if self._hosts is not None:
            file = self.folder.path / "hosts"
            file.write_text(self._hosts)
            mount = 'mount --bind "$0" /etc/hosts && exec "$@"'  # in a private mount namespace
            command = ["unshare", "--mount", "sh", "-c", mount, str(file), *command]
        with self.log_path.open("ab") as output:
            self._process = child.spawn(
                command, output=output, user=self._user, env=self._env, limits=self._limits
            )
        return self

    def wait_ready(self, deadline_s: float = 30.0) -> Daemon:
        """Return at READY=1, which the daemon sends after its first complete load."""
        self.wait_notified("READY=1", self._ready_before_start + 1, deadline_s)
        return self

    def wait_notified(self, assignment: str, count: int = 1, deadline_s: float = 30.0) -> None:
        """Return once it has sent `assignment` to the service manager at least `count` times."""

        def arrived() -> bool:
            # The exit code is read first, so messages sent just before the end still count.
            exit_code = self.exit_code
            if self._notify.lines.count(assignment) >= count:
                return True
            if exit_code is not None:
                raise DaemonFailed(
                    f"latchkeyd ended with {exit_code} before {assignment}\n{self.log_tail()}"
                )
            return False

        try:
            until(arrived, deadline_s, f"{assignment} from latchkeyd")
        except NotInTime as error:
            raise DaemonFailed(f"{error}\n{self.log_tail()}") from None

    def wait_exit(self, deadline_s: float = 30.0) -> int:
        """Wait until it has ended; returns the exit code, or minus the number of the fatal signal."""
        process = self._started()
        try:
            code = process.wait(scaled(deadline_s))
        except subprocess.TimeoutExpired:
            self.kill()
            raise DaemonFailed(
                f"latchkeyd did not end within {scaled(deadline_s):g} s\n{self.log_tail()}"
            ) from None
        self._process = None
        return code

    def stop(self, deadline_s: float = 30.0) -> int:
        """SIGTERM, then its exit code. 0 if a test has already ended it."""
        if self._process is None:
            return 0
        self.thaw()
        self._process.terminate()
        return self.wait_exit(deadline_s)

    def kill(self) -> None:
        """SIGKILL, as from the out-of-memory killer."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(scaled(30))
            self._process = None

    def restart(self, deadline_s: float = 30.0) -> Daemon:
        """An orderly stop, a start, and readiness."""
        code = self.stop()
        if code != 0:
            raise DaemonFailed(f"latchkeyd ended with {code}\n{self.log_tail()}")
        return self.start().wait_ready(deadline_s)

    def sighup(self) -> None:
        """Ask for a reload. `wait_notified` or a poll of its status shows the end of it."""
        self._started().send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """SIGSTOP: for the daemon, time jumps. Returns once every thread has stopped."""
        self._started().send_signal(signal.SIGSTOP)
        # The signal takes a moment to arrive, and a worker may still answer until then.
        tasks = Path(f"/proc/{self.pid}/task")

        def stands() -> bool:
            states = [stat.read_text().rpartition(")")[2].split()[0] for stat in tasks.glob("*/stat")]
            return all(state in "tT" for state in states)

        until(stands, 10, "every thread of latchkeyd stands")

    def thaw(self) -> None:
        """SIGCONT; harmless if it is not frozen."""
        self._started().send_signal(signal.SIGCONT)

    def write_config(self, text: str) -> None:
        """Replace the configuration file; it takes effect after `sighup` or `restart`."""
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(self.config_path)

    def close(self) -> None:
        """Kill the daemon if it runs, and delete its folder. May be called twice; runs at exit."""
        atexit.unregister(self.close)
        self.kill()
        self._notify.close()
        self._last_log = self.log()
        self.folder.close()

    # ---- facts

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the daemon runs."""
        return self._started().poll()

    @property
    def notifications(self) -> list[str]:
        """All assignments sent to the service manager, oldest first."""
        return self._notify.lines

    def log(self) -> str:
        """The standard output and error so far; still available after `close`."""
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return self._last_log

    def log_tail(self) -> str:
        """The end of the log, for error messages."""
        lines = self.log().splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join(["--- latchkeyd's log", *lines])

    # ---- details

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise DaemonFailed(f"latchkeyd does not run\n{self.log_tail()}")
        return self._process


def config_file(config: str | Path, folder: TemporaryFolder) -> Path:
    """A file readable by the daemon's user: the given one, or a new one with the given text."""
    if isinstance(config, Path):
        return config
    path = folder.path / "latchkey.toml"
    path.write_text(config)
    path.chmod(0o644)
    return path


def _anybody_may_enter(folder: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in [folder, *folder.parents])


@cache
def _copy_for_anybody(built: Path) -> Path:
    copy = TemporaryFolder().path / built.name  # the folder is removed at exit
    shutil.copy(built, copy)
    copy.chmod(0o755)
    return copy
