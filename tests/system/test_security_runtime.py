"""/run/latchkey belongs to root: no other user can redirect systemd's work there, which it does by
path, as root.

tests/boot shows this on a booted machine; this file checks the files themselves.
"""

from __future__ import annotations

import configparser
import os
import subprocess
from pathlib import Path

import pytest
from harness.programs import REPOSITORY, Daemon, DaemonFailed
from installation import Installation, toml_section

DAEMON_UID = 54_321


def unit(name: str) -> configparser.ConfigParser:
    """A parsed unit; a repeated setting has its last value."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(REPOSITORY / "systemd" / name)
    return parsed


def test_the_folder_of_the_socket_becomes_roots(tmp_path: Path) -> None:
    """This includes a folder that an earlier version gave to the daemon's user, who has planted links there."""
    folder = tmp_path / "run/latchkey"
    folder.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.touch(mode=0o600)
    os.chown(victim, DAEMON_UID, DAEMON_UID)
    (folder / "latchkey.sock").symlink_to(victim)
    os.chown(folder, DAEMON_UID, DAEMON_UID)
    subprocess.run(
        ["systemd-tmpfiles", f"--root={tmp_path}", "--create", REPOSITORY / "systemd/latchkey.tmpfiles"],
        check=True,
    )
    found = folder.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, 0, 0o755)
    assert (victim.stat().st_uid, victim.stat().st_mode & 0o777) == (DAEMON_UID, 0o600)


def test_the_daemon_has_a_folder_of_its_own() -> None:
    service, socket = unit("latchkeyd.service")["Service"], unit("latchkeyd.socket")["Socket"]
    assert service["RuntimeDirectory"] == "latchkeyd"
    assert "/run/latchkey" not in service.get("ReadWritePaths", "")
    assert socket["ListenStream"] == "/run/latchkey/latchkey.sock"
    assert (socket["SocketUser"], socket["DirectoryMode"]) == ("root", "0755")


@pytest.mark.parametrize("section", ["listen", "metrics"])
def test_without_the_service_manager_it_says_where_it_may(section: str, cluster, databases) -> None:
    """An operator who starts the daemon by hand as its own user, with the default path, gets advice."""
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("main", preset="external_credentials")
    os.chown(there.password_file, DAEMON_UID, DAEMON_UID)
    os.chown(there.folder, DAEMON_UID, DAEMON_UID)
    path = f"/run/latchkey/test-{os.getpid()}.sock"
    if section == "listen":
        there.listen["socket"] = path
    else:
        there.more = toml_section("[metrics]", listen=path)
    there.install()
    with pytest.raises(DaemonFailed) as failed, Daemon(there.config, uid=DAEMON_UID):
        pass
    setting = "`socket`" if section == "listen" else "`listen`"
    for said in (f"cannot create {path}", "latchkeyd.socket", "/run/latchkeyd", setting):
        assert said in str(failed.value)
    there.listen["socket"], there.more = str(there.socket), ""
    with Daemon(there.config, uid=DAEMON_UID):
        there.cli.ping()
    there.close()
