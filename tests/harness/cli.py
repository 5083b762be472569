"""The built latchkey as a function: the client's calls, verdicts and reports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import child
from .child import Completed, User
from .folder import TemporaryFolder
from .programs import config_file, program


class Verdicts(list[dict[str, Any]]):
    """One verdict per key, in the order of the keys, and the client's exit code."""

    def __init__(self, verdicts: Iterable[dict[str, Any]], exit_code: int, stderr: str) -> None:
        super().__init__(verdicts)
        self.exit_code = exit_code
        self.stderr = stderr

    @property
    def names(self) -> list[str]:
        """The `verdict` of each answer."""
        return [verdict["verdict"] for verdict in self]


# The period of PROTOCOL.md, "status", and a margin.
_STATUS_KEPT_S = 0.15
_uptimes_seen: dict[Path, float] = {}  # the uptime in the last report, by socket


class Cli:
    """The `latchkey` program against one socket. `uid` and `gid` are the caller's, here or per
    call.

    Calls raise AssertionError at an unexpected exit code; `expect=` names another one.
    """

    def __init__(
        self,
        socket: str | Path,
        *,
        uid: int | None = None,
        gid: int | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.socket = Path(socket)
        self._uid = uid
        self._gid = gid
        self._timeout_s = timeout_s

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        uid: int | None = None,
        gid: int | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Completed:
        """Run `latchkey` with exactly these arguments (without --socket); any exit code is accepted."""
        if uid is None:
            uid, gid = self._uid, gid if gid is not None else self._gid
        as_ourselves = uid is None and gid is None
        user = None if as_ourselves else User.of(os.geteuid() if uid is None else uid, gid)
        return child.run(
            [str(program("latchkey", user)), *arguments],
            stdin=stdin,
            user=user,
            env=env,
            cwd=Path("/"),
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
        )

    def verify(
        self,
        keys: str | bytes | Sequence[str | bytes],
        *,
        scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        source: str | None = None,
        max_age: str | None = None,
        metadata: bool = False,
        uid: int | None = None,
        gid: int | None = None,
    ) -> Verdicts:
        """Verdicts for some keys. `exit_code` of the result is 0, 1 or 3; other codes raise."""
        arguments = ["verify", *_terms(scopes, any_scopes, source, max_age)]
        if metadata:
            arguments.append("--metadata")
        lines = _key_lines(keys)
        done = self._ask(*arguments, stdin=b"".join(lines), uid=uid, gid=gid).expect(0, 1, 3)
        verdicts = Verdicts(done.json_lines(), done.exit_code, done.stderr)
        if done.exit_code != 3 and len(verdicts) != len(lines):
            raise AssertionError(f"{len(verdicts)} verdicts for {len(lines)} keys: {done}")
        return verdicts

    def why(
        self,
        key: str | bytes,
        *,
        scopes: Iterable[str] = (),
        any_scopes: Iterable[str] = (),
        source: str | None = None,
        max_age: str | None = None,
        uid: int | None = None,
        expect: int | Sequence[int] = (0, 1),
    ) -> Completed:
        """The output of `latchkey why` for one key."""
        arguments = ["why", *_terms(scopes, any_scopes, source, max_age)]
        expected = [expect] if isinstance(expect, int) else expect
        return self._ask(*arguments, stdin=b"".join(_key_lines(key)), uid=uid).expect(*expected)

    def sync(
        self, timeout: str | None = None, *, uid: int | None = None, expect: int = 0
    ) -> Completed:
        """Return once everything committed before the call is in force. `timeout` like "2s"."""
        limit = [] if timeout is None else ["--timeout", timeout]
        return self._ask("sync", *limit, uid=uid).expect(expect)

    def ping(self, *, uid: int | None = None, expect: int = 0) -> Completed:
        """Whether the daemon answers."""
        return self._ask("ping", uid=uid).expect(expect)

    def status(self, *, uid: int | None = None, expect: int = 0) -> dict[str, Any]:
        """Freshness, sizes, counters, and the state of each source, made after this call.

        The daemon reuses a report for a tenth of a second, so this repeats the request until the
        uptime differs.
        """
        began = asked = time.monotonic()
        while True:
            report = self._report(uid, expect)
            known = _uptimes_seen.get(self.socket, -1.0)
            _uptimes_seen[self.socket] = report["uptime_s"]
            if report["uptime_s"] > known or asked - began > _STATUS_KEPT_S:
                return report
            asked = time.monotonic()

    def _report(self, uid: int | None, expect: int) -> dict[str, Any]:
        done = self._ask("status", uid=uid).expect(expect)
        reports = done.json_lines()
        if len(reports) != 1:
            raise AssertionError(f"{len(reports)} reports instead of one: {done}")
        return reports[0]

    def mint(self, prefix: str, count: int = 1) -> list[dict[str, Any]]:
        """New keys with the digests to store."""
        command = ["--json", "mint", "--prefix", prefix, "--count", str(count)]
        return self.run(*command).expect(0).json_lines()

    def sql(self, action: str, config: str | Path, source: str | None = None) -> str:
        """The DDL that `latchkey sql install|uninstall|grant` prints, for `PrivateCluster.psql`."""
        folder = TemporaryFolder()
        try:
            only = [] if source is None else ["--source", source]
            path = str(config_file(config, folder))
            return self.run("sql", action, "--config", path, *only).expect(0).stdout
        finally:
            folder.close()

    def _ask(
        self, *arguments: str, stdin: bytes = b"", uid: int | None = None, gid: int | None = None
    ) -> Completed:
        common = ["--socket", str(self.socket), "--json"]
        return self.run(*common, *arguments, stdin=stdin, uid=uid, gid=gid)


def _terms(
    scopes: Iterable[str], any_scopes: Iterable[str], source: str | None, max_age: str | None
) -> list[str]:
    arguments = []
    for scope in scopes:
        arguments += ["--scope", scope]
    for scope in any_scopes:
        arguments += ["--any-scope", scope]
    if source is not None:
        arguments += ["--source", source]
    if max_age is not None:
        arguments += ["--max-age", max_age]
    return arguments


def _key_lines(keys: str | bytes | Sequence[str | bytes]) -> list[bytes]:
    lines = []
    for key in [keys] if isinstance(keys, str | bytes) else keys:
        raw = key.encode() if isinstance(key, str) else key
        if b"\n" in raw:
            raise ValueError("a key with a line break would be read as two")
        lines.append(raw + b"\n")
    return lines
