"""Each example runs and behaves as its file describes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivers import CLIENTS, PYTHON
from harness.wait import scaled, until
from served import Here

def free_port() -> int:
    """An unused TCP port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Web:
    """The web application of an example."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ask(
        self, path: str, key: str | None = None, *, method: str = "GET", header: str = "bearer"
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (in lower case) and JSON body."""
        headers = {}
        if key is not None:
            named = ("Authorization", f"Bearer {key}") if header == "bearer" else (header, key)
            headers = dict([named])
        request = urllib.request.Request(self._base + path, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=scaled(20)) as reply:
                return reply.status, _small(reply.headers), json.load(reply)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, _small(refusal.headers), json.load(refusal)


def _small(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, socket_path: Path, log: Path, **environment: str
) -> Iterator[Web]:
    """The application, from its first answer until the block ends."""
    env = os.environ | {"LATCHKEY_SOCKET": str(socket_path), "PORT": str(port)} | environment
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        until(up, 60, "the example listens")
        yield Web(port)
    finally:
        process.terminate()
        process.wait(scaled(20))


def check_web(web: Web, here: Here) -> None:
    """The checks common to the examples of all languages."""
    assert web.ask("/health")[0] == 200

    me = {"subject": str(here.keys.user), "tenant": str(here.keys.tenant)}
    for header in ("bearer", "X-API-Key"):
        status, _, body = web.ask("/me", "key_valid", header=header)
        assert status == 200
        assert body == me | {"scopes": ["read", "write"]}

    status, headers, body = web.ask("/me")
    assert (status, headers["www-authenticate"], body) == (401, "Bearer", {"error": "missing_key"})
    for key in ("key_revoked", "key_expired", "no_such_key", "x" * 5000):
        status, headers, body = web.ask("/me", key)
        assert (status, body) == (401, {"error": "invalid_token"}), key
        assert headers["www-authenticate"] == 'Bearer error="invalid_token"'

    assert web.ask("/things", "key_valid", method="POST")[2] == {"created_by": me["subject"]}
    assert web.ask("/things", "key_reader", method="POST")[0] == 403

    here.daemon.stop()
    try:
        status, headers, body = web.ask("/me", "key_valid")
        assert (status, headers["retry-after"], body) == (503, "1", {"error": "unavailable"})
    finally:
        here.daemon.start().wait_ready()
    assert web.ask("/me", "key_valid")[0] == 200


def test_fastapi(here: Here, scratch: Path) -> None:
    port = free_port()
    command = ["/usr/bin/python3", "-m", "uvicorn", "--port", str(port)]
    command += ["--app-dir", str(CLIENTS / "python/examples"), "fastapi_app:app"]
    log = scratch / "fastapi.log"
    with running(command, port, here.keys.socket, log, **PYTHON) as web:
        check_web(web, here)
    assert "no answer (connect): cannot connect to" in log.read_text()
    assert "key_valid" not in log.read_text()


def test_go(here: Here, scratch: Path) -> None:
    built = scratch / "go_server"
    build = ["go", "build", "-o", str(built), "./examples/server"]
    subprocess.run(build, cwd=CLIENTS / "go", check=True, timeout=300)
    log = scratch / "go.log"
    with running([str(built)], free_port(), here.keys.socket, log) as web:
        check_web(web, here)
    assert "no answer: cannot connect to" in log.read_text()
    assert "key_valid" not in log.read_text()


@pytest.fixture(scope="module")
def node(scratch: Path) -> Path:
    """The Node client and its examples, installed as the README describes."""
    there = scratch / "node"
    shutil.copytree(CLIENTS / "node", there)
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
    subprocess.run(install, cwd=there / "examples", check=True, timeout=300)
    return there / "examples"


@pytest.mark.parametrize("framework", ["express", "fastify"])
def test_node(here: Here, scratch: Path, node: Path, framework: str) -> None:
    command = ["node", str(node / f"{framework}_app.js")]
    log = scratch / f"{framework}.log"
    with running(command, free_port(), here.keys.socket, log) as web:
        check_web(web, here)
    assert "no answer (connect): cannot connect to" in log.read_text()
    assert "key_valid" not in log.read_text()


def test_node_types(node: Path) -> None:
    compiler = ["node", "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "verify.ts"]
    compiler += ["--module", "node16", "--moduleResolution", "node16", "--target", "es2022"]
    done = subprocess.run(compiler, cwd=node, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    # A control: the types must reject a wrong call, too.
    (node / "wrong.ts").write_text(
        'import { Client } from "latchkey";\nnew Client().verify("k", { allscopes: ["x"] });\n'
    )
    compiler[compiler.index("verify.ts")] = "wrong.ts"
    done = subprocess.run(compiler, cwd=node, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "allscopes" in done.stdout, done.stdout
