"""Chapters 8 to 10: changes by plain SQL take effect at once, and a pepper is rotated."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from harness import seeds
from harness.wait import until

from .narrator import DemoFailed
from .prepare import API_SEED, EXTERNAL_SEED
from .stage import Stage
from .wire import REVOKED, VALID, Wire, verify_frame

_ROUNDS = 20
_TOO_LATE_S = 5.0


# ---- 8


def revocation(stage: Stage) -> None:
    """Plain SQL revokes a key, and the demo measures the delay."""
    say, keys = stage.narrator.say, stage.keys
    say("""Somebody revokes a key with plain SQL. `latchkey sync` returns once everything that had
        been committed before is in force:""")
    stage.verify(keys["ci"], "valid")
    update = "UPDATE public.api_keys SET status = '{}' WHERE name = 'ci'"
    passed_ms = stage.sync(stage.sql(update.format("revoked"), "UPDATE 1"))
    stage.verify(keys["ci"], "revoked", " fresh ")
    say(f"""From the commit to the return of sync: {passed_ms:.1f} ms, most of it for starting the
        program. The way back is as short:""")
    stage.sync(stage.sql(update.format("active"), "UPDATE 1"))
    stage.verify(keys["ci"], "valid")
    delays_ms = list(revoke_and_ask(stage))
    median, worst = statistics.median(delays_ms), max(delays_ms)
    say(f"""Nobody has to call sync. {_ROUNDS} generated keys were just revoked one by one while
        this program asked about them without a pause. From PostgreSQL's "committed" to the first
        refusal: median {median:.2f} ms, the slowest {worst:.2f} ms.""")
    stage.figures["from commit to refusal"] = (
        f"median {median:.2f} ms, the slowest of {_ROUNDS} {worst:.2f} ms"
    )


def revoke_and_ask(stage: Stage) -> Iterator[float]:
    """The milliseconds from a commit to the first refusal, for some generated keys."""
    with Wire(stage.socket) as wire, stage.conn.cursor() as cursor:
        names = [f"Row {i}" for i in range(1, _ROUNDS + 1)]
        cursor.execute("SELECT name, id FROM public.api_keys WHERE name = ANY(%s)", (names,))
        for name, row_id in cursor.fetchall():
            frame = verify_frame([seeds.key_text(API_SEED, int(name.split()[1]))])
            stage.narrator.check(f"{name} before", bytes([VALID]), wire.ask(frame))
            cursor.execute("UPDATE public.api_keys SET status = 'revoked' WHERE id = %s", (row_id,))
            committed = time.perf_counter()
            while (verdict := wire.ask(frame)) == bytes([VALID]):
                if time.perf_counter() - committed > _TOO_LATE_S:
                    raise DemoFailed(f"{name} is valid {_TOO_LATE_S:g} s after its revocation")
            delay_ms = (time.perf_counter() - committed) * 1000
            stage.narrator.check(f"{name} after", bytes([REVOKED]), verdict)
            yield delay_ms


# ---- 9


def other_changes(stage: Stage) -> None:
    """New rows, many at once, and rows deleted by a cascade."""
    say, keys = stage.narrator.say, stage.keys
    say("""A new key. `latchkey mint` makes one, with the digest to store, and does not touch the
        database:""")
    new = mint_and_insert(stage, "new", version="_v1.key")
    stage.verify(new, "valid", 'scope="read"')

    say("""Keys can also go without a statement that names them. This deletes a user, and PostgreSQL
        deletes the keys of that user (ON DELETE CASCADE). The JWT is still signed well and has not
        expired, and is refused all the same:""")
    stage.verify(keys["laptop"], "valid")
    delete = """DELETE FROM auth."user" WHERE email = 'owner@example.com'"""
    stage.sync(stage.sql(delete, "DELETE 1"))
    stage.verify(keys["laptop"], "unknown")

    say("Many at once, a tenth of a table in one statement:")
    tenth = "id % 10 = 6 AND name LIKE 'Row %'"
    rows = stage.value(f"SELECT count(*) FROM public.api_keys WHERE {tenth}")
    update = f"UPDATE public.api_keys SET status = 'disabled' WHERE {tenth}"
    passed_ms = stage.sync(stage.sql(update, f"UPDATE {rows}"))
    number = str(stage.value("SELECT name FROM public.api_keys WHERE id = 10006")).split()[1]
    stage.verify(seeds.key_text(API_SEED, int(number)), "disabled", why="one of them")
    stage.figures[f"disabling {rows:,} keys at once"] = f"in force {passed_ms:.0f} ms after commit"

    say("And if somebody empties a whole table, its keys are gone, and only those:")
    stage.verify(keys["partner"], "valid")
    passed_ms = stage.sync(stage.sql("TRUNCATE public.external_credentials", "TRUNCATE TABLE"))
    stage.verify(keys["partner"], "unknown")
    stage.verify(seeds.key_text(EXTERNAL_SEED, 1), "unknown", why="a generated one")
    stage.verify(keys["ci"], "valid", " fresh ", why="from another table")
    stage.figures["emptying a table"] = f"in force {passed_ms:.0f} ms after commit"


def mint_and_insert(stage: Stage, name: str, version: str) -> str:
    """Insert a row of api_keys from the output of `latchkey mint`; returns its key.

    `version` is the expected end of the name of the pepper that mint chooses.
    """
    narrator = stage.narrator
    arguments = ["mint", "--prefix", name, "--config", "latchkey.toml", "--source", "api_keys"]
    narrator.command(" ".join(["latchkey", *arguments]))
    done = stage.run("latchkey", *arguments)
    narrator.check("exit code of mint", 0, done.exit_code)
    key, scheme, stored = done.stdout.split()
    narrator.hide(key)
    narrator.hide(stored.removeprefix("\\x"))
    narrator.check_holds(f"a digest made with pepper *{version}", scheme.endswith(version), scheme)
    narrator.output(done.stdout, mark="✓")
    insert = f"""
        INSERT INTO public.api_keys (tenant_id, name, scopes, token_hash_key_version, token_hash)
        VALUES (1, '{name}', '["read"]', '{scheme.partition(":")[2]}',
                '{stored}')"""
    stage.sync(stage.sql(insert, "INSERT 0 1"))
    return str(key)


# ---- 10


def rotation(stage: Stage) -> None:
    """A new pepper comes into use, and the keys of the old one stay valid."""
    say, narrator, daemon = stage.narrator.say, stage.narrator, stage.daemon
    say("""The pepper behind the HMACs is to be replaced. The new version is one more file in the
        folder, and a reload. Nobody needs a new key:""")
    before = stage.accepted_by_pepper()
    v2 = seeds.Pepper.random(stage.v1.name.replace("_v1", "_v2"))
    reloads = daemon.notifications.count("READY=1")
    narrator.command(f"head -c 32 /dev/urandom > peppers/{v2.version}")
    stage.add_pepper(v2)
    narrator.command(f"kill -HUP {daemon.pid}", why="or: systemctl reload latchkeyd")
    daemon.sighup()
    daemon.wait_notified("READY=1", reloads + 1)
    # The log line takes another way than the notification, and may arrive later.
    until(lambda: "reloaded" in stage.log_messages()[-1], 10, "the log tells of the reload")
    message = stage.log_messages()[-1]
    narrator.check_holds("the log tells of the reload", "reloaded" in message, message)
    narrator.output(message, mark="✓")

    say("From now on keys are made with version 2, and those of version 1 are still good:")
    newest = mint_and_insert(stage, "newest", version="_v2.key")
    stage.verify(newest, "valid", why="version 2")
    stage.verify(newest, "valid", why="version 2, once more")
    stage.verify(stage.keys["ci"], "valid", why="version 1")
    say("The status tells when an old version is not used any more, so that its file can go:")
    narrator.command("latchkey status | grep pepper")
    expected = {stage.v1.version: before[stage.v1.version] + 1, v2.version: 2}
    got = stage.accepted_by_pepper()
    lines = stage.run("latchkey", "status").stdout.splitlines()
    told = "\n".join(line for line in lines if "pepper" in line)
    narrator.output(told, mark="✓" if got == expected else "✗")
    narrator.check("accepted by pepper", expected, got)
