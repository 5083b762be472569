"""The daemon under a service manager: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import seeds, wire
from harness.postgres import PrivateCluster
from harness.programs import Daemon, program, sanitized
from harness.ptrace import StoppedThread, thread_id
from harness.scrape import get, scrape
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation
from test_limits import as_uid

KEY = b"sk_good"


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new("external_credentials"))
    made.source("main", preset="external_credentials")
    seeds.insert_external(made.conn, KEY.decode(), 42)
    made.install()
    yield made
    made.close()


# ---- the watchdog


def feedings(daemon: Daemon) -> int:
    return daemon.notifications.count("WATCHDOG=1")


def test_the_watchdog_is_fed_only_while_every_thread_turns(there: Installation) -> None:
    with Daemon(there.config, env={"WATCHDOG_USEC": "2000000"}) as daemon:
        before = feedings(daemon)
        until(lambda: feedings(daemon) > before + 2, 10, "it is fed again and again")
        with StoppedThread(thread_id(daemon.pid, "worker 0")):
            until(lambda: "worker 0 stuck" in daemon.log(), 10, "the log names who is stuck")
            starved = feedings(daemon)
            # The watchdog checks four times within the period after which the daemon would be killed.
            status = len(daemon.notifications)
            with contextlib.suppress(AssertionError):
                until(lambda: feedings(daemon) > starved, 1.5, "it would be fed")
            assert feedings(daemon) == starved, daemon.notifications[status:]
        until(lambda: feedings(daemon) > starved, 10, "it goes on, and is fed again")
        assert "the service manager will end and start latchkeyd" in daemon.log()


def test_a_database_that_hangs_starves_no_watchdog() -> None:
    with PrivateCluster() as server:
        with contextlib.closing(server.connect()) as conn, conn.cursor() as cursor:
            cursor.execute("CREATE ROLE latchkey LOGIN PASSWORD 'geheim'")
        server.createdb("app")
        with contextlib.closing(server.connect("app")) as conn:
            seeds.create_schema(conn, "external_credentials")
        site = Installation(server, "app")
        site.source("main", preset="external_credentials")
        site.freshness |= {"heartbeat": "100ms", "bound": "1s"}
        site.install()
        with Daemon(site.config, env={"WATCHDOG_USEC": "2000000"}) as daemon:
            server.freeze()
            try:
                until(
                    lambda: any("main stale for" in n or "main lost for" in n
                                for n in daemon.notifications),
                    20,
                    "systemctl status says that answers are old",
                )
                before = feedings(daemon)
                until(lambda: feedings(daemon) > before + 4, 10, "it is fed all the same")
            finally:
                server.thaw()
            until(
                lambda: daemon.notifications[-1] == "STATUS=Serving: 1 source fresh"
                or "STATUS=Serving: 1 source fresh" in daemon.notifications[-3:],
                20,
                "it is fresh again, and says so",
            )
        site.close()


# ---- a passed socket


class Activated:
    """A daemon with a passed listening socket, as latchkeyd.socket does it."""

    def __init__(self, there: Installation) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(there.socket))
        self.socket.listen(4096)
        self._config = there.folder / "activated.toml"
        self._config.write_text(there.config)
        self._log = there.folder / "activated.log"

    def start(self, sockets: int = 1) -> subprocess.Popen[bytes]:
        command = (
            f"LISTEN_PID=$$ LISTEN_FDS={sockets} exec"
            f" {program('latchkeyd')} --config {self._config}"
        )
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["bash", "-c", command], stderr=log, stdout=log,
                preexec_fn=self._pass, close_fds=False,
            )

    def _pass(self) -> None:
        os.dup2(self.socket.fileno(), 3)
        os.dup2(self.socket.fileno(), 4)

    def log(self) -> str:
        return self._log.read_text()


def test_whoever_calls_while_it_is_down_is_answered_when_it_is_up(there: Installation) -> None:
    activated = Activated(there)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            early = [stack.enter_context(Raw(there.socket, 30)) for _ in range(50)]
            for raw in early:
                raw.send(wire.verify([KEY]))
            daemon = activated.start()
            for raw in early:
                reply = raw.receive()
                assert reply is not None and reply.verdicts == ["valid"]
            daemon.terminate()
            assert daemon.wait(scaled(20)) == 0
            assert there.socket.exists(), "the socket is not ours to remove"
    assert "serves 1 sources on the socket that the service manager passed" in activated.log()
    activated.socket.close()


def test_a_socket_that_cannot_be_used_is_named(there: Installation) -> None:
    activated = Activated(there)
    assert activated.start(sockets=2).wait(scaled(20)) == 1
    assert "passes 2 sockets; latchkeyd takes one" in activated.log()
    activated.socket.close()
    activated.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    assert activated.start().wait(scaled(20)) == 1
    assert "is no listening Unix stream socket" in activated.log()
    activated.socket.close()


# ---- the start


def test_it_asks_for_patience_while_a_database_is_waited_for(there: Installation) -> None:
    there.database["conninfo"] = str(there.database["conninfo"]).replace("dbname=", "dbname=no_")
    there.freshness["start_timeout"] = "1s"
    with Daemon(there.config, wait=False) as daemon:
        assert daemon.wait_exit() == 1
        assert "EXTEND_TIMEOUT_USEC=30000000" in daemon.notifications
        assert "STATUS=Connecting to the databases" in daemon.notifications


# ---- reload


def test_a_reload_takes_over_limits_and_says_what_needs_a_restart(there: Installation) -> None:
    there.listen["mode"] = "0666"
    with Daemon(there.config) as daemon, Raw(there.socket) as raw:
        assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        there.more = "[limits]\nconnections = 2\n[log]\nlevel = 'warning'\n[[allow]]\nuid = 4001"
        there.listen["workers"] = 2
        there.freshness["bound"] = "11s"
        daemon.write_config(there.config)
        daemon.sighup()
        daemon.wait_notified("READY=1", 2)
        assert "RELOADING=1" in daemon.notifications
        until(lambda: "need a restart to take effect" in daemon.log(), 10, "the log says it")
        assert "[listen] workers, [freshness] bound" in daemon.log()
        with as_uid(4001), Raw(there.socket) as second, Raw(there.socket) as third:
            assert second.ask(wire.verify([KEY])).verdicts == ["valid"]
            refused = third.receive()
            assert refused is not None and refused.error == "overloaded"
        # A reload with an invalid configuration changes nothing.
        daemon.write_config(there.config.replace("connections = 2", "connections = 'many'"))
        daemon.sighup()
        daemon.wait_notified("READY=1", 3)
        until(lambda: "reload failed, everything stays" in daemon.log(), 10, "the log says it")
        assert "`connections` must be a whole number" in daemon.log()
        assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]


def test_a_failed_reload_shows(there: Installation) -> None:
    """The requester, the metrics and the status all show the failure."""
    metrics = there.folder / "metrics.sock"
    there.more = f'[metrics]\nlisten = "{metrics}"\n'
    with Daemon(there.config) as daemon:
        reload = lambda: there.cli.run("--socket", str(there.socket), "reload")  # noqa: E731

        def shown() -> tuple[Any, ...]:
            told = scrape(metrics)
            counts = [told.get("reloads_total", result=result)
                      for result in ("succeeded", "failed")]  # fmt: skip
            status = there.cli.status()["reloads"]
            assert [status["succeeded"], status["failed"]] == counts
            return (*counts, told.get("last_reload_successful"), "last_error" in status)

        done = reload().expect(0)
        assert done.stdout == "Reloaded.\n" and shown() == (1, 0, 1, False)
        assert get(metrics, "/readyz").body == "ok\n"
        daemon.write_config(there.config.replace("[[source]]", "[[source]]\nscopes = 'data'", 1))
        done = reload().expect(0)
        said = 'Not [[source]] "main", which has changed: that needs a restart.'
        assert done.stdout.splitlines() == ["Reloaded.", said]
        assert there.cli.status()["reloads"]["need_restart"] == ['[[source]] "main"']
        daemon.write_config(there.config)
        assert reload().expect(0).stdout == "Reloaded.\n"
        daemon.write_config(there.config + "[limits]\nconnections = 'many'\n")
        done = reload().expect(1)
        assert "`connections` must be a whole number" in done.stderr
        until(lambda: shown() == (3, 1, 0, True), 5, "it shows")
        assert get(metrics, "/readyz").body.startswith("ok\nthe last reload failed")
        daemon.write_config(there.config)
        reload().expect(0)
        until(lambda: shown() == (4, 1, 1, False), 5, "it is over")
        assert get(metrics, "/readyz").body == "ok\n"


def test_a_reload_by_who_may_not_see_how_it_goes_is_asked_for_all_the_same(
    there: Installation,
) -> None:
    """Otherwise a reload could not correct a rule that is too narrow."""
    there.more = "[[allow]]\nuid = 0\n"
    with Daemon(there.config) as daemon:
        reload = ["--socket", str(there.socket), "reload"]
        assert "which process it is" in there.cli.run(*reload).expect(3).stderr
        done = there.cli.run(*reload, env={"MAINPID": str(daemon.pid)}).expect(3)
        assert "was asked to reload, but does not tell this user" in done.stderr
        until(lambda: "reloaded: limits" in daemon.log(), 10, "it reloads")


def test_a_reload_signals_no_other_process(there: Installation, tmp_path: Path) -> None:
    """A pid in a status may belong to another container, or be forged."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        with Daemon(there.config):
            done = there.cli.run("--socket", str(there.socket), "reload",
                                 env={"MAINPID": str(bystander.pid)}).expect(3)  # fmt: skip
        assert "is no latchkeyd" in done.stderr
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_reload_that_hangs_holds_up_nothing(there: Installation) -> None:
    """The read never ends: a FIFO without a writer stands for a name service that does not answer."""
    with Daemon(there.config) as daemon:
        daemon.config_path.unlink()
        os.mkfifo(daemon.config_path)
        daemon.sighup()
        until(lambda: "could not be read within 10 s" in daemon.log(), 20, "it is given up")
        assert there.verdict(KEY) == "valid"
        assert there.cli.status()["reloads"]["failed"] == 1
        daemon.sighup()
        until(lambda: "still hangs" in daemon.log(), 5, "no second one waits")
        # Another reload hangs when the daemon is stopped, in order.


@pytest.mark.parametrize("name", ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PIPE"])
def test_signals_that_mean_nothing_end_nothing(there: Installation, name: str) -> None:
    with Daemon(there.config) as daemon, Raw(there.socket) as raw:
        os.kill(daemon.pid, getattr(signal, f"SIG{name}"))
        assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]


def test_a_quit_is_an_orderly_stop(there: Installation) -> None:
    with Daemon(there.config, wait=False) as daemon:
        daemon.wait_ready()
        os.kill(daemon.pid, signal.SIGQUIT)
        assert daemon.wait_exit() == 0
        assert "stopped" in daemon.log()


@pytest.mark.parametrize(
    ("limits", "uid"),
    [
        (["--nproc=1:1"], 4001),
        *[([f"--as={mib << 20}"], None) for mib in (40, 60, 80, 100, 120, 160, 200)],
    ],
)
def test_limits_at_the_start_are_told_in_a_sentence(
    there: Installation, limits: list[str], uid: int | None
) -> None:
    if sanitized():
        pytest.skip("a sanitizer takes terabytes of addresses")
    there.password_file.chmod(0o644)
    there.folder.chmod(0o777)
    there.listen["workers"] = 4
    daemon = Daemon(there.config, limits=limits, uid=uid, wait=False)
    try:
        daemon.start()
        ended = lambda: daemon.exit_code is not None or "READY=1" in daemon.notifications  # noqa: E731
        until(ended, 30, "it ends, or serves")
        if daemon.exit_code is None:
            assert uid is None and daemon.stop() == 0, "there was enough"
        else:
            assert daemon.exit_code in (1, 127), daemon.log()  # 127: not even its libraries fit
            assert "terminate called" not in daemon.log()
            assert len(daemon.log().strip().splitlines()) >= 1
            if uid is not None:
                assert "no more threads are to be had" in daemon.log()
    finally:
        daemon.close()


def test_a_socket_that_is_gone_shows_and_a_successors_stays(there: Installation) -> None:
    metrics = there.folder / "metrics.sock"
    there.more = f'[metrics]\nlisten = "{metrics}"\n'
    with Daemon(there.config) as daemon:
        with Raw(there.socket) as raw:
            assert scrape(metrics).get("socket_in_place") == 1
            there.socket.rename(there.folder / "aside")
            until(lambda: "is gone, or another file stands there" in daemon.log(), 3, "it is told")
            assert scrape(metrics).get("socket_in_place") == 0
            ready = get(metrics, "/readyz")
            assert ready.status == 503 and "the socket's file is gone" in ready.body
            reply = raw.ask(wire.frame(wire.STATUS, 7))
            assert json.loads(reply.body)["socket_in_place"] is False
        # The folder has been emptied, and a successor listens there.
        successor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        successor.bind(str(there.socket))
        successor.listen()
        assert daemon.stop() == 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.connect(str(there.socket))
        successor.close()
        there.socket.unlink()
        daemon.start().wait_ready()


def test_a_storm_of_signals_changes_nothing(there: Installation) -> None:
    """Fault 33: many SIGHUP signals, then SIGTERM among them."""
    with Daemon(there.config) as daemon, Raw(there.socket) as raw:
        for _ in range(300):
            daemon.sighup()
            assert raw.ask(wire.verify([KEY])).verdicts == ["valid"]
        for _ in range(20):
            daemon.sighup()
        # The block's end checks for an orderly stop, with exit code 0.


def test_signals_that_come_while_it_loads_wait_for_their_handlers(there: Installation) -> None:
    """A reload requested before readiness is done afterwards; a stop is immediate and orderly."""
    there.conn.autocommit = False
    try:
        for stop in (False, True):
            there.sql("LOCK TABLE external_credentials IN ACCESS EXCLUSIVE MODE")
            with Daemon(there.config, wait=False) as daemon:
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                until(lambda: there.value(waiting) > 0, 20, "it waits for the table")
                if stop:
                    assert daemon.stop() == 0
                else:
                    for _ in range(10):
                        daemon.sighup()
                    there.conn.rollback()
                    daemon.wait_ready()
                    daemon.wait_notified("READY=1", 2)  # after the reload
            there.conn.rollback()
    finally:
        there.conn.rollback()
        there.conn.autocommit = True


# ---- memory, and the log


def test_memory_is_locked_where_it_may_be(there: Installation) -> None:
    """Fault 49: memory is locked where the limit allows it."""

    def locked_kib(daemon: Daemon) -> int:
        lines = Path(f"/proc/{daemon.pid}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmLck:")))

    with Daemon(there.config) as daemon:
        # The sanitizers' mlockall() does nothing, and reports success.
        if not sanitized():
            assert locked_kib(daemon) > 1000
    (there.folder / "latchkey.sock.lock").unlink()  # only its owner may open it
    there.password_file.chmod(0o644)
    there.folder.chmod(0o777)
    small = ["--memlock=65536:65536"]
    with Daemon(there.config, uid=4001, limits=small) as daemon:
        until(lambda: "LimitMEMLOCK=infinity" in daemon.log(), 10, "it says what is missing")
        assert locked_kib(daemon) == 0
    (there.folder / "latchkey.sock.lock").unlink()
    there.more = "[memory]\nlock = false"
    with Daemon(there.config, limits=small) as daemon:
        assert "LimitMEMLOCK" not in daemon.log()
        assert locked_kib(daemon) == 0


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


def test_a_loader_that_hangs_delays_no_stop(there: Installation) -> None:
    """The loader hangs in a resolver, which nothing can interrupt: no name server ever answers."""
    config, names = there.folder / "hangs.toml", there.folder / "resolv.conf"
    config.write_text(re.sub('conninfo = ".*"', 'conninfo = "host=db.example"', there.config))
    names.write_text("nameserver 127.0.0.99\noptions timeout:30 attempts:5\n")
    mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'  # in a private mount namespace
    command = ["unshare", "--mount", "sh", "-c", mount, str(names), str(program("latchkeyd"))]
    log = there.folder / "hangs.log"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, log.open("wb") as output:
        silent.settimeout(scaled(20))
        silent.bind(("127.0.0.99", 53))
        daemon = subprocess.Popen([*command, "--config", str(config)], stderr=output)
        try:
            assert silent.recv(512), "it asks"
            daemon.terminate()
            assert daemon.wait(scaled(15)) == 0
        finally:
            daemon.kill()
            daemon.wait()
    assert "what reads the database main hangs" in log.read_text()
