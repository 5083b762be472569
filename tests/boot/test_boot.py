"""The package on a real Debian with a real systemd, from installation to purge.

The tests depend on each other, in this order, on one machine.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from harness.wait import scaled
from machine import Machine

KEY, REVOKED, NEW = "sk_good_0123456789abcdef", "sk_gone_0123456789abcdef", "sk_next_0123456789abcdef"
HASHED = "sk_hashed_0123456789abcdef"
PASSWORD = "a-password-that-nobody-sees"
PEPPER = "0123456789abcdef0123456789abcdef"

CONFIG = """
[metrics]
listen = "/run/latchkeyd/metrics.sock"
[freshness]
heartbeat = "250ms"
[[database]]
name = "main"
conninfo = "host=127.0.0.1 dbname=app user=latchkey"
password_file = "pgpass"
[[source]]
name = "keys"
table = "public.api_key"
scheme = "plain"
id = "id"
key = "key"
subject = "owner"
revoked_at = "revoked_at"
[[source]]
name = "hashed"
table = "public.hashed_key"
scheme = "hmac-sha256"
peppers = "peppers"
id = "id"
key = "digest"
key_version = "version"
[[allow]]
user = "app"
reasons = true
"""

TABLES = f"""
CREATE TABLE api_key (id int PRIMARY KEY, key text NOT NULL UNIQUE, owner text, revoked_at timestamptz);
INSERT INTO api_key VALUES (1, '{KEY}', 'ann', NULL), (2, '{REVOKED}', 'bob', now());
CREATE TABLE hashed_key (id int PRIMARY KEY, digest bytea NOT NULL, version text NOT NULL);
CREATE EXTENSION pgcrypto;
INSERT INTO hashed_key VALUES (1, hmac('{HASHED}', '{PEPPER}', 'sha256'), 'first_v1.key');
"""


def psql(machine: Machine, sql: str, database: str = "app") -> str:
    return machine.run(
        "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-d", database, user="postgres", stdin=sql
    )


def verify(machine: Machine, *keys: str, user: str = "app", code: int | None = 0) -> list[str]:
    """The verdict of each key."""
    told = machine.run("latchkey", "verify", user=user, stdin="\n".join(keys) + "\n", code=code)
    return [line.split()[0] for line in told.splitlines()]


def main_pid(machine: Machine) -> int:
    return int(machine.unit("latchkeyd.service", "MainPID"))


def is_ready(machine: Machine) -> bool:
    return machine.unit("latchkeyd.service", "SubState") == "running"


# ---- installation


def test_installs_and_waits_for_a_configuration(machine: Machine) -> None:
    machine.run("sh", "-c", "dpkg --install /mnt/latchkey_0.1.0_*.deb")
    for unit in ("latchkeyd.service", "latchkeyd.socket"):
        assert machine.unit(unit, "UnitFileState") == "enabled"
        assert machine.unit(unit, "ActiveState") == "inactive", "there is nothing to serve yet"
    assert machine.run("stat", "-c", "%U %G %a", "/run/latchkey").strip() == "root root 755"
    assert machine.run("stat", "-c", "%U %G %a", "/etc/latchkey").strip() == "root latchkey 750"
    assert machine.run("latchkeyd", "--version").strip() == "latchkeyd 0.1.0"
    assert machine.run("systemctl", "--failed", "--no-legend") == ""


def test_is_prepared_as_the_readme_says(machine: Machine) -> None:
    machine.wait(lambda: psql(machine, "SELECT 1", "postgres") == "1\n", 60, "PostgreSQL is there")
    psql(machine, "CREATE DATABASE app", "postgres")
    psql(machine, TABLES)
    machine.run("useradd", "--groups", "latchkey-clients", "app")
    machine.run("useradd", "stranger")
    machine.run("useradd", "--groups", "latchkey-clients", "unlisted")
    machine.write("/etc/latchkey/latchkey.toml", CONFIG)
    machine.write("/etc/latchkey/pgpass", PASSWORD + "\n", "0600")
    machine.write("/etc/latchkey/peppers/first_v1.key", PEPPER, "0600")
    config = ("--config", "/etc/latchkey/latchkey.toml")
    psql(machine, machine.run("latchkey", "sql", "grant", *config))
    psql(machine, machine.run("latchkey", "sql", "install", *config))
    psql(machine, f"ALTER ROLE latchkey PASSWORD '{PASSWORD}'")
    machine.write(
        "/etc/systemd/system/latchkeyd.service.d/secrets.conf",
        "[Service]\nLoadCredential=pgpass:/etc/latchkey/pgpass\n"
        "LoadCredential=peppers:/etc/latchkey/peppers\n",
    )
    machine.run("systemctl", "daemon-reload")


# ---- service


def test_serves_an_unprivileged_user(machine: Machine) -> None:
    machine.run("systemctl", "start", "latchkeyd.socket", "latchkeyd.service")
    assert is_ready(machine), "start returns at READY=1"
    assert verify(machine, KEY, REVOKED, "sk_unknown_0123456789", HASHED, code=1) == [
        "valid",
        "revoked",
        "unknown",
        "valid",
    ]
    assert machine.unit("latchkeyd.service", "StatusText") == "Serving: 2 sources fresh"
    socket = machine.run("stat", "-c", "%U %G %a", "/run/latchkey/latchkey.sock").strip()
    assert socket == "root latchkey-clients 660"
    folder = machine.run("stat", "-c", "%U %G %a", "/run/latchkeyd").strip()
    assert folder == "latchkey latchkey 755", "its own"


def test_only_root_changes_the_folder_of_the_socket(machine: Machine) -> None:
    """systemd changes owners of paths there, as root: the daemon's user must not be able to redirect it."""
    for who in ("latchkey", "app"):
        for command in (
            "touch /run/latchkey/planted",
            "ln -s /etc/shadow /run/latchkey/planted",
            "mkdir /run/latchkey/planted",
            "mv /run/latchkey/latchkey.sock /run/latchkey/elsewhere",
            "mv /run/latchkey /run/elsewhere",
            "rm -f /run/latchkey/latchkey.sock",
            "ln -sf /etc/shadow /run/latchkey/latchkey.sock",
            "chmod 0666 /run/latchkey/latchkey.sock",
            "chmod 0777 /run/latchkey",
        ):
            machine.run("sh", "-c", command, user=who, code=1)
    assert machine.run("ls", "-A", "/run/latchkey").split() == ["latchkey.sock"]
    assert verify(machine, KEY) == ["valid"]


def test_is_confined_as_the_readme_says(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", "latchkeyd.service")
    [exposure] = re.findall(r"Overall exposure level for latchkeyd.service: ([0-9.]+)", told)
    assert float(exposure) <= 1.4


def test_refuses_whom_nobody_named(machine: Machine) -> None:
    machine.run("latchkey", "ping", user="stranger", code=3)
    machine.run("latchkey", "ping", user="unlisted", code=3)
    machine.run("latchkey", "ping")


def test_a_revocation_is_in_force(machine: Machine) -> None:
    psql(machine, f"INSERT INTO api_key VALUES (3, '{NEW}', 'eve', NULL)")
    machine.run("latchkey", "sync", user="app")
    assert verify(machine, NEW) == ["valid"]
    psql(machine, f"UPDATE api_key SET revoked_at = now() WHERE key = '{NEW}'")
    machine.run("latchkey", "sync", user="app")
    assert verify(machine, NEW, code=1) == ["revoked"]


def test_logs_to_the_journal_with_fields(machine: Machine) -> None:
    lines = [json.loads(line) for line in machine.journal("latchkeyd", "-o", "json").splitlines()]
    ours = [line for line in lines if line.get("_COMM", "").startswith("latchkeyd")]
    [serves] = [line for line in ours if " serves 2 sources" in line["MESSAGE"]]
    assert serves["PRIORITY"] == "6"
    assert serves["SYSLOG_IDENTIFIER"] == "latchkeyd"
    assert serves["_SYSTEMD_UNIT"] == "latchkeyd.service"
    text = json.dumps(lines)
    assert PASSWORD not in text and PEPPER not in text and KEY not in text


def test_tells_its_metrics(machine: Machine) -> None:
    ask = (
        'use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new("/run/latchkeyd/metrics.sock") or die $!;'
        ' print $s "GET /metrics HTTP/1.0\\r\\n\\r\\n"; print while <$s>;'
    )
    told = machine.run("perl", "-e", ask)
    assert told.startswith("HTTP/1.1 200 OK") or told.startswith("HTTP/1.0 200 OK")
    assert 'latchkey_source_state{source="keys",state="fresh"} 1' in told


# ---- the sandbox

PROBE = r"""
use Socket;
sub report { print "$_[0]: ", ($_[1] ? "done" : $! + 0), "\n"; }
report("write /etc", open(my $a, ">", "/etc/latchkey/probe"));
report("write /usr", open(my $b, ">", "/usr/probe"));
report("write tmp", open(my $c, ">", "/var/tmp/probe"));
report("write run", open(my $d, ">", "/run/latchkey/probe"));
report("write own", open(my $l, ">", "/run/latchkeyd/probe") && unlink("/run/latchkeyd/probe"));
report("read home", opendir(my $h, "/home/app"));
report("unix", socket(my $e, AF_UNIX, SOCK_STREAM, 0));
report("inet", socket(my $f, AF_INET, SOCK_STREAM, 0));
report("packet", socket(my $g, 17, SOCK_RAW, 0));
report("vsock", socket(my $i, 40, SOCK_STREAM, 0));
report("io_uring", syscall(425, 1, 0) >= 0);
report("unshare", syscall(272, 0x10000000) >= 0);
report("mount", syscall(165, 0, 0, 0, 0, 0) >= 0);
report("bpf", syscall(321, 0, 0, 0) >= 0);
report("keyctl", syscall(250, 0, 0) >= 0);
report("device", open(my $k, "<", "/dev/mem"));
report("others", -d "/proc/1");
"""


def probe(machine: Machine, *dropins: tuple[str, str]) -> dict[str, str]:
    """The abilities of a program under the unit's settings: the unit itself, with another ExecStart."""
    machine.run("cp", "/usr/lib/systemd/system/latchkeyd.service", "/etc/systemd/system/probe.service")
    machine.run("rm", "-rf", "/etc/systemd/system/probe.service.d")
    machine.write("/mnt/probe.pl", PROBE)
    for name, text in dropins:
        machine.write(f"/etc/systemd/system/probe.service.d/{name}", text)
    machine.write(
        "/etc/systemd/system/probe.service.d/zz-probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStart=\n"
        "ExecStart=/usr/bin/perl /mnt/probe.pl\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "probe.service")
    told = machine.journal("probe", "-o", "cat")
    found = dict(re.findall(r"^([\w /]+): (done|\d+)$", told, re.MULTILINE))
    assert len(found) == PROBE.count("\nreport("), told
    return found


EPERM, EACCES, ENOENT, EROFS, EAFNOSUPPORT = "1", "13", "2", "30", "97"


def test_the_sandbox_holds(machine: Machine) -> None:
    can = probe(machine)
    assert can["write /etc"] == EROFS
    assert can["write /usr"] == EROFS
    assert can["write run"] in (EACCES, EROFS)
    assert can["write own"] == "done"
    assert can["read home"] in (EACCES, ENOENT)
    assert (can["unix"], can["inet"]) == ("done", "done")
    assert (can["packet"], can["vsock"]) == (EAFNOSUPPORT, EAFNOSUPPORT)
    for call in ("io_uring", "unshare", "mount", "bpf", "keyctl"):
        assert can[call] == EPERM, call
    assert can["device"] in (EACCES, EPERM, ENOENT)
    assert can["others"] != "done"
    assert can["write tmp"] == "done", "into a /var/tmp of its own"
    machine.run("test", "!", "-e", "/var/tmp/probe")


# ---- life


def test_reloads(machine: Machine) -> None:
    pid = main_pid(machine)
    machine.write("/etc/latchkey/latchkey.toml", CONFIG.replace("reasons = true", "reasons = false"))
    machine.run("systemctl", "reload", "latchkeyd")
    machine.wait(lambda: verify(machine, REVOKED, code=1) == ["unknown"], 10, "it is taken over")
    machine.write("/etc/latchkey/latchkey.toml", CONFIG.replace("[freshness]", "[freshnes]"))
    machine.run("systemctl", "reload", "latchkeyd", code=1)
    machine.wait(lambda: "reload failed" in machine.journal("latchkeyd"), 10, "it complains")
    assert verify(machine, KEY) == ["valid"]
    machine.write("/etc/latchkey/latchkey.toml", CONFIG)
    machine.run("systemctl", "reload", "latchkeyd")
    machine.wait(lambda: verify(machine, REVOKED, code=1) == ["revoked"], 10, "as it was")
    assert main_pid(machine) == pid and is_ready(machine)


def test_a_crash_refuses_nobody(machine: Machine) -> None:
    for _ in range(5):
        pid = main_pid(machine)
        machine.run("sh", "-c", f"kill -KILL {pid}")
        assert verify(machine, KEY) == ["valid"], "whoever connects waits"
        machine.wait(lambda: main_pid(machine) not in (0, pid), 10, "it has been started again")  # noqa: B023


def test_a_crash_loop_is_never_given_up(machine: Machine) -> None:
    """More restarts than systemd's default limits for services and sockets permit."""
    machine.write("/etc/latchkey/latchkey.toml", "this is no configuration")
    restarts = int(machine.unit("latchkeyd.service", "NRestarts"))
    machine.run("systemctl", "restart", "latchkeyd.service", code=None)
    machine.wait(
        lambda: int(machine.unit("latchkeyd.service", "NRestarts")) > restarts + 25, 60, "it tries"
    )
    assert machine.unit("latchkeyd.socket", "ActiveState") == "active"
    machine.write("/etc/latchkey/latchkey.toml", CONFIG)
    assert verify(machine, KEY) == ["valid"], "whoever has connected meanwhile has waited"


def test_the_watchdog_ends_a_stopped_daemon(machine: Machine) -> None:
    pid, restarts = main_pid(machine), int(machine.unit("latchkeyd.service", "NRestarts"))
    machine.run("sh", "-c", f"kill -STOP {pid}")
    machine.wait(
        lambda: int(machine.unit("latchkeyd.service", "NRestarts")) > restarts, 30, "it is ended"
    )
    machine.wait(lambda: is_ready(machine), 30, "and started")
    assert main_pid(machine) != pid
    assert "Watchdog timeout" in machine.journal("latchkeyd")
    assert verify(machine, KEY) == ["valid"]


def test_the_database_goes_and_comes_again(machine: Machine) -> None:
    machine.run("systemctl", "stop", "postgresql@15-main")
    assert verify(machine, KEY) == ["valid"], "known for long"
    machine.wait(
        lambda: "lost" in machine.unit("latchkeyd.service", "StatusText"), 30, "its status tells"
    )
    machine.run("systemctl", "start", "postgresql@15-main")
    machine.wait(
        lambda: machine.unit("latchkeyd.service", "StatusText") == "Serving: 2 sources fresh",
        30,
        "it is in step again",
    )


def test_a_local_database_needs_no_network(machine: Machine) -> None:
    folder = "/etc/systemd/system/latchkeyd.service.d"
    machine.run("cp", "/usr/share/doc/latchkey/local-database.conf", folder)
    machine.write(
        "/etc/latchkey/latchkey.toml",
        CONFIG.replace("host=127.0.0.1", "host=/run/postgresql").replace(
            'password_file = "pgpass"\n', ""
        ),
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "latchkeyd")
    assert verify(machine, KEY, HASHED) == ["valid", "valid"]
    dropin = machine.run("cat", f"{folder}/local-database.conf")
    can = probe(machine, ("local-database.conf", dropin))
    assert (can["unix"], can["inet"]) == ("done", EAFNOSUPPORT)
    machine.run("rm", f"{folder}/local-database.conf")
    machine.write("/etc/latchkey/latchkey.toml", CONFIG)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "latchkeyd")


# One caller after the other; a caller that gets no connection, or loses it, retries, as clients do.
CALLERS = f"""
while [ ! -e /mnt/enough ]; do
  for try in 1 2 3 4 5; do
    told=$(echo {KEY} | latchkey verify 2>&1) && break
    echo "again: $told"
  done
  echo "${{told%% *}}"
done
"""


def test_an_upgrade_under_load_is_not_noticed(machine: Machine, tmp_path: Path) -> None:
    pid = main_pid(machine)
    # As earlier versions left it: owned by the daemon's user, who might have planted files there.
    plant = (
        "chown latchkey:latchkey /run/latchkey && cd /run/latchkey && touch latchkey.sock.lock"
        " && ln -s /etc/shadow metrics.sock && ln -s /etc/latchkey folder && mkdir -p a/b"
        " && ln -s /etc/shadow a/b/c && chown -hR latchkey a metrics.sock folder"
    )
    machine.run("sh", "-c", plant)
    before_it = machine.run("stat", "-c", "%n %U %G %a", "/etc/shadow", "/etc/latchkey", "/etc/latchkey/pgpass")
    output = tmp_path / "callers.txt"
    callers = machine.start(["sh", "-c", CALLERS], "app", output)
    try:
        machine.wait(lambda: output.read_text().count("valid") > 20, 20, "callers are answered")
        machine.run("sh", "-c", "dpkg --install /mnt/latchkey_0.1.1_*.deb")
        before = output.read_text().count("valid")
        machine.wait(lambda: output.read_text().count("valid") > before + 20, 20, "and afterwards")
    finally:
        machine.run("touch", "/mnt/enough")
        callers.wait(scaled(20))
    answers = [line for line in output.read_text().splitlines() if not line.startswith("again:")]
    assert set(answers) == {"valid"}
    assert main_pid(machine) != pid, "it is the new one that serves"
    assert "0.1.1" in machine.run("dpkg-query", "--show", "latchkey")
    # At most one caller had to retry, because the restart cut its connection.
    again = [line for line in output.read_text().splitlines() if line.startswith("again:")]
    assert len(again) <= 1, again
    assert machine.run("stat", "-c", "%U %G %a", "/run/latchkey").strip() == "root root 755"
    assert machine.run("ls", "-A", "/run/latchkey").split() == ["latchkey.sock"]
    after_it = machine.run("stat", "-c", "%n %U %G %a", "/etc/shadow", "/etc/latchkey", "/etc/latchkey/pgpass")
    assert after_it == before_it, "no link was followed"


def test_who_has_disabled_it_keeps_it_disabled(machine: Machine) -> None:
    machine.run("systemctl", "disable", "latchkeyd.service", "latchkeyd.socket")
    machine.run("sh", "-c", "dpkg --install /mnt/latchkey_0.1.0_*.deb")  # a downgrade is one, too
    assert machine.unit("latchkeyd.service", "UnitFileState") == "disabled"
    assert verify(machine, KEY) == ["valid"], "but it ran, and so it was restarted"
    machine.run("systemctl", "enable", "latchkeyd.service")


def test_removal_and_purge_leave_what_is_the_operators(machine: Machine) -> None:
    machine.run("dpkg", "--remove", "latchkey")
    machine.run("latchkey", "ping", code=127)
    assert machine.unit("latchkeyd.service", "ActiveState") == "inactive"
    machine.run("test", "!", "-e", "/run/latchkey/latchkey.sock")
    machine.run("test", "-e", "/etc/latchkey/latchkey.toml")
    machine.run("sh", "-c", "rm -r /etc/latchkey/* /etc/systemd/system/latchkeyd.service.d")
    machine.run("dpkg", "--purge", "latchkey")
    left = machine.run(
        "sh", "-c", "find / -xdev -iname '*latchkey*' -not -path '/mnt/*' -not -path '/var/log/*'"
        " -not -path '/var/lib/postgresql/*' 2>/dev/null", code=None,
    )  # fmt: skip
    assert left.split() == [], "nothing is left but the user"
    machine.run("test", "!", "-e", "/run/latchkey")
    assert machine.run("getent", "passwd", "latchkey").startswith("latchkey:")
    started = time.monotonic()
    machine.run("sh", "-c", "dpkg --install /mnt/latchkey_0.1.1_*.deb")
    assert machine.unit("latchkeyd.service", "UnitFileState") == "enabled", "as if for the first time"
    assert time.monotonic() - started < scaled(60)
