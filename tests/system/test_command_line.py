"""Effects of the shell on `latchkey` and `latchkeyd`: unset variables, full disks, closed
descriptors, keys that arrive slowly."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Daemon, program
from harness.wait import scaled, until
from installation import Databases, Installation

KEY = "sk_of_the_command_line_1"


@pytest.fixture(scope="module")
def served(cluster: PrivateCluster, databases: Databases) -> Iterator[tuple[Installation, Daemon]]:
    """The daemon closes connections that are idle for a second."""
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE NOT NULL, off timestamptz)")
    site.sql(f"INSERT INTO t SELECT i, 'sk_of_the_command_line_' || i FROM generate_series(1, 9) i")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.more = '[limits]\nidle_timeout = "1s"\n'
    with site.serve() as daemon:
        yield site, daemon
    site.close()


def commands(served: tuple[Installation, Daemon]) -> dict[str, tuple[list[str], int]]:
    """Each command that prints, and its exit code when that output is lost."""
    site, daemon = served
    latchkey = [str(program("latchkey")), "--socket", str(site.socket)]
    config = ["--config", str(daemon.config_path)]
    return {
        "verify": ([*latchkey, "verify"], 3),
        "verify --json": ([*latchkey, "verify", "--json"], 3),
        "why": ([*latchkey, "why"], 3),
        "status": ([*latchkey, "status"], 3),
        "sync": ([*latchkey, "sync"], 3),
        "ping": ([*latchkey, "ping"], 3),
        "top": ([*latchkey, "top", "--plain", "--count", "1"], 3),
        "mint": ([*latchkey, "mint", "--prefix", "sk"], 3),
        "sql": ([*latchkey, "sql", "install", *config], 3),
        "help": ([*latchkey, "--help"], 3),
        "version": ([*latchkey, "--version"], 3),
        "check": ([str(program("latchkeyd")), *config, "--check"], 1),
    }


COMMANDS = ["verify", "verify --json", "why", "status", "sync", "ping", "top", "mint", "sql", "help",
            "version", "check"]  # fmt: skip


@pytest.mark.parametrize("output", [">/dev/full", ">&-"])
@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_is_lost_is_an_error(
    served: tuple[Installation, Daemon], name: str, output: str
) -> None:
    command, code = commands(served)[name]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {output}', "sh", *command],
        input=f"{KEY}\n".encode(),
        capture_output=True,
        timeout=scaled(60),
    )
    assert done.returncode == code, done.stderr
    assert b"cannot write to standard output" in done.stderr
    assert KEY.encode() not in done.stderr


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_no_descriptor_that_was_closed_becomes_a_connection(
    served: tuple[Installation, Daemon], closed: str
) -> None:
    """Otherwise an answer or a log line would be written into the connection that reuses the descriptor."""
    site, _ = served
    before = site.cli.status()["protocol_errors"]
    close = " ".join(f"{number}>&-" for number in closed)
    for name, (command, _) in commands(served).items():
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {close}', "sh", *command],
            input=f"{KEY}\n".encode(),
            capture_output=True,
            timeout=scaled(60),
        )
        needs_it = "1" in closed or ("0" in closed and name.split()[0] in ("verify", "why"))
        assert (done.returncode != 0) == needs_it, (name, done)
    assert site.cli.status()["protocol_errors"] == before


def test_a_daemon_whose_descriptors_were_closed_serves(
    cluster: PrivateCluster, databases: Databases, tmp_path: Path
) -> None:
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE NOT NULL)")
    site.sql(f"INSERT INTO t VALUES (1, '{KEY}')")
    site.source("t", table="public.t", id="id", key="key")
    site.install()
    config = tmp_path / "latchkey.toml"
    config.write_text(site.config)
    started = subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", str(program("latchkeyd")), "--config",
         str(config)]
    )  # fmt: skip
    try:
        until(lambda: site.cli.run("--socket", str(site.socket), "ping").exit_code == 0, 30, "up")
        files = [os.readlink(f"/proc/{started.pid}/fd/{number}") for number in range(3)]
        assert files == ["/dev/null"] * 3
        assert site.verdict(KEY) == "valid"
    finally:
        started.terminate()
        assert started.wait(scaled(30)) == 0
    site.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--source", ""],
        ["verify", "--source="],
        ["verify", "--max-age", ""],
        ["verify", "--max-age="],
        ["verify", "--max-age=", "--json"],
        ["verify", "--scope", ""],
        ["verify", "--scope=", "read"],
        ["verify", "--any-scope", ""],
        ["verify", ""],
        ["why", "--source", ""],
        ["why", "--max-age", ""],
        ["--socket", "", "ping"],
        ["sync", "--timeout", ""],
        ["top", "--interval="],
        ["mint", "--prefix", ""],
        ["mint", "--prefix", "sk", "--source", ""],
        ["sql", "install", "--config", ""],
        ["sql", "grant", "--config", "/dev/null", "--source", ""],
    ],
)
def test_an_empty_value_is_no_wish(
    served: tuple[Installation, Daemon], arguments: list[str]
) -> None:
    """An unset variable in a script would remove the restriction."""
    site, _ = served
    socket = [] if "--socket" in arguments else ["--socket", str(site.socket)]
    done = site.cli.run(*socket, *arguments, stdin=f"{KEY}\n".encode())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is empty" in done.stderr


def ask(verify: subprocess.Popen[str], key: str) -> str:
    assert verify.stdin is not None and verify.stdout is not None
    verify.stdin.write(key + "\n")
    verify.stdin.flush()
    return verify.stdout.readline().split(" ")[0]


def test_keys_that_come_slowly_are_all_answered(served: tuple[Installation, Daemon]) -> None:
    """A co-process of a shell: the daemon closes the idle connection and restarts between two keys."""
    site, daemon = served
    command = [str(program("latchkey")), "--socket", str(site.socket), "verify"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as verify:
        assert ask(verify, KEY) == "valid"
        open_ = site.cli.status()["connections"]["open"]
        until(lambda: site.cli.status()["connections"]["open"] < open_, 20, "it is let go")
        assert ask(verify, KEY) == "valid"
        daemon.restart()
        assert ask(verify, KEY) == "valid"
        daemon.stop()
        assert verify.stdin is not None and verify.stdout is not None
        verify.stdin.write("sk_nobody_has\n")
        verify.stdin.flush()
        daemon.start().wait_ready()
        assert verify.stdout.readline().split(" ")[0] == "unknown"
        verify.stdin.close()
        assert verify.wait(scaled(30)) == 1


def test_without_a_daemon_commands_that_ask_how_it_is_say_so_at_once(tmp_path: Path) -> None:
    for name in ("ping", "status"):
        done = subprocess.run(
            [str(program("latchkey")), "--socket", str(tmp_path / "nobody"), name],
            capture_output=True,
            timeout=scaled(4),
        )
        assert done.returncode == 3 and b"Is latchkeyd running" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["verify", "--scopes", "read"], "`latchkey verify` has"),
        (["mint", "--prefix", "sk", "--counts", "2"], "--count"),
        (["reload", "--config", "x"], "--timeout"),
        (["verify", "sk_live_typed_here"], "Keys come on standard input"),
        (["verify", "--max-age"], "lacks its value"),
        (["sql", "check", "--config", "x"], "install, uninstall, grant"),
    ],
)
def test_what_is_no_option_is_told_with_those_there_are(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [str(program("latchkey")), *arguments], capture_output=True, text=True, timeout=scaled(10)
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "sk_live_typed_here" not in done.stderr
