"""Shared fixtures of the tests of whole programs: a PostgreSQL server, and a template of each schema."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE / "system")]

# The names of some tests contain a time, on which all processes of a parallel run must agree. This
# process starts before them.
os.environ.setdefault("LATCHKEY_TESTS_NOW", str(int(time.time())))

from adversaries import create_roles  # noqa: E402
from harness.postgres import PrivateCluster  # noqa: E402
from installation import Databases, prepare  # noqa: E402


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    """The server shared by all tests. A test that stops or hangs a server makes its own."""
    with PrivateCluster() as server:
        prepare(server)
        create_roles(server)
        yield server


@pytest.fixture(scope="session")
def databases(cluster: PrivateCluster) -> Databases:
    """Creates databases from one of the templates, or empty ones."""
    return Databases(cluster)
