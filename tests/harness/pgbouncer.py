"""A private PgBouncer before a private server, in a temporary folder that is removed afterwards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

from . import child
from .folder import TemporaryFolder
from .postgres import PASSWORD_ROLE, PrivateCluster, unprivileged_user
from .wait import scaled, until

_PORT = 6432  # names its socket file
_DEADLINE_S = 20.0


class PgBouncer:
    """`with PgBouncer(cluster, password, mode="transaction") as pooler:` takes connections in `pooler.folder`.

    It admits every client, and connects to the server as PASSWORD_ROLE. `size` is the number of server
    connections per database; `server_folder` is the folder of a proxy before the server.
    """

    def __init__(
        self,
        cluster: PrivateCluster,
        password: str,
        *,
        mode: str,
        size: int = 20,
        server_folder: Path | None = None,
    ) -> None:
        self._server = f"host={server_folder or cluster.socket_dir} port={cluster.port}"
        self._password = password
        self._size = size
        self._temporary = TemporaryFolder()
        self._user = unprivileged_user()  # PgBouncer refuses to run as root, too
        self.folder = self._temporary.subfolder("s")
        if self._user is not None:
            os.chown(self.folder, self._user.uid, self._user.gid)
        self.socket = self.folder / f".s.PGSQL.{_PORT}"
        self._config = self._temporary.path / "pgbouncer.ini"
        self._write(mode)
        self._log = self._temporary.path / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PgBouncer:
        with self._log.open("ab") as output:
            self._process = child.spawn(
                ["pgbouncer", str(self._config)], output=output, user=self._user
            )
        until(self._accepts, _DEADLINE_S, "PgBouncer takes connections")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(scaled(_DEADLINE_S))
        self._temporary.close()

    def switch(self, mode: str) -> None:
        """Change pool_mode as an operator does: edit the file, then RELOAD."""
        assert self._process is not None
        before = self.logs().count("got SIGHUP")
        self._write(mode)
        self._process.send_signal(signal.SIGHUP)
        until(lambda: self.logs().count("got SIGHUP") > before, _DEADLINE_S, "it reads its file")

    def conninfo(self, dbname: str, folder: Path | None = None) -> str:
        """A conninfo for libpq; `folder` is that of a proxy before the pooler."""
        return f"host={folder or self.folder} port={_PORT} dbname={dbname} user={PASSWORD_ROLE}"

    def logs(self) -> str:
        """The pooler's log so far."""
        return self._log.read_text(errors="replace")

    def _write(self, mode: str) -> None:
        self._config.write_text(
            f"[databases]\n* = {self._server} user={PASSWORD_ROLE} password={self._password}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {_PORT}\nunix_socket_dir = {self.folder}\n"
            f"auth_type = any\npool_mode = {mode}\ndefault_pool_size = {self._size}\n"
        )
        self._config.chmod(0o644)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.logs()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0
