"""The client's command line: usage errors, sockets without a daemon, options before and behind the command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.folder import TemporaryFolder
from harness.postgres import PrivateCluster
from harness.cli import Cli
from installation import Databases, Installation, Keys, one_key
from occupied import listening, make_stale
from refusals import correct


@pytest.fixture(scope="module")
def sound(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation that no test changes."""
    with correct(cluster, databases) as there:
        yield there


NOWHERE = Path("/nonexistent/latchkey.sock")

MISUSES: list[tuple[str, ...]] = [
    (),
    ("--json",),
    ("veryfy",),
    ("--verbose", "ping"),
    ("ping", "--force"),
    ("ping", "verify"),
    ("--socket",),
    ("verify", "--scope"),
    ("verify", "--scope", ""),
    ("verify", "--scope", "s" * 256),
    ("verify", *(part for i in range(33) for part in ("--scope", f"s{i}"))),
    ("verify", *(part for i in range(33) for part in ("--any-scope", f"s{i}"))),
    ("verify", "--source", "s" * 64),
    ("verify", "--max-age", "5"),
    ("verify", "--max-age", "-5s"),
    ("verify", "--max-age", "soon"),
    ("sync", "--timeout", "0s"),
    ("sync", "--timeout", "61s"),
    ("sync", "--timeout", "later"),
    ("mint",),
    ("mint", "--prefix", ""),
    ("mint", "--prefix", "with space"),
    ("mint", "--prefix", "p" * 33),
    ("mint", "--prefix", "p", "--count", "0"),
    ("mint", "--prefix", "p", "--count", "many"),
    ("mint", "--prefix", "p", "--source", "api_keys"),
    ("mint", "--prefix", "p", "--config", "/nonexistent"),
    ("sql",),
    ("sql", "install"),
    ("sql", "drop", "--config", "/nonexistent"),
    ("sql", "install", "--config", "/nonexistent"),
    ("sql", "install", "--config", "/"),
    ("sql", "install", "uninstall", "--config", "/nonexistent"),
]


@pytest.mark.parametrize("arguments", MISUSES, ids=" ".join)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = Cli(NOWHERE).run(*arguments, stdin=b"key\n").expect(2)
    assert done.stdout == ""
    assert done.stderr.startswith("latchkey: ") and len(done.stderr.splitlines()) == 1


def test_sql_for_a_source_that_is_not_there_is_a_usage_error(sound: Keys) -> None:
    path = sound.folder / "sound.toml"
    path.write_text(sound.config)
    for arguments in (("sql", "install"), ("mint", "--prefix", "p")):
        done = Cli(NOWHERE).run(*arguments, "--config", str(path), "--source", "api_kesy").expect(2)
        assert done.stdout == "" and '"api_kesy"' in done.stderr


def test_no_key_at_all_is_a_usage_error(served: Installation) -> None:
    done = served.cli.run("--socket", str(served.socket), "verify", stdin=b"").expect(2)
    assert done.stdout == "" and "no key on standard input" in done.stderr


PRECIOUS = "sk_live_Precious9PreciousPrecious4PreciousPrecious"

SLIPS: list[tuple[str, ...]] = [
    (PRECIOUS,),
    (PRECIOUS, "verify"),
    ("verify", PRECIOUS),
    ("verify", "--", PRECIOUS),
    ("verify", "--scope", "read", PRECIOUS),
    ("verify", "--metadata", PRECIOUS),
    ("verify", "--max-age", PRECIOUS),
    ("verify", f"--{PRECIOUS}"),
    ("verify", f"--metadata={PRECIOUS}"),
    ("verify", "--key", PRECIOUS),
    ("why", PRECIOUS),
    ("why", "--scope", "read", PRECIOUS),
    ("why", "--max-age", PRECIOUS),
    ("ping", PRECIOUS),
    ("status", PRECIOUS),
    ("sync", PRECIOUS),
    ("sync", "--timeout", PRECIOUS),
    ("mint", PRECIOUS),
    ("mint", "--prefix", PRECIOUS),
    ("mint", "--prefix", "p", "--count", PRECIOUS),
    ("sql", PRECIOUS),
    ("sql", PRECIOUS, "--config", "/nonexistent"),
    (f"--json={PRECIOUS}", "ping"),
]


@pytest.mark.parametrize("arguments", SLIPS, ids=" ".join)
def test_an_argument_that_may_be_a_key_is_never_repeated(arguments: tuple[str, ...]) -> None:
    done = Cli(NOWHERE).run(*arguments, stdin=b"key\n").expect(2)
    assert PRECIOUS not in done.stdout + done.stderr
    assert done.stderr.startswith("latchkey: ")


COMMANDS = [("verify",), ("why",), ("sync",), ("ping",), ("status",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("there", ["nothing", "no folder", "stale", "plain", "folder", "long"])
def test_where_no_daemon_answers_there_is_no_answer(command: tuple[str, ...], there: str) -> None:
    temporary = TemporaryFolder()
    path = temporary.path / "latchkey.sock"
    if there == "stale":
        make_stale(path)
    elif there == "plain":
        path.touch()
    elif there == "folder":
        path.mkdir()
    elif there == "no folder":
        path = path / "latchkey.sock"
    elif there == "long":
        path = path / ("x" * 108)
    done = Cli(path).run("--socket", str(path), *command, stdin=b"sk_key\n").expect(3)
    assert done.stdout == "" and str(path) in done.stderr and "sk_key" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    temporary.close()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01",
        b"\x01\x82\0\0\x10\0\0\0" + bytes(8),  # a reply to another request
        b"\x01\x81\0\0\xff\xff\xff\xff" + bytes(8),  # a frame of four gigabytes
        b"\x01\xff\0\0\x12\0\0\0" + bytes(10),  # error zero
    ],
    ids=["nothing", "HTTP", "one byte", "another", "too long", "no error"],
)
def test_what_is_no_latchkeyd_gives_no_answer(
    command: tuple[str, ...], reply: bytes | None
) -> None:
    temporary = TemporaryFolder()
    path = temporary.path / "latchkey.sock"
    with listening(path, reply):
        done = Cli(path).run("--socket", str(path), *command, stdin=b"sk_key\n").expect(3)
    assert done.stdout == "" and str(path) in done.stderr and len(done.stderr.splitlines()) == 1
    temporary.close()


@pytest.fixture(scope="module")
def served(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A daemon with one key, for the client's options."""
    with one_key(cluster, databases, "sk_served") as there, there.serve():
        yield there


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("where", ["before", "behind", "around", "environment", "both"])
def test_common_options_stand_before_or_behind_the_command(
    served: Installation, command: tuple[str, ...], where: str
) -> None:
    path = ["--socket", str(served.socket)]
    arguments: list[str] = {
        "before": ["--json", *path, *command],
        "behind": [*command, "--json", *path],
        "around": [*path, *command, "--json"],
        "environment": [*command, "--json"],
        "both": [*path, *command, "--json"],
    }[where]
    env = {
        "environment": {"LATCHKEY_SOCKET": str(served.socket)},
        "both": {"LATCHKEY_SOCKET": str(NOWHERE)},  # the option takes precedence
    }.get(where)
    done = served.cli.run(*arguments, stdin=b"sk_served\n", env=env).expect(0)
    (answer,) = done.json_lines()
    assert answer and done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_json_people_are_told_in_words(
    served: Installation, command: tuple[str, ...]
) -> None:
    done = served.cli.run("--socket", str(served.socket), *command, stdin=b"sk_served\n").expect(0)
    assert done.stdout and done.stderr == ""
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)


def test_a_source_that_may_be_a_key_is_not_repeated_by_the_daemon(served: Installation) -> None:
    done = served.cli.run(
        "--socket", str(served.socket), "verify", "--source", PRECIOUS, stdin=b"sk_served\n"
    )
    assert done.exit_code == 2 and PRECIOUS not in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_that_may_not_be_opened_says_how_to_change_that(served: Installation) -> None:
    done = served.cli.run("--socket", str(served.socket), "ping", uid=4001).expect(3)
    assert "may not open it" in done.stderr and "`mode`" in done.stderr
