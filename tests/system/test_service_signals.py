"""Signals to the daemon: reload, stop, storms of signals, and signals without a meaning."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import wire
from harness.programs import Daemon, program
from harness.scrape import get, scrape
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation, one_key
from test_limits import as_uid

KEY = b"sk_good"


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    with one_key(cluster, databases, KEY.decode(), source="main") as made:
        yield made


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
