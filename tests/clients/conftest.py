"""Shared fixtures of the client tests."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.folder import TemporaryFolder
from harness.programs import REPOSITORY
from installation import Databases, Keys

sys.path[:0] = [str(Path(__file__).resolve().parent), str(REPOSITORY / "client/python/src")]

from served import Here  # noqa: E402


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder for drivers' builds, and for the sockets of fake servers."""
    folder = TemporaryFolder()
    yield folder.path
    folder.close()


@pytest.fixture(scope="module")
def here(cluster, databases: Databases) -> Iterator[Here]:
    keys = Keys(cluster, databases.new("api_keys"))
    with keys.serve() as daemon:
        yield Here(keys, daemon)
    keys.close()


_numbers = itertools.count(1)


@pytest.fixture
def path(scratch: Path) -> Path:
    """The socket path for a fake server."""
    return scratch / f"fake{next(_numbers)}.sock"
