"""The daemon under a service manager: sd_notify(3), sd_listen_fds(3), limits, locked memory."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
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
from installation import Databases, Installation, one_key

KEY = b"sk_good"


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    with one_key(cluster, databases, KEY.decode(), source="main") as made:
        yield made


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
