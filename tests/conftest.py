"""What the tests of whole programs share: one PostgreSQL server, and a template of each schema to copy."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE / "system")]

# The names of some tests hold a time; all processes of a run that is spread over several must agree
# on it. This one is there before they are.
os.environ.setdefault("LATCHKEY_TESTS_NOW", str(int(time.time())))

from adversaries import create_roles  # noqa: E402
from harness.postgres import PrivateCluster  # noqa: E402
from installation import Databases, prepare  # noqa: E402


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    """The server that all tests share. Whoever stops or hangs one makes one of their own."""
    with PrivateCluster() as server:
        prepare(server)
        create_roles(server)
        yield server


@pytest.fixture(scope="session")
def databases(cluster: PrivateCluster) -> Databases:
    """Makes a new database from one of the templates, or an empty one."""
    return Databases(cluster)
