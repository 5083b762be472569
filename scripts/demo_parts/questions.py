"""Chapters 4 to 7: good keys, bad keys, rights of callers, and the latency of answers."""

from __future__ import annotations

import os
import secrets
import statistics
import time

from harness import seeds

from .prepare import API_ROWS, API_SEED, EXTERNAL_ROWS, EXTERNAL_SEED
from .stage import STRANGER_UID, WEB_UID, Stage
from .wire import VALID, Wire, verify_frame

_QUESTIONS = 2_000
_BATCH = 256  # the most keys in one request
_BATCHES = 200


def good_keys(stage: Stage) -> None:
    """One good key of each kind, and scopes."""
    say, verify, keys = stage.narrator.say, stage.verify, stage.keys
    say("""Programs ask over a Unix socket, in a small binary protocol. People ask with `latchkey`,
        which finds the socket in $LATCHKEY_SOCKET. Keys come on its standard input, since arguments
        can be seen by everybody on the host with ps.""")
    verify(keys["partner"], "valid", "source=external_credentials", "sub=4711", why="plain text")
    verify(keys["laptop"], "valid", "source=auth", "exp=", why="a JWT")
    verify(keys["ci"], "valid", 'scope="read write"', why="stored as an HMAC")
    say("""An answer says which row spoke (source, key_id), for whom (sub, tenant), what the key may
        do (scope), until when (exp), and how old this knowledge is at most (age). Scopes are
        checked in the same call, all of them or any of them:""")
    verify(keys["ci"], "valid", options=["--scope", "read", "--scope", "write"])
    verify(keys["report"], "insufficient_scope", options=["--scope", "write"])
    verify(keys["report"], "valid", options=["--any-scope", "write", "--any-scope", "read"])


def bad_keys(stage: Stage) -> None:
    """Refusals, each with its reason."""
    say, keys = stage.narrator.say, stage.keys
    say("No is not just no. Whoever may see reasons gets one:")
    for name, verdict, why in (
        ("nobody", "unknown", "in no table"),
        ("leaked", "revoked", "status = 'revoked'"),
        ("paused", "disabled", "status = 'disabled'"),
        ("trial", "expired", "expires_at is five minutes ago"),
        ("old", "expired", "a JWT that expired yesterday"),
        ("expartner", "deleted", "deleted_at is set"),
    ):
        stage.verify(keys[name], verdict, why=why)
    header, payload, _ = keys["laptop"].split(".")
    forged = f"{header}.{payload}.{secrets.token_urlsafe(32)}"
    stage.verify(forged, "unknown", why="a good JWT with another signature")
    say("""Many keys go into one call, and each gets a line. The exit code is 0 if all are good,
        and 1 if one is not:""")
    done = stage.shell("latchkey", "verify", keys=[keys["ci"], keys["leaked"], keys["partner"]])
    verdicts = [line.split()[0] for line in done.stdout.splitlines()]
    stage.narrator.check("verdicts of a batch", ["valid", "revoked", "valid"], verdicts)
    stage.expect(done, 1)


def who_may_ask(stage: Stage) -> None:
    """The kernel names the caller; rules decide its rights."""
    say, verify, keys = stage.narrator.say, stage.verify, stage.keys
    say("A key among the arguments is refused:")
    stage.expect(stage.shell("latchkey", "verify", keys["ci"]), 2)
    if os.geteuid() != 0:
        say("(The rest of this chapter asks as other users, which only root can. Left out.)")
        return
    say(f"""The kernel tells the daemon which user asks. User {WEB_UID}, think of the web
        application, may ask about api_keys by the last lines of the configuration, and is not told
        reasons. User {STRANGER_UID} is named in no rule.""")
    stage.narrator.command('as() { setpriv --reuid $1 --regid $1 --clear-groups "${@:2}"; }')
    verify(keys["ci"], "valid", uid=WEB_UID)
    verify(keys["leaked"], "unknown", uid=WEB_UID, why="revoked, but why is not told")
    verify(keys["partner"], "unknown", uid=WEB_UID, why="good, but in another table")
    other = ["--source", "external_credentials"]
    verify(keys["partner"], "forbidden", options=other, uid=WEB_UID)
    done = stage.shell("latchkey", "verify", keys=[keys["ci"]], uid=STRANGER_UID)
    stage.expect(done, 3, "[[allow]]")


def how_fast(stage: Stage) -> None:
    """Latency of one question, and keys per second in batches, from one Python program."""
    good = [seeds.key_text(EXTERNAL_SEED, i) for i in range(1, EXTERNAL_ROWS + 1, 37)]
    good += [seeds.key_text(API_SEED, i) for i in range(1, API_ROWS + 1, 41)]
    good = secrets.SystemRandom().sample(good, len(good))
    singles = [verify_frame([key]) for key in good[:_QUESTIONS]]
    batches = [verify_frame(good[i * _BATCH :][:_BATCH]) for i in range(len(good) // _BATCH)]
    answers, times_us = bytearray(), []
    with Wire(stage.socket) as wire:
        for frame in singles:
            asked = time.perf_counter()
            answers += wire.ask(frame)
            times_us.append((time.perf_counter() - asked) * 1e6)
        asked = time.perf_counter()
        for i in range(_BATCHES):
            answers += wire.ask(batches[i % len(batches)])
        rate = _BATCHES * _BATCH / (time.perf_counter() - asked)
    total = _QUESTIONS + _BATCHES * _BATCH
    stage.narrator.check("valid keys among the generated ones", total, answers.count(VALID))
    median, late = statistics.median(times_us), statistics.quantiles(times_us, n=100)[98]
    stage.figures["verifying one key"] = f"median {median:.0f} µs, 99 % within {late:.0f} µs"
    stage.figures[f"verifying in batches of {_BATCH}"] = f"{rate:,.0f} keys/s on one connection"
    stage.narrator.say(f"""{_QUESTIONS:,} generated keys, one after another over the socket and
        back: median {median:.0f} µs, 99 % within {late:.0f} µs. {_BATCHES * _BATCH:,} keys in
        batches of {_BATCH}, on one connection: {rate:,.0f} keys a second. Each was checked to be
        valid.""")
