"""Chapters 1 to 3: an application with keys, the operator's setup, the daemon's start."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg2
from harness import seeds

from .narrator import DemoFailed
from .stage import DATABASE, Stage

EXTERNAL_ROWS = 150_000
AUTH_ROWS = 15_000  # a trigger signs a JWT for each, which takes time
API_ROWS = 150_000
# Different seeds, so that no generated key is in two tables.
EXTERNAL_SEED, AUTH_SEED, API_SEED = "external", "auth", "api"

_NAMED = {"external_credentials": 2, "auth": 2, "api_keys": 5}  # see insert_named_keys
_PARTS = 15  # of the generated rows, with a sign of progress after each


# ---- 1


def application(stage: Stage) -> None:
    """Creates the application's tables, which exist before Latchkey."""
    say = stage.narrator.say
    say("""An application keeps its API keys in its own tables. Here are three such tables, as
        different as real ones are, in a private PostgreSQL that lives in a temporary folder and
        runs as an unprivileged user. No server that already runs is touched.""")
    stage.start_database()
    seeds.create_schema(stage.conn)
    stage.narrator.table(
        [
            ("public.external_credentials", "keys in plain text; deleted softly, by a date"),
            ("auth.api_key", "whole JWTs, signed by a trigger; row level security"),
            ("public.api_keys", "only an HMAC of each key, made with a secret pepper"),
        ]
    )
    insert_named_keys(stage)
    say("""A handful of keys has names, for us to talk about. The others are generated, because a
        real table is not small:""")
    generate_keys(stage)


def insert_named_keys(stage: Stage) -> None:
    """Inserts one key for each state that a key can have."""
    conn = stage.conn
    keys = {
        name: f"{name}_{secrets.token_hex(16)}"
        for name in "partner expartner ci report paused leaked trial nobody".split()
    }
    seeds.insert_external(conn, keys["partner"], 4711)
    seeds.insert_external(conn, keys["expartner"], 4712, deleted=True)

    user = seeds.insert_auth_user(conn, "owner@example.com")
    keys["laptop"] = seeds.insert_auth_key(conn, user, timedelta(days=90), "laptop").token
    keys["old"] = seeds.insert_auth_key(conn, user, timedelta(days=-1), "old laptop").token

    tenant, owner = seeds.insert_tenant(conn, "Demo tenant"), seeds.insert_user(conn)

    def api_key(
        name: str, *scopes: str, status: str = "active", expiry: timedelta | None = None
    ) -> None:
        seeds.insert_api_key(
            conn, tenant, owner, name, keys[name], stage.v1,
            scopes=scopes, status=status, expires_at=expiry,
        )  # fmt: skip

    api_key("ci", "read", "write")
    api_key("report", "read")
    api_key("paused", "read", status="disabled")
    api_key("leaked", "read", "write", status="revoked")
    api_key("trial", "read", expiry=timedelta(minutes=-5))
    for key in keys.values():
        stage.narrator.hide(key)
    stage.keys |= keys


def generate_keys(stage: Stage) -> None:
    """Inserts rows by the hundred thousand."""

    def parts(rows: int, fill: Callable[[int, int], None]) -> Iterator[int]:
        size = rows // _PARTS
        for first in range(1, rows + 1, size):
            fill(size, first)
            yield size

    conn, work = stage.conn, stage.narrator.work
    stage.narrator.blank()
    work(
        "rows in external_credentials",
        EXTERNAL_ROWS,
        parts(EXTERNAL_ROWS, lambda n, at: seeds.fill_external(conn, n, EXTERNAL_SEED, at)),
    )
    work(
        "rows in auth.api_key",
        AUTH_ROWS,
        parts(AUTH_ROWS, lambda n, at: seeds.fill_auth(conn, n, AUTH_SEED, at)),
    )
    work(
        "rows in api_keys",
        API_ROWS,
        parts(API_ROWS, lambda n, at: seeds.fill_api_keys(conn, n, stage.v1, API_SEED, at)),
    )


# ---- 2


def configuration(stage: Stage) -> None:
    """The operator's setup on an existing database."""
    say, narrator = stage.narrator.say, stage.narrator
    stage.make_folder()
    stage.add_pepper(stage.v1)
    password = secrets.token_hex(16)
    narrator.hide(password)
    text = stage.write_configuration(stage.write_password(password))
    say(f"""This is all the configuration, the file latchkey.toml. A preset knows the columns of its
        table; any other table works by naming its columns. (Commands are shown as one would type
        them in {stage.folder}, and secrets only by their first characters. A ✓ says that the demo
        has compared the answer with what it must be.)""")
    narrator.listing(text)
    say("""Latchkey never changes a database by itself. It prints SQL for you to read and run. First
        a role for it, which may read the mapped columns and nothing else:""")
    _pipe_to_psql(stage, "grant", shown="GRANT SELECT")
    stage.sql(f"ALTER ROLE latchkey PASSWORD '{password}'", "ALTER ROLE")

    say("""Then triggers, without which Latchkey would hear of no change. It finds out when they are
        missing, and does not start without them:""")
    narrator.command("latchkeyd --config latchkey.toml --check | head -n 1")
    done = stage.run("latchkeyd", "--config", "latchkey.toml", "--check")
    narrator.check("exit code of --check without triggers", 1, done.exit_code)
    first = done.stdout.partition("\n")[0]
    narrator.check_holds("the missing triggers are named", "latchkey_update" in first, done)
    narrator.output(first, mark="✓")
    _pipe_to_psql(stage, "install", shown="CREATE TRIGGER latchkey_update")

    say("""Row level security is a trap: an ordinary role finds the table empty, and gets no error.
        Latchkey's role sees every row, and nothing that it does not need:""")
    _check_privileges(stage)
    say("Now everything is in order:")
    done = stage.shell("latchkeyd", "--config", "latchkey.toml", "--check")
    stage.expect(done, 0, f"{EXTERNAL_ROWS + _NAMED['external_credentials']} rows", "in order")


def _pipe_to_psql(stage: Stage, action: str, shown: str) -> None:
    """Runs the output of `latchkey sql …` for all sources as a superuser, and shows one statement of it."""
    stage.narrator.command(
        f"latchkey sql {action} --config latchkey.toml | psql -q -v ON_ERROR_STOP=1 {DATABASE}"
    )
    done = stage.run("latchkey", "sql", action, "--config", "latchkey.toml")
    stage.narrator.check(f"exit code of latchkey sql {action}", 0, done.exit_code)
    stage.cluster.psql(done.stdout, DATABASE)
    lines = done.stdout.splitlines()
    examples = [line for line in lines if line.startswith(shown)]
    stage.narrator.check(f"{shown!r} in the SQL, once for each table", 3, len(examples))
    stage.narrator.output(f"({len(lines)} lines of SQL, such as:)\n{examples[0]}")


def _check_privileges(stage: Stage) -> None:
    """Tests the rows that each role can see."""
    narrator = stage.narrator
    count = "SELECT count(id) FROM auth.api_key"
    with stage.conn.cursor() as cursor:
        for role, rows in (("authenticated", 0), ("latchkey", AUTH_ROWS + _NAMED["auth"])):
            narrator.sql(f"SET ROLE {role}; {count}")
            cursor.execute(f"SET ROLE {role}; {count}")
            ((seen,),) = cursor.fetchall()
            narrator.check(f"rows of auth.api_key that {role} sees", rows, seen)
            narrator.output(str(seen), mark="✓")
        for forbidden in ("SELECT value FROM auth.secrets", "DELETE FROM public.api_keys"):
            narrator.sql(forbidden)
            try:
                cursor.execute(forbidden)
            except psycopg2.errors.InsufficientPrivilege as error:
                narrator.check_holds("permission denied", "denied" in str(error), error)
                narrator.output(f"ERROR:  {str(error).strip()}", mark="✓")
            else:
                raise DemoFailed(f"role latchkey was permitted to {forbidden}")
        cursor.execute("RESET ROLE")


# ---- 3


def daemon_start(stage: Stage) -> None:
    """Starts the daemon, which answers no request before everything is loaded."""
    narrator = stage.narrator
    narrator.say("""The daemon reads all keys into memory before it answers anybody. What it keeps
        of a key is a digest, never the key.""")
    started = time.monotonic()
    narrator.command("latchkeyd --config latchkey.toml &")
    daemon = stage.start_daemon()
    narrator.wait(
        "loading",
        lambda: "READY=1" in daemon.notifications or daemon.exit_code is not None,
        deadline_s=60,
    )
    daemon.wait_ready()
    ready_s = time.monotonic() - started
    narrator.output("\n".join(stage.log_messages()), mark="✓")
    sources = stage.status()["sources"]
    rows = sum(source["rows"] for source in sources)
    expected = EXTERNAL_ROWS + AUTH_ROWS + API_ROWS + sum(_NAMED.values())
    narrator.check("rows loaded", expected, rows)
    loading_s = sum(source["load_s"] for source in sources)
    narrator.say(f"{rows:,} keys, ready after {ready_s:.2f} s.")
    stage.figures["loading all keys"] = (
        f"{rows:,} rows in {loading_s:.2f} s: {rows / loading_s:,.0f} rows/s"
    )
