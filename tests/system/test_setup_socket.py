"""The socket's path at the start: occupied, stale, missing; and the mode of the new socket."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from installation import Databases, Installation, one_key
from occupied import listening, make_stale
from refusals import WORLD, assert_refused


@pytest.fixture(scope="module")
def placed(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """An installation with a socket path that a test may occupy; the test frees it again."""
    with one_key(cluster, databases, "sk_placed") as there:
        yield there


@contextlib.contextmanager
def plain_file(path: Path) -> Iterator[None]:
    path.write_text("precious")
    yield
    assert path.read_text() == "precious"
    path.unlink()


@contextlib.contextmanager
def folder(path: Path) -> Iterator[None]:
    path.mkdir()
    yield
    path.rmdir()


@contextlib.contextmanager
def symlink(path: Path) -> Iterator[None]:
    """A program that followed the link would delete or replace its target."""
    target = path.with_name("target")
    target.write_text("precious")
    path.symlink_to(target)
    yield
    assert path.is_symlink() and target.read_text() == "precious"
    path.unlink()
    target.unlink()


@contextlib.contextmanager
def symlink_to_a_stale_socket(path: Path) -> Iterator[None]:
    target = path.with_name("target")
    make_stale(target)
    path.symlink_to(target)
    yield
    assert path.is_symlink() and target.is_socket()
    path.unlink()
    target.unlink()


OCCUPIED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a plain file": (plain_file, ("is not a socket", "Move it away")),
    "a folder": (folder, ("is not a socket", "Move it away")),
    "a symbolic link": (symlink, ("is not a socket", "Move it away")),
    "a link to a socket": (symlink_to_a_stale_socket, ("is not a socket", "Move it away")),
    "another program": (listening, ("some other program listens", "Stop it first")),
}


@pytest.mark.parametrize(("occupy", "said"), OCCUPIED.values(), ids=OCCUPIED.keys())
def test_what_stands_at_the_sockets_path_is_named_and_stays(
    placed: Installation, occupy: Callable[[Path], Any], said: tuple[str, ...]
) -> None:
    with occupy(placed.socket):
        assert_refused(placed.config, "start", WORLD, str(placed.socket), *said)


def test_a_second_instance_is_refused_and_harms_the_first_in_nothing(placed: Installation) -> None:
    with Daemon(placed.config):
        assert_refused(
            placed.config, "start", WORLD, "another latchkeyd serves", str(placed.socket), "Stop it"
        )
        assert placed.verdict("sk_placed") == "valid"


@pytest.mark.parametrize("way", ["missing", "a file"])
def test_a_folder_that_is_not_there_is_named(placed: Installation, way: str) -> None:
    parent = placed.folder / "nowhere"
    if way == "a file":
        parent.touch()
    config = placed.config.replace(str(placed.socket), str(parent / "latchkey.sock"))
    assert_refused(config, "start", WORLD, str(parent), "Does the folder exist")
    parent.unlink(missing_ok=True)


def test_a_socket_that_nobody_listens_on_is_taken_over(placed: Installation) -> None:
    make_stale(placed.socket)
    with Daemon(placed.config):
        assert placed.verdict("sk_placed") == "valid"
    assert not placed.socket.exists()


def test_a_killed_daemon_can_be_started_again(placed: Installation) -> None:
    with Daemon(placed.config) as daemon:
        for _ in range(2):
            daemon.kill()
            assert placed.socket.is_socket(), "it could not clean up"
            placed.cli.ping(expect=3)
            daemon.start().wait_ready()
            assert placed.verdict("sk_placed") == "valid"


@pytest.mark.parametrize("mode", ["0600", "0660", "0666"])
def test_the_socket_has_the_mode_configured(placed: Installation, mode: str) -> None:
    config = placed.config.replace("[listen]", f'[listen]\nmode = "{mode}"')
    with Daemon(config):
        assert placed.socket.stat().st_mode & 0o777 == int(mode, 8)
