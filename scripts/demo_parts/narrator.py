"""The demo's output, and its checks.

All output goes through one class, so three rules hold everywhere: a line fits the terminal, a
secret is cut to its first characters, and a failed check ends the demo.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from harness.wait import until

T = TypeVar("T")

_WIDTH_MAX = 100
_WIDTH_MIN = 40
_SHOWN_OF_A_SECRET = 12
_TICK_S = 0.25


class DemoFailed(Exception):
    """A step failed. The text has the expected and the actual result."""


class Narrator:
    """Prints chapters, prose, commands and answers; counts the checks."""

    def __init__(self) -> None:
        self.checked = 0
        self.step = "before the first chapter"
        self._chapters = 0
        self._secrets: list[str] = []
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._coloured = self._terminal and not os.environ.get("NO_COLOR")
        columns = shutil.get_terminal_size((_WIDTH_MAX, 24)).columns
        self._width = max(_WIDTH_MIN, min(_WIDTH_MAX, columns))
        # In a locale without "…" and "✓", a question mark is better than a traceback.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")

    # ---- output

    def title(self, text: str) -> None:
        """Prints the first line."""
        self._print(self._paint("1", text))

    def chapter(self, title: str) -> None:
        """Begins a chapter. Error messages name it."""
        self._chapters += 1
        self.step = f"{self._chapters}. {title}"
        self._print("\n" + self._paint("1;36", self.step))

    def say(self, text: str) -> None:
        """Prints a paragraph of prose; line breaks in `text` are ignored."""
        self._print("\n" + textwrap.fill(" ".join(text.split()), self._width))

    def command(self, text: str, why: str = "") -> None:
        """Prints a command as a reader could type it, with the comment `why`."""
        shown = f"$ {text}" + (f"   # {why}" if why else "")
        self._wrapped(shown, first="\n  ", rest="      ", style="1")

    def sql(self, text: str) -> None:
        """Prints a statement as psql would show it."""
        first, *more = (text.strip() + ";").splitlines()
        lines = [f"app=# {first}", *(f"       {line.strip()}" for line in more)]
        self._print("\n" + self._paint("1", "\n".join("  " + line for line in lines)))

    def output(self, text: str, mark: str = " ") -> None:
        """Prints the output of a program, with `mark` before each line."""
        for line in text.splitlines():
            self._wrapped(line, first=f"  {self._mark(mark)} ", rest="      ")

    def listing(self, text: str) -> None:
        """Prints a file unchanged."""
        bar = self._paint("2", "|")
        lines = text.strip().splitlines()
        self._print("\n" + "\n".join(f"    {bar} {line}".rstrip() for line in lines))

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Prints names and figures in two columns."""
        self._print("")
        for name, figure in rows:
            self._print(f"  {name:<38}{figure}")

    def error(self, text: str) -> None:
        """Prints to standard error; only secrets are shortened."""
        sys.stdout.flush()
        print(self._hidden(text), file=sys.stderr, flush=True)

    # ---- secrets

    def hide(self, secret: str) -> str:
        """Shows only the beginning of `secret` from now on; returns that beginning."""
        if secret not in self._secrets:
            self._secrets.append(secret)
            # The longest first, so that no other secret inside it breaks it up.
            self._secrets.sort(key=len, reverse=True)
        return self._hidden(secret)

    @property
    def secrets(self) -> list[str]:
        """All hidden secrets."""
        return list(self._secrets)

    # ---- checks

    def check(self, what: str, expected: object, got: object) -> None:
        """Ends the demo unless both are equal."""
        if expected != got:
            raise DemoFailed(f"{what}\n  expected: {expected}\n  got:      {got}")
        self.checked += 1

    def check_holds(self, what: str, holds: bool, got: object) -> None:
        """Like `check`, for a condition that several values fulfil."""
        if not holds:
            raise DemoFailed(f"expected: {what}\n  got:      {got}")
        self.checked += 1

    # ---- long steps

    def blank(self) -> None:
        """Prints an empty line before lines that belong together."""
        self._print("")

    def work(self, what: str, total: int, parts: Iterable[int]) -> None:
        """Runs through `parts`; each part is the amount of `total` that it has completed."""
        live = _LiveLine(what, self._terminal)
        done = 0
        live.show(f"0 of {total:,}")
        for part in parts:
            done += part
            live.show(f"{done:,} of {total:,}")
        live.close(f"{total:,}")

    def wait(self, what: str, predicate: Callable[[], T], deadline_s: float) -> T:
        """Polls `predicate` until it returns a true value, and shows the time."""
        self.blank()
        live = _LiveLine(what, self._terminal)
        started = time.monotonic()

        def ticking() -> T:
            live.show(f"{time.monotonic() - started:.1f} s")
            return predicate()

        value = until(ticking, deadline_s, what)
        live.close(f"{time.monotonic() - started:.1f} s")
        return value

    # ---- details

    def _wrapped(self, line: str, first: str, rest: str, style: str = "") -> None:
        lead = "\n" if first.startswith("\n") else ""
        lines = textwrap.wrap(
            self._hidden(line),
            self._width - len(rest),
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
            drop_whitespace=True,
        ) or [""]
        painted = [self._paint(style, part) if style else part for part in lines]
        self._print(lead + first.lstrip("\n") + ("\n" + rest).join(painted))

    def _mark(self, mark: str) -> str:
        return self._paint({"✓": "32", "✗": "31"}.get(mark, "0"), mark) if mark.strip() else mark

    def _paint(self, style: str, text: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._coloured else text

    def _hidden(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, secret[:_SHOWN_OF_A_SECRET] + "…")
        return text

    def _print(self, text: str) -> None:
        print(self._hidden(text), flush=True)


class _LiveLine:
    """On a terminal, one line that changes; elsewhere, where lines stay, an occasional dot."""

    def __init__(self, what: str, terminal: bool) -> None:
        self._what = what
        self._terminal = terminal
        self._shown_at = 0.0
        print(f"    {what} ", end="", flush=True)

    def show(self, state: str) -> None:
        now = time.monotonic()
        if now - self._shown_at < _TICK_S:
            return
        self._shown_at = now
        text = f"\r\033[K    {self._what}: {state}" if self._terminal else "."
        print(text, end="", flush=True)

    def close(self, state: str) -> None:
        text = f"\r\033[K    {self._what}: {state}" if self._terminal else f" {state}"
        print(text, flush=True)
