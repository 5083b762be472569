"""Chapters 11 to 13: the database stops, the database returns, and an orderly end."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from harness import seeds

from .stage import Stage

_LIFETIME_S = 5  # of the key that expires while the database is down
_PAST_THE_BOUND_S = 2.1  # the configuration says 2 s
_PAST_THE_LONGEST_PAUSE_S = 15.0  # the daemon pauses for at most 5 s between attempts


def outage(stage: Stage) -> None:
    """Without its database, Latchkey still answers, and reports the age of its data."""
    say, narrator, keys = stage.narrator.say, stage.narrator, stage.keys
    say(f"One more key, which expires in {_LIFETIME_S} seconds. Then PostgreSQL is stopped.")
    keys["brief"] = f"brief_{secrets.token_hex(16)}"
    narrator.hide(keys["brief"])
    lifetime = timedelta(seconds=_LIFETIME_S)
    seeds.insert_api_key(
        stage.conn, 1, None, "brief", keys["brief"], stage.v1, scopes=["read"], expires_at=lifetime
    )
    expiry = time.monotonic() + _LIFETIME_S
    stage.run("latchkey", "sync").expect(0)
    stage.verify(keys["brief"], "valid", "exp=")
    narrator.command("pg_ctl stop")
    stage.cluster.stop()
    stopped = time.monotonic()
    say("The answers go on. For a moment they are still fresh, then they say that they are not:")
    stage.verify(keys["ci"], "valid", " fresh ", "age=")
    narrator.wait(
        "past the bound of 2 s",
        lambda: time.monotonic() > stopped + _PAST_THE_BOUND_S,
        deadline_s=10,
    )
    stage.verify(keys["ci"], "valid", "NOT FRESH", "age=")
    say("""Nobody can know by now whether the key was revoked meanwhile. Whoever needs younger
        knowledge says so, and gets no answer rather than a guess. Nor does sync pretend:""")
    stage.verify(keys["ci"], "unavailable", options=["--max-age", "1s"])
    stage.expect(stage.shell("latchkey", "sync", "--timeout", "500ms"), 3)
    narrator.wait(
        "until the last key expires", lambda: time.monotonic() > expiry + 0.1, deadline_s=20
    )
    say("Time goes by without a database, too. The key has expired:")
    stage.verify(keys["brief"], "expired")
    narrator.command("latchkey status | head -n 3")
    narrator.check("state of the database", "lost", stage.database_state())
    done = stage.run("latchkey", "status")
    narrator.output("\n".join(done.stdout.splitlines()[:3]), mark="✓")


def return_of_the_database(stage: Stage) -> None:
    """Changes made meanwhile are in force before any answer is fresh again."""
    say, narrator, keys = stage.narrator.say, stage.narrator, stage.keys
    say("""PostgreSQL comes back, and at once, before Latchkey has tried again, one key is revoked
        and another one enabled. No notification of this reaches anybody:""")
    narrator.command("pg_ctl start")
    stage.cluster.start()
    stage.connect()
    update = "UPDATE public.api_keys SET status = '{}' WHERE name = '{}'"
    stage.sql(update.format("revoked", "ci"), "UPDATE 1")
    committed = stage.sql(update.format("active", "paused"), "UPDATE 1")
    narrator.wait(
        "until Latchkey has tried again and is in step",
        lambda: stage.database_state() == "live",
        deadline_s=_PAST_THE_LONGEST_PAUSE_S,
    )
    stage.sync(committed)
    stage.verify(keys["ci"], "revoked", " fresh ")
    stage.verify(keys["paused"], "valid", " fresh ")
    say("""After every reconnection everything is read anew, before any answer is called fresh.""")


def end(stage: Stage) -> None:
    """An orderly stop, and a check that no secret is in the log."""
    narrator, daemon = stage.narrator, stage.daemon
    narrator.say("""An orderly stop, and a last look at the daemon's log: of all the keys, digests
        and passwords that were shortened here, none stands in it.""")
    narrator.command(f"kill {daemon.pid}", why="or: systemctl stop latchkeyd")
    narrator.check("exit code of latchkeyd", 0, daemon.stop())
    narrator.output("\n".join(stage.log_messages()[-2:]), mark="✓")
    told = [secret for secret in narrator.secrets if secret in daemon.log()]
    narrator.check("secrets in the log", [], told)
