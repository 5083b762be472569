#!/usr/bin/python3
"""A live demonstration of Latchkey: it runs, explains and checks every step, and ends at the first
wrong one.

Run it by scripts/demo, which installs packages and builds the programs. It starts a private
PostgreSQL in a temporary folder, and leaves nothing behind, however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True  # leaves no __pycache__ behind
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from demo_parts import changes, prepare, questions, trouble  # noqa: E402
from demo_parts.narrator import DemoFailed, Narrator  # noqa: E402
from demo_parts.stage import Stage  # noqa: E402
from harness import child  # noqa: E402
from harness.programs import program  # noqa: E402

CHAPTERS = (
    ("An application and its keys", prepare.application),
    ("Latchkey is introduced to the database", prepare.configuration),
    ("The daemon starts", prepare.daemon_start),
    ("Good keys", questions.good_keys),
    ("Bad keys", questions.bad_keys),
    ("Who may ask", questions.who_may_ask),
    ("How fast", questions.how_fast),
    ("A key is revoked", changes.revocation),
    ("Other changes", changes.other_changes),
    ("A new pepper", changes.rotation),
    ("The database is gone", trouble.outage),
    ("The database is back", trouble.return_of_the_database),
    ("The end", trouble.end),
)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def play(narrator: Narrator) -> None:
    """All chapters, a check that nothing is left of them, and the figures."""
    narrator.title("Latchkey: may the holder of this API key in, as whom, and with which scopes?")
    narrator.say("""It answers from memory, within microseconds, out of the table that your
        application already has; and a key revoked in that table is refused within milliseconds.
        The next half minute shows it live.""")
    with Stage(narrator) as stage:
        try:
            for title, chapter in CHAPTERS:
                narrator.chapter(title)
                chapter(stage)
        except (DemoFailed, AssertionError) as failure:
            raise DemoFailed(f"{failure}\n{stage.log_tail()}") from failure
        except BrokenPipeError:
            raise
        except Exception as error:
            raise DemoFailed(f"{traceback.format_exc()}\n{stage.log_tail()}") from error
        folders = [stage.folder, stage.daemon.folder.path, stage.cluster.socket_dir.parent]
        server = stage.cluster.pid
    left = [str(folder) for folder in folders if folder.exists()]
    left += [f"process {server}"] if child.alive(server) else []
    narrator.check("left behind", [], left)
    total_s = time.monotonic() - stage.started
    narrator.chapter("Summary")
    stage.figures["checks"] = f"{narrator.checked:,}, all passed, in {total_s:.0f} s"
    narrator.table(stage.figures.items())
    narrator.say("""The daemon and the database are stopped, and their folders are deleted. What to
        try next: README.md shows how to run Latchkey beside your own database.""")


def stop_asked(number: int, _: object) -> None:
    """Handles Ctrl-C and similar signals: ends the normal way, which cleans everything up."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Returns 0; 1 if a step was wrong; the shell's code for a signal that ended it."""
    for number in _SIGNALS:
        signal.signal(number, stop_asked)
    narrator = Narrator()
    try:
        for name in ("latchkeyd", "latchkey"):
            program(name)  # fails before a database is created in vain
        play(narrator)
    except FileNotFoundError as missing:
        narrator.error(f"{missing}\nscripts/demo builds what it needs.")
        return 1
    except DemoFailed as failure:
        narrator.error(f"\nThe demo FAILED in chapter {narrator.step}\n\n{failure}")
        return 1
    except BrokenPipeError:
        # The reader has closed the pipe, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except SystemExit:
        narrator.error("\nInterrupted. Everything that was started is stopped and deleted.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
