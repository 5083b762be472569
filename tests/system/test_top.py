"""latchkey top: on a terminal, and as text."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import seeds, wire
from harness.child import Completed
from harness.programs import program
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation

KEY = "sk_good_0123456789abcdef"


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new("external_credentials"))
    made.source("main", preset="external_credentials")
    seeds.insert_external(made.conn, KEY, 42)
    made.install()
    yield made
    made.close()


class OnTerminal:
    """The program on its own pseudo-terminal."""

    def __init__(self, *command: str, rows: int = 40, columns: int = 100) -> None:
        self.seen = b""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.environ["LINES"], os.environ["COLUMNS"] = str(rows), str(columns)
            os.execv(command[0], command)
        self.pid = pid

    def __enter__(self) -> OnTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)

    def shows(self, text: str) -> bool:
        """Whether the program has written this since the last call of `clear`."""
        while select.select([self._fd], [], [], 0)[0]:
            try:
                self.seen += os.read(self._fd, 65536)
            except OSError:  # the program has ended
                break
        # Cursor movements may replace spaces.
        return text in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\(B|\x1b[=>]", " ", self.seen.decode())

    def clear(self) -> None:
        self.seen = b""

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def wait(self) -> int:
        """Wait for the program; returns its exit code."""
        deadline = time.monotonic() + scaled(10)
        while time.monotonic() < deadline:
            self.shows("")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        raise AssertionError("it does not end")


def test_on_a_terminal(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top", "--interval", "100ms"]
    with there.serve() as daemon:
        with OnTerminal(*top) as terminal:
            until(lambda: terminal.shows("Every source is fresh"), 10, "it shows the state")
            until(lambda: terminal.shows("ANSWERS"), 10, "and the rest")
            assert terminal.shows("q quit")
            with Raw(there.socket) as raw:
                raw.ask(wire.verify([KEY.encode()] * 3))
            until(lambda: terminal.shows("valid"), 10, "it follows")
            terminal.type("p")
            until(lambda: terminal.shows("PAUSED"), 10, "it pauses")
            terminal.type("p+-q")
            assert terminal.wait() == 0
        assert daemon.exit_code is None


def test_the_daemon_goes_and_comes_again(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top", "--interval", "100ms"]
    with OnTerminal(*top) as terminal:
        until(lambda: terminal.shows("NO ANSWER"), 10, "nobody is there yet")
        terminal.clear()
        with there.serve():
            until(lambda: terminal.shows("Every source is fresh"), 10, "it is there")
        terminal.clear()
        until(lambda: terminal.shows("NO ANSWER"), 10, "it is gone")
        terminal.type("q")
        assert terminal.wait() == 0


def test_an_interrupt_is_no_failure(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top"]
    with there.serve():
        with OnTerminal(*top) as terminal:
            until(lambda: terminal.shows("latchkeyd"), 10, "it shows something")
            terminal.type("\x03")
            assert terminal.wait() == 0
        text = subprocess.Popen([*top, "--plain"], stdout=subprocess.PIPE)
        assert text.stdout is not None and text.stdout.readline()
        text.send_signal(signal.SIGINT)
        assert text.wait(scaled(10)) == 0
        text.stdout.close()


def test_a_dumb_terminal_gets_text_that_scrolls(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top"]
    with there.serve(), OnTerminal("/usr/bin/env", "TERM=dumb", *top) as terminal:
        until(lambda: terminal.shows("Every source is fresh"), 10, "it shows the state")
        assert b"\x1b" not in terminal.seen
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_a_small_terminal_is_enough(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top"]
    with there.serve(), OnTerminal(*top, rows=5, columns=20) as terminal:
        until(lambda: terminal.shows("latchkeyd"), 10, "it shows what fits")
        terminal.type("q")
        assert terminal.wait() == 0


def top_as_text(there: Installation, *options: str) -> Completed:
    return there.cli.run("--socket", str(there.socket), "top", *options)


def test_as_text(there: Installation) -> None:
    with there.serve(), Raw(there.socket) as raw:
        raw.ask(wire.verify([KEY.encode()] * 3))
        done = top_as_text(there, "--count", "2", "--interval", "100ms").expect(0)
        assert done.stdout.count("Every source is fresh.") == 2
        assert re.search(r"^valid +0 +3$", done.stdout, re.MULTILINE), done.stdout
        assert re.search(r"^main +fresh ", done.stdout, re.MULTILINE)
        assert re.search(r"^main +live ", done.stdout, re.MULTILINE)
        assert re.search(r"^uid 0 +[12] ", done.stdout, re.MULTILINE)
        assert "\x1b" not in done.stdout


def test_as_text_without_a_daemon(there: Installation) -> None:
    done = top_as_text(there, "--count", "1").expect(3)
    assert done.stdout.startswith("NO ANSWER: ")


def test_it_ends_with_its_reader(there: Installation) -> None:
    with there.serve():
        top = [str(program("latchkey")), "--socket", str(there.socket), "top", "--plain"]
        with subprocess.Popen([*top, "--interval", "100ms"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(scaled(10)) in (3, -signal.SIGPIPE)


def test_a_terminal_that_cannot_be_drawn_on(there: Installation) -> None:
    top = [str(program("latchkey")), "--socket", str(there.socket), "top"]
    with OnTerminal("/usr/bin/env", "TERM=nonsense", *top) as terminal:
        assert terminal.wait() == 2
        assert terminal.shows("--plain")


@pytest.mark.parametrize("interval", ["1ms", "2m", "fast"])
def test_other_intervals_are_usage_errors(there: Installation, interval: str) -> None:
    there.cli.run("top", "--interval", interval).expect(2)
