"""Refusals to start: a correct installation to spoil, and checks of the exit code and of the reason."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from harness.postgres import PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import scaled
from installation import PASSWORD, Databases, Keys

Way = Literal["check", "start"]
WAYS: tuple[Way, ...] = ("check", "start")

USAGE, WORLD = 2, 1  # exit codes: the configuration is wrong; the system does not match it

# The daemon retries database errors for this long, so most tests wait for it. A slow machine takes
# longer to find the cause, and then gets a longer patience.
PATIENCE_S = (0.3, 2.0, 10.0)
TOO_SHORT = "were not loaded within the time allowed (`start_timeout`)"


def patience(seconds: float) -> str:
    return f"{round(scaled(seconds) * 1000)}ms"


def outcome(config: str | Path, way: Way) -> tuple[int, str]:
    """The exit code, and the complete output."""
    if way == "check":
        done = check_config(config)
        return done.exit_code, done.stdout + done.stderr
    with Daemon(config, wait=False) as daemon:
        code = daemon.wait_exit(20)
        assert daemon.notifications.count("READY=1") == 0
        return code, daemon.log()


def assert_refused(config: str | Path, way: Way, exit_code: int, *said: str) -> str:
    """The start fails with this code, and one line has all these texts. Returns the complete output."""
    code, text = outcome(config, way)
    for short, longer in itertools.pairwise(PATIENCE_S):
        if TOO_SHORT not in text or TOO_SHORT in said or not isinstance(config, str):
            break
        config = config.replace(f'"{patience(short)}"', f'"{patience(longer)}"')
        code, text = outcome(config, way)
    assert code == exit_code, text
    fitting = [line for line in text.splitlines() if all(part in line for part in said)]
    assert fitting, f"no line says all of {said}:\n{text}"
    for word in (PASSWORD, "terminate called", "what():", "Traceback"):
        assert word not in text
    return text


@contextlib.contextmanager
def correct(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation over its own database."""
    with contextlib.closing(Keys(cluster, databases.new("api_keys"))) as there:
        there.install()
        yield there
