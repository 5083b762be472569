"""Makes the harness importable, and boots one machine for all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.folder import TemporaryFolder  # noqa: E402
from harness.programs import REPOSITORY  # noqa: E402

from machine import CannotBoot, Machine, base, can_boot  # noqa: E402

BUILD = REPOSITORY / os.environ.get("LATCHKEY_BUILD", "build/release")


def make_package(version: str, folder: Path) -> Path:
    """The package of the present build, with a version chosen by the test."""
    subprocess.run(
        ["cpack", "-G", "DEB", "-B", str(folder), "-D", f"CPACK_PACKAGE_VERSION={version}"],
        cwd=BUILD,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    [package] = folder.glob(f"latchkey_{version}_*.deb")
    return package


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    try:
        can_boot()
    except CannotBoot as why:
        pytest.skip(f"no systemd can be booted here: {why}")
    folder = TemporaryFolder()
    folder.path.chmod(0o755)
    try:
        make_package("0.1.1", folder.path)
        root = base(make_package("0.1.0", folder.path))
        with Machine(root, folder.path) as booted:
            yield booted
    except CannotBoot as why:
        pytest.skip(f"systemd-nspawn does not boot here: {why}")
    finally:
        folder.close()
