#!/usr/bin/python3
"""Latchkey, shown live: every step is run, narrated and checked, and the first wrong one ends it.

Run it by scripts/demo, which installs and builds what is missing. It starts a PostgreSQL of its own
in a temporary folder, and leaves nothing behind, however it ends.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True  # nothing behind, not even __pycache__
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psycopg2  # noqa: E402

from demo_narrator import DemoFailed, Narrator  # noqa: E402
from demo_stage import STRANGER_UID, WEB_UID, Stage  # noqa: E402
from demo_wire import REVOKED, VALID, Wire, verify_frame  # noqa: E402
from harness import child, seeds  # noqa: E402

EXTERNAL_ROWS = 150_000
AUTH_ROWS = 15_000  # each is a JWT that a trigger signs, which takes its time
API_ROWS = 150_000
PART = 10_000  # rows between two signs of progress

REVOCATIONS = 20
QUESTIONS = 2_000
BATCH = 256  # the most keys in one request
BATCHES = 200
LOG_TAIL_LINES = 30

EXTERNAL_SEED, AUTH_SEED, API_SEED = "external", "auth", "api"  # different: no key in two tables


@dataclass
class Demo:
    """What the chapters share."""

    narrator: Narrator
    stage: Stage
    started: float = field(default_factory=time.monotonic)
    v1: seeds.Pepper = field(default_factory=seeds.Pepper.random)
    keys: dict[str, str] = field(default_factory=dict)  # the named ones
    figures: dict[str, str] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """`latchkey --json status`, unshown."""
        status: dict[str, Any] = json.loads(self.stage.run("latchkey", "--json", "status").stdout)
        return status

    def source(self, name: str) -> dict[str, Any]:
        """What the status says of one source."""
        return next(s for s in self.status()["sources"] if s["name"] == name)


# ---- before anybody asks


def the_application(demo: Demo) -> None:
    """The tables exist before Latchkey does: that is the point."""
    say, stage = demo.narrator.say, demo.stage
    say("""An application keeps its API keys in its own tables. Here are three such tables, as
        different as real ones are, in a private PostgreSQL that lives in a temporary folder and
        belongs to an unprivileged user. No server that already runs is touched.""")
    stage.start_database()
    seeds.create_schema(stage.conn)
    demo.narrator.table(
        [
            ("public.external_credentials", "the keys in plain text; deleted softly"),
            ("auth.api_key", "whole JWTs, made by a trigger; row level security"),
            ("public.api_keys", "only an HMAC of each key, made with a secret pepper"),
        ]
    )
    insert_named_keys(demo)
    say("""A handful of keys has a name. The others are generated, so that it is not a toy:""")
    generate_keys(demo)


def insert_named_keys(demo: Demo) -> None:
    """One key for each thing that can be said about a key."""
    conn = demo.stage.conn
    name = "partner", "expartner"
    demo.keys |= {n: f"{n}_{secrets.token_hex(16)}" for n in (*name, "nobody")}
    seeds.insert_external(conn, demo.keys["partner"], 4711, {"plan": "gold"})
    seeds.insert_external(conn, demo.keys["expartner"], 4712, {}, deleted=True)

    user = seeds.insert_auth_user(conn, "laptop-owner@example.com")
    demo.keys["laptop"] = seeds.insert_auth_key(conn, user, timedelta(days=90), "laptop").token
    demo.keys["old"] = seeds.insert_auth_key(conn, user, timedelta(days=-1), "old laptop").token

    tenant, owner = seeds.insert_tenant(conn, "Demo tenant"), seeds.insert_user(conn)
    for row, scopes, status, expires_at in (
        ("ci", ["read", "write", "deploy"], "active", None),
        ("report", ["read"], "active", timedelta(days=30)),
        ("paused", ["read"], "disabled", None),
        ("leaked", ["read", "write"], "revoked", None),
        ("trial", ["read"], "active", timedelta(minutes=-5)),
    ):
        key = demo.keys[row] = f"{row}_{secrets.token_hex(16)}"
        seeds.insert_api_key(
            conn, tenant, owner, row, key, demo.v1, scopes=scopes, status=status,
            expires_at=expires_at,
        )  # fmt: skip
    for key in demo.keys.values():
        demo.narrator.hide(key)


def generate_keys(demo: Demo) -> None:
    """Rows by the hundred thousand, with a sign of life after each part."""
    conn = demo.stage.conn

    def parts(rows: int, fill: Callable[[int, int], None], part: int = PART) -> Iterator[int]:
        for first in range(1, rows + 1, part):
            count = min(part, rows + 1 - first)
            fill(count, first)
            yield count

    def external(count: int, first: int) -> None:
        seeds.fill_external(conn, count, EXTERNAL_SEED, first)

    def auth(count: int, first: int) -> None:
        seeds.fill_auth(conn, count, AUTH_SEED, first)

    def api_keys(count: int, first: int) -> None:
        seeds.fill_api_keys(conn, count, demo.v1, API_SEED, first)

    work = demo.narrator.work
    work("rows in external_credentials", EXTERNAL_ROWS, parts(EXTERNAL_ROWS, external))
    work("rows in auth.api_key", AUTH_ROWS, parts(AUTH_ROWS, auth, PART // 10))
    work("rows in api_keys", API_ROWS, parts(API_ROWS, api_keys))


def the_configuration(demo: Demo) -> None:
    """What an operator does once, on an existing database."""
    say, stage = demo.narrator.say, demo.stage
    stage.make_folder()
    stage.add_pepper(demo.v1)
    password = secrets.token_hex(16)
    demo.narrator.hide(password)
    text = stage.write_configuration(stage.write_password(password))
    say(f"""From here on you could type along, in {stage.folder}. This is all the configuration;
        the presets know the columns of the three tables:""")
    demo.narrator.listing(text)

    say("""Latchkey never changes a database by itself. It prints SQL for you to read and run. First
        a role for it, which may read the mapped columns and nothing else:""")
    pipe_to_psql(demo, "grant")
    stage.sql(f"ALTER ROLE latchkey PASSWORD '{password}'", "ALTER ROLE")

    say("""Without triggers nobody would tell Latchkey of changes. It notices, and would not
        start:""")
    demo.narrator.command("latchkeyd --config latchkey.toml --check | head -n 1")
    done = stage.run("latchkeyd", "--config", "latchkey.toml", "--check")
    demo.narrator.check("exit code of --check without triggers", 1, done.exit_code)
    first = done.stdout.split("\n", 1)[0]
    demo.narrator.check_holds("the missing triggers are named", "latchkey_update" in first, first)
    demo.narrator.output(first, mark="✓")
    pipe_to_psql(demo, "install")
    say("""Row level security is a trap: an ordinary role reads no keys at all, and gets no error.
        Latchkey's role sees every row, but of other columns and tables nothing:""")
    check_privileges(demo)
    done = stage.shell("latchkeyd", "--config", "latchkey.toml", "--check")
    stage.expect(done, 0, f"{EXTERNAL_ROWS + 2} rows read", "in order")


def pipe_to_psql(demo: Demo, action: str) -> None:
    """`latchkey sql …` for all sources, run as the owner of the tables."""
    demo.narrator.command(f"latchkey sql {action} --config latchkey.toml | psql -q app")
    done = demo.stage.run("latchkey", "sql", action, "--config", "latchkey.toml")
    demo.narrator.check(f"exit code of latchkey sql {action}", 0, done.exit_code)
    demo.stage.cluster.psql(done.stdout, "app")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("CREATE TR", "GRANT S"))]
    demo.narrator.check_holds(f"latchkey sql {action} prints statements", len(lines) > 2, lines)
    demo.narrator.output(f"({len(done.stdout.splitlines())} lines of SQL, among them)\n{lines[1]}")


def check_privileges(demo: Demo) -> None:
    """What roles see of auth.api_key, tried out rather than believed."""
    narrator, conn = demo.narrator, demo.stage.conn
    query = "SELECT count(id) FROM auth.api_key"
    for role, rows in (("authenticated", 0), ("latchkey", AUTH_ROWS + 2)):
        narrator.sql(f"SET ROLE {role}; {query}")
        with conn.cursor() as cursor:
            cursor.execute(f"SET ROLE {role}; {query}")
            ((seen,),) = cursor.fetchall()
        narrator.check(f"rows of auth.api_key that {role} sees", rows, seen)
        narrator.output(str(seen), mark="✓")
    forbidden = "SELECT value FROM auth.secrets"
    narrator.sql(forbidden)
    with conn.cursor() as cursor:
        try:
            cursor.execute(forbidden)
            raise DemoFailed("role latchkey may read auth.secrets")
        except psycopg2.errors.InsufficientPrivilege as error:
            narrator.check_holds("permission denied", True, "")
            narrator.output(f"ERROR:  {str(error).strip()}", mark="✓")
        finally:
            cursor.execute("RESET ROLE")


def the_daemon(demo: Demo) -> None:
    """Start it; it answers nobody before everything is loaded."""
    demo.narrator.say("""The daemon reads all keys into memory before it answers anybody. What it
        keeps of a key is a digest, never the key.""")
    started = time.monotonic()
    demo.narrator.command("latchkeyd --config latchkey.toml &")
    daemon = demo.stage.start_daemon()
    demo.narrator.wait(
        "loading",
        lambda: "READY=1" in daemon.notifications or daemon.exit_code is not None,
        deadline_s=60,
    )
    daemon.wait_ready()
    ready_s = time.monotonic() - started
    demo.narrator.output("\n".join(_messages(daemon.log())))
    sources = demo.status()["sources"]
    rows = sum(source["rows"] for source in sources)
    expected = EXTERNAL_ROWS + 2 + AUTH_ROWS + 2 + API_ROWS + 5
    demo.narrator.check("rows loaded", expected, rows)
    loading_s = sum(source["load_s"] for source in sources)
    demo.figures["load of all keys"] = (
        f"{rows:,} rows in {loading_s:.2f} s, {rows / loading_s:,.0f} rows/s"
        f" (ready after {ready_s:.2f} s)"
    )
    demo.narrator.say(f"Ready after {ready_s:.2f} s: {rows:,} keys.")


# ---- questions and answers


def good_keys(demo: Demo) -> None:
    """One of each kind, and scopes."""
    verify, keys = demo.stage.verify, demo.keys
    demo.narrator.say(f"""Programs ask over a Unix socket, here {demo.stage.socket}
        (in $LATCHKEY_SOCKET). People ask with `latchkey`. Keys come on standard input, because
        everybody on the host can see arguments with ps. (Secrets are cut short in what you read
        here; a ✓ means that the demo compared the answer with what it must be.)""")
    verify(keys["partner"], "valid", "source=external_credentials", "sub=4711", why="plain text")
    verify(keys["laptop"], "valid", "source=auth", "exp=", why="a JWT")
    verify(keys["ci"], "valid", 'scope="read write deploy"', why="stored as an HMAC")
    demo.narrator.say("""Each answer says which row spoke, for whom, and how old the knowledge is.
        Scopes are checked in the same call, all of them or any of them:""")
    verify(keys["ci"], "valid", options=["--scope", "write", "--scope", "deploy"])
    verify(keys["report"], "insufficient_scope", options=["--scope", "write"])
    verify(keys["report"], "valid", options=["--any-scope", "write", "--any-scope", "read"])


def bad_keys(demo: Demo) -> None:
    """Refusals, each with its reason."""
    stage, keys = demo.stage, demo.keys
    demo.narrator.say("""No is not just no. Whoever may see reasons gets one, and the exit code is
        1 as soon as one key is refused:""")
    for name, verdict, why in (
        ("nobody", "unknown", "in no table"),
        ("leaked", "revoked", "status = 'revoked'"),
        ("paused", "disabled", "status = 'disabled'"),
        ("trial", "expired", "expires_at five minutes ago"),
        ("old", "expired", "a JWT, expired yesterday"),
        ("expartner", "deleted", "deleted_at is set"),
    ):
        stage.verify(keys[name], verdict, why=why)
    header, payload, _ = keys["laptop"].split(".")
    forged = f"{header}.{payload}.{secrets.token_urlsafe(32)}"
    stage.verify(forged, "unknown", why="the laptop's JWT with another signature")
    demo.narrator.say("Many keys go in one call, a line each:")
    done = stage.shell("latchkey", "verify", keys=[keys["ci"], keys["leaked"], keys["partner"]])
    verdicts = [line.split()[0] for line in done.stdout.splitlines()]
    demo.narrator.check("verdicts of a batch", ["valid", "revoked", "valid"], verdicts)
    stage.expect(done, 1)


def who_may_ask(demo: Demo) -> None:
    """The kernel says who is at the other end; rules say what that one may know."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    say("A key among the arguments is refused, so that nobody gets used to it:")
    done = stage.shell("latchkey", "verify", keys["ci"])
    stage.expect(done, 2)
    if os.geteuid() != 0:
        say("(To ask as other users one must be root. Left out.)")
        return
    say(f"""The kernel tells the daemon which user asks. By the configuration above, user {WEB_UID},
        the web application, may ask about api_keys, and is not told reasons. User {STRANGER_UID} is
        in no rule.""")
    demo.narrator.command('as() { setpriv --reuid $1 --regid $1 --clear-groups "${@:2}"; }')
    stage.verify(keys["ci"], "valid", uid=WEB_UID)
    stage.verify(keys["leaked"], "unknown", uid=WEB_UID, why="revoked, but that is not its affair")
    stage.verify(keys["partner"], "unknown", uid=WEB_UID, why="good, but in another table")
    asked = ["--source", "external_credentials"]
    stage.verify(keys["partner"], "forbidden", options=asked, uid=WEB_UID)
    done = stage.shell("latchkey", "verify", keys=[keys["ci"]], uid=STRANGER_UID)
    stage.expect(done, 3, "allow")


def how_fast(demo: Demo) -> None:
    """Latency of one question, and keys per second in batches, from one Python client."""
    good = [seeds.key_text(EXTERNAL_SEED, i) for i in range(1, EXTERNAL_ROWS + 1, 37)]
    good += [seeds.key_text(API_SEED, i) for i in range(1, API_ROWS + 1, 41)]
    shuffled = secrets.SystemRandom().sample(good, len(good))
    singles = [verify_frame([key]) for key in shuffled[:QUESTIONS]]
    batches = [verify_frame(shuffled[i * BATCH :][:BATCH]) for i in range(len(shuffled) // BATCH)]
    with Wire(demo.stage.socket) as wire:
        times_us = []
        for frame in singles:
            before = time.perf_counter()
            verdicts = wire.ask(frame)
            times_us.append((time.perf_counter() - before) * 1e6)
            demo.narrator.check("verdict of a generated key", bytes([VALID]), verdicts)
        before = time.perf_counter()
        for i in range(BATCHES):
            verdicts = wire.ask(batches[i % len(batches)])
            demo.narrator.check("verdicts of a batch", bytes(BATCH), verdicts)
        rate = BATCHES * BATCH / (time.perf_counter() - before)
    median, late = statistics.median(times_us), statistics.quantiles(times_us, n=100)[98]
    demo.figures["one verification"] = f"median {median:.0f} µs, 99 % within {late:.0f} µs"
    demo.figures[f"batches of {BATCH}"] = f"{rate:,.0f} keys/s on one connection"
    demo.narrator.say(f"""{QUESTIONS:,} keys one after another, from this Python program over the
        socket and back: median {median:.0f} µs, 99 % within {late:.0f} µs. {BATCHES * BATCH:,} keys
        in batches of {BATCH}, on one connection: {rate:,.0f} a second. All of them are valid, which
        was checked. (latchkey-bench measures in earnest.)""")


# ---- changes


def revocation(demo: Demo) -> None:
    """Plain SQL is enough, and the delay is measured, not claimed."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    say("""Somebody revokes a key, with plain SQL, from psql or any program. `latchkey sync` returns
        once everything that had committed before is in force:""")
    stage.verify(keys["ci"], "valid")
    update = "UPDATE public.api_keys SET status = '{}' WHERE name = 'ci'"
    passed_ms = stage.sync(stage.sql(update.format("revoked"), "UPDATE 1"))
    stage.verify(keys["ci"], "revoked", " fresh ")
    say(f"""From the commit to the return of sync {passed_ms:.1f} ms passed, starting the program
        included. The way back is as short:""")
    stage.sync(stage.sql(update.format("active"), "UPDATE 1"))
    stage.verify(keys["ci"], "valid")
    delays = sorted(revoke_rounds(demo))
    median, worst = statistics.median(delays), delays[-1]
    demo.figures["from commit to refusal"] = (
        f"median {median:.2f} ms, worst of {len(delays)} {worst:.2f} ms"
    )
    say(f"""Without sync: {len(delays)} keys revoked one by one, while this program asks about each
        over and over. From PostgreSQL's word that the revocation is committed to the first answer
        that refuses the key: median {median:.2f} ms, worst {worst:.2f} ms.""")


def revoke_rounds(demo: Demo) -> Iterator[float]:
    """Milliseconds from a commit to the first refusal, for some generated keys."""
    with Wire(demo.stage.socket) as wire, demo.stage.conn.cursor() as cursor:
        cursor.execute(
            "SELECT name, id FROM public.api_keys WHERE name = ANY(%s)",
            ([f"Row {i}" for i in range(1, REVOCATIONS + 1)],),
        )
        for name, row_id in cursor.fetchall():
            frame = verify_frame([seeds.key_text(API_SEED, int(name.split()[1]))])
            demo.narrator.check(f"{name} before", bytes([VALID]), wire.ask(frame))
            cursor.execute("UPDATE public.api_keys SET status = 'revoked' WHERE id = %s", (row_id,))
            committed = time.perf_counter()
            while (verdict := wire.ask(frame)) == bytes([VALID]):
                if time.perf_counter() - committed > 5:
                    raise DemoFailed(f"{name} is still valid 5 s after its revocation")
            delay_ms = (time.perf_counter() - committed) * 1000
            demo.narrator.check(f"{name} after", bytes([REVOKED]), verdict)
            yield delay_ms


def other_changes(demo: Demo) -> None:
    """Rows that vanish unnamed, many at once, and rows that come."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    say("""Keys can go without a statement that names them. This deletes a user, and PostgreSQL
        deletes that user's keys (ON DELETE CASCADE). The JWT is still signed well and has not
        expired; it is refused all the same:""")
    stage.verify(keys["laptop"], "valid")
    stage.sync(
        stage.sql("""DELETE FROM auth."user" WHERE email = 'laptop-owner@example.com'""", "DELETE 1")
    )
    stage.verify(keys["laptop"], "unknown")

    say("Many at once, a tenth of the table in one statement:")
    tenth = "UPDATE public.api_keys SET status = 'disabled' WHERE id % 10 = 7 AND name LIKE 'Row %'"
    rows = stage.value("SELECT count(*) FROM public.api_keys WHERE id % 10 = 7 AND name LIKE 'Row %'")
    gone = str(stage.value("SELECT name FROM public.api_keys WHERE id = 10007")).split()[1]
    passed_ms = stage.sync(stage.sql(tenth, f"UPDATE {rows}"))
    stage.verify(seeds.key_text(API_SEED, int(gone)), "disabled", why="one of them")
    demo.figures[f"{rows:,} rows changed at once"] = f"in force {passed_ms:.0f} ms after the commit"

    say("A new key. `latchkey mint` makes it, with the digest to store:")
    new = mint_and_insert(demo, "new", "new", "_v1.key")
    stage.verify(new, "valid", 'scope="read"')


def mint_and_insert(demo: Demo, prefix: str, name: str, version: str) -> str:
    """A new row of api_keys from what `latchkey mint` prints; its key."""
    arguments = ["mint", "--prefix", prefix, "--config", "latchkey.toml", "--source", "api_keys"]
    done = demo.stage.run("latchkey", *arguments)
    demo.narrator.check("exit code of mint", 0, done.exit_code)
    key, scheme, stored = done.stdout.split()
    demo.narrator.hide(key)
    demo.narrator.hide(stored)
    demo.narrator.command(" ".join(["latchkey", *arguments]))
    demo.narrator.check_holds(f"minted with {version}", scheme.endswith(version), scheme)
    demo.narrator.output(done.stdout, mark="✓")
    version_name = scheme.partition(":")[2]
    demo.stage.sync(
        demo.stage.sql(
            f"""INSERT INTO public.api_keys (tenant_id, name, scopes, token_hash_key_version, token_hash)
                VALUES (1, '{name}', '["read"]', '{version_name}',
                        '{stored}')""",
            "INSERT 0 1",
        )
    )
    return str(key)


def rotation(demo: Demo) -> None:
    """A new pepper, while the keys of the old one go on."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    daemon = stage.daemon
    assert daemon is not None
    say("""The secret behind the HMACs is to be replaced. The new version is one more file in the
        folder, and a reload; nobody's key changes:""")
    v2 = seeds.Pepper.random(demo.v1.name.replace("_v1", "_v2"))
    ready = daemon.notifications.count("READY=1")
    demo.narrator.command(f"head -c 32 /dev/urandom > peppers/{v2.version}")
    stage.add_pepper(v2)
    demo.narrator.command(f"kill -HUP {daemon.pid}", why="or: systemctl reload latchkeyd")
    daemon.sighup()
    daemon.wait_notified("READY=1", ready + 1)
    message = _messages(daemon.log())[-1]
    demo.narrator.check_holds("a reload", "reloaded peppers" in message, message)
    demo.narrator.output(message, mark="✓")

    before = demo.source("api_keys")["accepted_by_pepper"]
    demo.narrator.check("versions known", {demo.v1.version, v2.version}, set(before))
    say("New keys are made with the new version, and old ones are still good:")
    newest = mint_and_insert(demo, "newest", "newest", "_v2.key")
    stage.verify(newest, "valid", why="version 2")
    stage.verify(newest, "valid", why="version 2, once more")
    stage.verify(keys["ci"], "valid", why="version 1")
    say("The status tells when nobody uses an old version any more, so that it can go:")
    demo.narrator.command("latchkey status | grep api_keys")
    done = stage.run("latchkey", "status")
    demo.narrator.output(
        "\n".join(line for line in done.stdout.splitlines() if "api_keys" in line), mark="✓"
    )
    after = demo.source("api_keys")["accepted_by_pepper"]
    hits = {version: after[version] - before[version] for version in after}
    demo.narrator.check("accepted by version since", {demo.v1.version: 1, v2.version: 2}, hits)


# ---- trouble


def outage(demo: Demo) -> None:
    """Without its database Latchkey answers, and says how old its knowledge is."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    lifetime_s = 6
    say(f"One more key, which expires in {lifetime_s} seconds. Then PostgreSQL is stopped.")
    demo.keys["brief"] = f"brief_{secrets.token_hex(16)}"
    demo.narrator.hide(keys["brief"])
    seeds.insert_api_key(
        stage.conn, 1, None, "brief", keys["brief"], demo.v1, expires_at=timedelta(seconds=lifetime_s)
    )
    expires = time.monotonic() + lifetime_s
    stage.run("latchkey", "sync")
    stage.verify(keys["brief"], "valid", "exp=")
    demo.narrator.command("pg_ctl stop")
    stage.cluster.stop()
    stopped = time.monotonic()
    say("The answers go on:")
    stage.verify(keys["partner"], "valid", " fresh ", "age=")
    demo.narrator.wait(
        "past the bound of 2 s", lambda: time.monotonic() > stopped + 2.1, deadline_s=10
    )
    say("""Now nobody can know whether the key was revoked in the meantime. The answer says so, and
        whoever wants younger knowledge gets no answer rather than a guess (exit code 3):""")
    stage.verify(keys["partner"], "valid", "NOT FRESH", "age=")
    stage.verify(keys["partner"], "unavailable", options=["--max-age", "1s"])
    say("Nor does sync pretend:")
    stage.expect(stage.shell("latchkey", "sync", "--timeout", "500ms"), 3)
    demo.narrator.wait(
        "until the last key expires", lambda: time.monotonic() > expires + 0.1, deadline_s=20
    )
    say("Time goes on without a database. The key has expired by now:")
    stage.verify(keys["brief"], "expired")
    demo.narrator.command("latchkey status | head -n 5")
    done = stage.run("latchkey", "status")
    demo.narrator.check_holds("state lost", demo.status()["databases"][0]["state"] == "lost", done)
    demo.narrator.output("\n".join(done.stdout.splitlines()[:5]), mark="✓")


def return_of_the_database(demo: Demo) -> None:
    """What changed unseen is in force before anything is called fresh again."""
    say, stage, keys = demo.narrator.say, demo.stage, demo.keys
    say("""PostgreSQL comes back. At once, before Latchkey has tried again, keys are revoked and
        brought back. No notification of this reaches anybody:""")
    demo.narrator.command("pg_ctl start")
    stage.cluster.start()
    stage.connect()
    stage.sql("UPDATE public.api_keys SET status = 'revoked' WHERE name = 'ci'", "UPDATE 1")
    stage.sql(
        "UPDATE public.external_credentials SET deleted_at = NULL WHERE deleted_at IS NOT NULL",
        "UPDATE 1",
    )
    committed = time.monotonic()
    state = demo.status()["databases"][0]["state"]
    demo.narrator.output(f"(to Latchkey the database is still {state})" if state != "live" else "")
    stage.sync(committed)
    stage.verify(keys["ci"], "revoked", " fresh ")
    stage.verify(keys["expartner"], "valid", " fresh ")
    say("And if somebody empties a whole table:")
    stage.verify(keys["partner"], "valid")
    passed_ms = stage.sync(stage.sql("TRUNCATE public.external_credentials", "TRUNCATE TABLE"))
    stage.verify(keys["partner"], "unknown")
    stage.verify(seeds.key_text(EXTERNAL_SEED, 1), "unknown", why="one of the generated ones")
    stage.verify(keys["report"], "valid", " fresh ", why="another table")
    demo.figures["TRUNCATE"] = f"in force {passed_ms:.0f} ms after the commit"


def the_end(demo: Demo) -> None:
    """An orderly stop, and proof that no secret got into the log."""
    daemon = demo.stage.daemon
    assert daemon is not None
    demo.narrator.say("""An orderly stop. And a last look at the daemon's log: none of the keys,
        digests and passwords of this demo is in it.""")
    demo.narrator.command(f"kill {daemon.pid}", why="or: systemctl stop latchkeyd")
    code = daemon.stop()
    log = daemon.log()
    demo.narrator.check("exit code of latchkeyd", 0, code)
    demo.narrator.output("\n".join(_messages(log)[-2:]), mark="✓")
    told = [secret for secret in demo.narrator.secrets if secret in log]
    demo.narrator.check("secrets in the log", [], told)


CHAPTERS: tuple[tuple[str, Callable[[Demo], None]], ...] = (
    ("An application and its keys", the_application),
    ("Latchkey is introduced to the database", the_configuration),
    ("The daemon", the_daemon),
    ("Good keys", good_keys),
    ("Bad keys", bad_keys),
    ("Who may ask", who_may_ask),
    ("How fast", how_fast),
    ("A key is revoked", revocation),
    ("Other changes", other_changes),
    ("A new pepper", rotation),
    ("The database is gone", outage),
    ("The database is back", return_of_the_database),
    ("The end", the_end),
)


# ---- the program


def play(narrator: Narrator) -> None:
    """All chapters, then proof that nothing is left, then the figures."""
    narrator.title("Latchkey: may the holder of this API key in, as whom, and with which scopes?")
    narrator.say("""It answers from memory, in microseconds, out of the table that the application
        already has, and a revocation is in force within milliseconds. In about half a minute you
        see all of it, live.""")
    with Stage(narrator) as stage:
        demo = Demo(narrator, stage)
        try:
            for title, chapter in CHAPTERS:
                narrator.chapter(title)
                chapter(demo)
        except (DemoFailed, AssertionError, psycopg2.Error, OSError, ValueError, KeyError) as error:
            raise DemoFailed(f"{type(error).__name__}: {error}\n{_log_tail(stage)}") from error
        postgres, folders = stage.cluster.pid, [stage.folder, stage.cluster.socket_dir.parent]
    left = [str(folder) for folder in folders if folder.exists()]
    left += [f"process {postgres}"] if child.alive(postgres) else []
    narrator.check("left behind", [], left)
    total_s = time.monotonic() - demo.started
    narrator.chapter("Summary")
    demo.figures["checks"] = f"{narrator.checked:,}, all passed, in {total_s:.0f} s"
    narrator.table(demo.figures.items())
    narrator.say("""The daemon and the database are stopped, their folders deleted. What to try next:
        README.md shows how to run Latchkey beside your own database.""")


def _messages(log: str) -> list[str]:
    """The log without the time at the front of each line."""
    return [line.partition(" ")[2] for line in log.splitlines()]


def _log_tail(stage: Stage) -> str:
    if stage.daemon is None:
        return "(latchkeyd had not been started yet)"
    lines = stage.daemon.log().splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(["the end of latchkeyd's log:", *("  " + line for line in lines)])


def _stop_asked(number: int, _: object) -> None:
    """Ended from outside: leave by the normal way, so that everything is cleaned up."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """0, or 1 if a step was wrong; as a shell would have it if interrupted."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop_asked)
    narrator = Narrator()
    try:
        play(narrator)
    except DemoFailed as failure:
        narrator.error(f"\nThe demo FAILED in chapter {narrator.step}\n{failure}")
        return 1
    except SystemExit:
        narrator.error("\nInterrupted; everything that was started is stopped and deleted.")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
