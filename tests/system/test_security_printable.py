"""No text from others controls a terminal or a log: rows, catalogues, names, command lines."""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import threading
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import psycopg2.extras
import pytest
from harness import wire
from harness.child import environment
from harness.postgres import PrivateCluster
from harness.programs import program
from harness.scrape import UnixHttp
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation, Setting, toml_section

KEY = "sk_hostile_0123456789abcdef"
CHANGED = "sk_changed_0123456789abcdef"

# One character of each kind: C0, DEL, C1 (NEL, CSI, OSC, ST), directions, separators, invisible ones, tags.
KINDS = (
    "\x1b[31m\x07\x08\r\x7f\x85\x9b31m\x9d0;t\x9c\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069\u2028\u2029\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0f\u3164"
    "\U000e0041\U000e0100\ufffe\ufdd0"
)
HOSTILE = f"<{KINDS}>"
# Printed unchanged.
FOREIGN = "Grüße-Ελλάδα-Привет-漢字-한글-שלום-😀"

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def seen(output: bytes, what: str, *, drawn: bool = False) -> str:
    """The decoded text, which must be UTF-8 without hidden characters except line breaks."""
    text = output.decode()  # strict
    found = {
        f"U+{ord(c):04X}"
        for c in set(text)
        if c != "\n" and (unicodedata.category(c) in HIDDEN or c in KINDS and not c.isprintable())
    }
    if drawn:  # the program itself moves the cursor
        found -= {"U+001B", "U+000D", "U+0008", "U+000F"}
    assert not found, f"{what}: {sorted(found)} in {text[:2000]!r}"
    assert not drawn or "\x1b[31m\x07" not in text
    return text


def run(
    name: str, *arguments: str | bytes, stdin: bytes = b"", code: int | None = 0
) -> tuple[str, str]:
    """A program's standard output and standard error, both checked."""
    done = subprocess.run(
        [str(program(name)), *arguments],
        input=stdin,
        capture_output=True,
        env=environment(),
        timeout=scaled(60),
        check=False,
    )
    what = f"{name} {arguments!r:.200}"
    texts = seen(done.stdout, what), seen(done.stderr, what)
    assert code is None or done.returncode == code, (what, done.returncode, texts)
    return texts


TABLE = """
CREATE TABLE t (id text PRIMARY KEY, key text, subject text, tenant text, scopes text[],
                metadata jsonb, "odd {0}" int);
"""


class Hostile(Installation):
    """An installation with control characters in every value."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        self.metrics = self.folder / "metrics.sock"
        self.more = toml_section("[metrics]", listen=str(self.metrics))
        self.source("main", table="public.t", id="id", key="key", subject="subject",
                    tenant="tenant", scopes="scopes", metadata="metadata")  # fmt: skip
        self.sql(TABLE.format(HOSTILE[:20]))
        for key in (KEY, CHANGED):
            self.sql(
                "INSERT INTO t VALUES (%s, %s, %s, %s, %s, %s)",
                f"{key[3:6]}{HOSTILE}", key, HOSTILE + FOREIGN, HOSTILE,
                [HOSTILE.replace("\r", "")], psycopg2.extras.Json({"m": HOSTILE}),
            )  # fmt: skip


@pytest.fixture
def there(cluster: PrivateCluster, databases: Databases) -> Iterator[Hostile]:
    made = Hostile(cluster, databases.new())
    yield made
    made.close()


def on_terminal(*command: str, shows: str) -> bytes:
    """The output of a program on a terminal until it shows this text."""
    output = b""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(command[0], command)
    try:
        deadline = time.monotonic() + scaled(15)
        while shows.encode() not in output and time.monotonic() < deadline:
            if select.select([fd], [], [], 0.1)[0]:
                output += os.read(fd, 65536)
        os.write(fd, b"q")
    finally:
        os.waitpid(pid, 0)
        os.close(fd)
    assert shows.encode() in output
    return output


def test_no_output_obeys_what_rows_say(there: Hostile) -> None:
    with there.serve() as daemon:
        where = ("--socket", str(there.socket))
        key = KEY.encode()
        text, _ = run("latchkey", *where, "verify", "--metadata", stdin=key)
        assert text.startswith("valid") and FOREIGN in text
        machine, _ = run("latchkey", *where, "--json", "verify", "--metadata", stdin=key)
        answer = json.loads(machine)
        assert answer["sub"] == HOSTILE + FOREIGN, "to a machine, the value is exact"
        assert (answer["tenant"], answer["key_id"]) == (HOSTILE, "hos" + HOSTILE)
        assert json.loads(answer["metadata"]) == {"m": HOSTILE}

        text, _ = run("latchkey", *where, "why", stdin=key)
        assert "decides" in text and FOREIGN in text
        machine, _ = run("latchkey", *where, "--json", "why", stdin=key)
        (row,) = json.loads(machine)["rows"]
        assert (row["key_id"], row["sub"]) == ("hos" + HOSTILE, HOSTILE + FOREIGN)
        run("latchkey", *where, "verify", "--scope", HOSTILE, stdin=key, code=None)
        run("latchkey", *where, "why", "--scope", "x" + HOSTILE, stdin=key, code=None)
        run("latchkey", *where, "verify", "--source", HOSTILE, stdin=key, code=2)
        run("latchkey", *where, "verify", HOSTILE, stdin=key, code=2)

        # The problem, and so the log, names the table's columns.
        there.sql("ALTER TABLE t RENAME COLUMN tenant TO elsewhere")
        there.reload("public.t")
        until(lambda: there.source_status("main").get("problems"), 10, "it is noticed")
        text, _ = run("latchkey", *where, "status")
        assert "elsewhere" in text
        machine, _ = run("latchkey", *where, "--json", "status")
        assert HOSTILE[:20] in json.loads(machine)["sources"][0]["problems"][0]
        text, _ = run("latchkey", *where, "top", "--count", "1")
        assert "elsewhere" in text
        top = [str(program("latchkey")), *where, "top"]
        seen(on_terminal(*top, shows="elsewhere"), "top", drawn=True)
        http = UnixHttp(there.metrics)
        for path in ("/metrics", "/readyz", "/livez"):
            http.request("GET", path)
            seen(http.getresponse().read(), path)
        http.close()
        checked = subprocess.run(
            [program("latchkeyd"), "--config", daemon.config_path, "--check"],
            capture_output=True, env=environment(), timeout=scaled(60), check=False,
        )  # fmt: skip
        assert "elsewhere" in seen(checked.stdout + checked.stderr, "--check")

        # The log names rows changed without a trigger by their ids.
        there.sql("ALTER TABLE t RENAME COLUMN elsewhere TO tenant")
        there.reload("public.t")
        until(lambda: not there.source_status("main").get("problems"), 10, "it is followed again")
        log = seen(daemon.log_path.read_bytes(), "the log")
        assert log.count("elsewhere") >= 1


def test_rows_that_the_audit_names_are_printable(there: Hostile) -> None:
    there.freshness["audit"] = "200ms"
    with there.serve() as daemon:
        there.sql(
            "SET session_replication_role = replica;"
            "ALTER TABLE t DISABLE TRIGGER USER;"
            "UPDATE t SET key = 'sk_other_0123456789abcdef' WHERE key = %s;"
            "ALTER TABLE t ENABLE ALWAYS TRIGGER latchkey_insert;"
            "ALTER TABLE t ENABLE ALWAYS TRIGGER latchkey_update;"
            "ALTER TABLE t ENABLE ALWAYS TRIGGER latchkey_delete;"
            "ALTER TABLE t ENABLE ALWAYS TRIGGER latchkey_truncate;"
            "RESET session_replication_role",
            CHANGED,
        )
        until(lambda: there.verdict(CHANGED) == "unknown", 15, "it is found out")
        seen(daemon.log_path.read_bytes(), "the log")


NAMES = [f"t{c}t" for c in "\x1b\x7f\x85\x9b\u202e\u2066\u200e\u061c\u2028\u200b\ufeff\u00ad\ufe0f"]


@pytest.mark.parametrize("setting", ["table", "subject", "name", "status_active", "time_zone"])
def test_no_name_of_the_configuration_is_obeyed(there: Hostile, setting: str) -> None:
    """The daemon refuses an unprintable name: the printed SQL would show another one."""
    for name in NAMES:
        settings: dict[str, Setting] = {"table": "public.t", "id": "id", "key": "key"}
        if setting == "table":
            settings["table"] = f"public.{name}"
        elif setting == "status_active":
            settings |= {"status": "subject", "status_active": [name]}
        elif setting != "name":
            settings[setting] = name
        there.source("main", **settings)
        config = there.config.replace(name, json.dumps(name)[1:-1])  # TOML demands some escapes
        if setting == "name":
            config = config.replace('"main"', json.dumps(name), 1)
        path = there.folder / f"c{name}.toml"
        path.write_text(config)
        refused = setting in ("table", "subject", "name")
        for action in ("install", "uninstall", "grant"):
            command = ("sql", action, "--config", str(path))
            _, error = run("latchkey", *command, code=2 if refused else 0)
            assert bool(error) == refused
        run("latchkeyd", "--config", str(path), "--check", code=None)
        path.unlink()


def test_no_text_of_the_command_line_is_obeyed(tmp_path: Path) -> None:
    for text in (HOSTILE.encode(), b"\x9b31m\xc2\xe2\x80\xed\xa0\x80\xc0\x8a\xff"):
        for command in (["ping"], ["status"], ["sync"], ["top", "--count", "1"]):
            run("latchkey", "--socket", b"/" + text, *command, code=3)
        run("latchkey", text, code=2)
        run("latchkey", "--json", "--socket", b"/" + text, "verify", stdin=b"k", code=3)
        run("latchkey", "mint", "--prefix", text, code=2)
        run("latchkey", "sql", "install", "--config", text, code=2)
        run("latchkey", "sql", text, "--config", "x", code=2)
        run("latchkeyd", "--config", text, code=2)
        run("latchkeyd", text, code=None)
        run("latchkey-bench", text, code=None)
        run("latchkey-bench", "run", "--socket", b"/" + text, "--generate", "1", "--quiet", code=3)
        broken = tmp_path / os.fsdecode(b"x" + text.replace(b"/", b""))
        broken.write_bytes(b'[listen]\n"' + text + b'" = 1\n')
        run("latchkeyd", "--config", os.fsencode(broken), code=2)


def test_every_code_point_of_unicode() -> None:
    """Classified by Python's tables: no hidden character is printed, every letter is."""
    hidden = "".join(
        chr(c) for c in range(1, 0x110000)
        if unicodedata.category(chr(c)) in HIDDEN and not 0xD800 <= c <= 0xDFFF
    )  # fmt: skip
    _, error = run("latchkey", "--socket", "/" + hidden, "ping", code=3)
    assert "?" * len(hidden) in error
    invisible = "\u115f\u1160\u3164\uffa0"  # letters to Unicode, but invisible
    letters = "".join(
        chr(c) for c in range(1, 0x110000)
        if unicodedata.category(chr(c))[0] in "LNPS" and chr(c) not in invisible
    )  # fmt: skip
    for start in range(0, len(letters), 30_000):
        part = letters[start : start + 30_000]
        _, error = run("latchkey", "--socket", "/" + part, "ping", code=3)
        assert part in error


def test_a_daemon_that_lies_is_not_obeyed(tmp_path: Path) -> None:
    """A forged daemon's errors, status and explanations reach the terminal of the client's user."""
    told = json.dumps({"version": HOSTILE, "state": HOSTILE, "verdict": HOSTILE, "sources": [],
                       "key": {"form": HOSTILE}, "rows": [{"key_id": HOSTILE}],
                       "databases": [{"name": HOSTILE, "last_error": HOSTILE}]},
                      ensure_ascii=False).encode()  # fmt: skip

    def reply(kind: int, request_id: int) -> bytes:
        if kind in (wire.STATUS, wire.WHY):
            return wire.frame(kind | 0x80, request_id, told)
        text = HOSTILE.encode() + b"\xff\x9b"
        body = (7).to_bytes(2, "little") + len(text).to_bytes(2, "little") + text
        return wire.frame(wire.ERROR, request_id, body)

    path = tmp_path / "liar.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)

        def lie() -> None:
            for _ in range(len(commands)):
                with listener.accept()[0] as caller:
                    request = caller.recv(65536)
                    caller.sendall(reply(request[1], int.from_bytes(request[8:16], "little")))

        commands = [["verify"], ["status"], ["why"], ["sync"], ["top", "--count", "1"], ["ping"],
                    ["--json", "status"], ["--json", "why"], ["--json", "verify"]]  # fmt: skip
        thread = threading.Thread(target=lie, daemon=True)
        thread.start()
        for command in commands:
            out, error = run("latchkey", "--socket", str(path), *command, stdin=b"k", code=None)
            assert out or error, command
        thread.join(scaled(10))


def test_what_is_looked_for_is_there(there: Hostile) -> None:
    """A control: the daemon's reply contains the hostile bytes, so the other tests could fail."""
    with there.serve(), Raw(there.socket) as raw:
        raw.send(wire.verify([KEY.encode()]))
        reply = raw.receive()
        assert reply is not None and HOSTILE.encode() in reply.body
