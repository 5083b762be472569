"""The drivers: one small program for each client, which runs the commands of the scenario."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import child
from harness.programs import REPOSITORY, program, sanitized
from harness.wait import scaled, until

CLIENTS = REPOSITORY / "client"

#: The environment of programs that import the Python client from the tree, and leave no traces there.
PYTHON = {"PYTHONPATH": str(CLIENTS / "python/src"), "PYTHONDONTWRITEBYTECODE": "1"}

#: The clients that a sanitizer build contains; all of them otherwise.
NAMES = ["c", "cpp"] if sanitized() else ["c", "cpp", "python", "python-asyncio", "go", "node"]


def _command(name: str, scratch: Path) -> list[str]:
    here = REPOSITORY / "tests/clients"
    if name == "go":
        built = scratch / "driver_go"
        if not built.exists():
            build = ["go", "build", "-o", str(built), "."]
            environment = os.environ | {"GOFLAGS": "-mod=mod", "GOPROXY": "off"}
            subprocess.run(build, cwd=here / "driver_go", env=environment, check=True, timeout=300)
        return [str(built)]
    return {
        "c": lambda: [str(program("latchkey_driver_c"))],
        "cpp": lambda: [str(program("latchkey_driver_cpp"))],
        "python": lambda: ["/usr/bin/python3", str(here / "driver.py")],
        "python-asyncio": lambda: ["/usr/bin/python3", str(here / "driver.py"), "--asyncio"],
        "node": lambda: ["node", str(here / "driver.js")],
    }[name]()


class Driver:
    """One client with one handle, for the duration of the block."""

    def __init__(self, name: str, socket: Path, scratch: Path) -> None:
        environment = os.environ | PYTHON | {"LATCHKEY_SOCKET": str(socket)}
        self._process = subprocess.Popen(
            _command(name, scratch), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._read = b""

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            code = self._process.wait(scaled(10))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()
        assert kind is not None or code == 0, f"the driver ended with {code}"

    def freeze(self) -> None:
        """SIGSTOP, as on a suspended host; returns once the driver has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        until(lambda: child.state(self._process.pid) in "tT", 10, "the driver stands still")

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    # ---- commands

    def verify(
        self,
        *keys: str,
        timeout_ms: int = 10000,
        max_age: str = "any",
        source: str = "-",
        all_scopes: Sequence[str] = (),
        any_scopes: Sequence[str] = (),
    ) -> dict[str, Any]:
        """{"answers": [...]} or a failure."""
        terms = [max_age, source, ",".join(all_scopes) or "-", ",".join(any_scopes) or "-"]
        return self.run("verify", timeout_ms, *terms, *keys)

    def verdicts(self, *keys: str, **terms: Any) -> list[str]:
        """The verdicts alone; a failure fails the test."""
        result = self.verify(*keys, **terms)
        assert "answers" in result, result
        return [answer["verdict"] for answer in result["answers"]]

    def run(self, *words: str | int) -> dict[str, Any]:
        """One command and its result."""
        self.start(*words)
        return self.result()

    def start(self, *words: str | int) -> None:
        """Send a command; `result` returns its result later."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, words)).encode() + b"\n")
        self._process.stdin.flush()

    def result(self, deadline_s: float = 60.0) -> dict[str, Any]:
        """The next line that the driver prints."""
        assert self._process.stdout is not None
        limit = time.monotonic() + scaled(deadline_s)
        while b"\n" not in self._read:
            left = max(limit - time.monotonic(), 0)
            ready, _, _ = select.select([self._process.stdout], [], [], left)
            assert ready, "the driver printed nothing: a call of the client has not come back"
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            assert part, f"the driver ended with {self._process.wait(scaled(10))}"
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        found = json.loads(line)
        assert isinstance(found, dict)
        return found
