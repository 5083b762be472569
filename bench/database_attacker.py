"""The effect of NOTIFY by a database login without privileges on the freshness of answers.

There are three tables: the attacker names one with bigint ids, or one with text ids, and never the third.
A caller asks for a key of each table fifty times a second. The table shows the share of fresh answers, and
the age that 99 % of the answers do not exceed.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from stand import served, server

from harness import wire
from harness.postgres import PrivateCluster
from installation import Installation

EVE = "eve"  # may connect, and has no other right
TABLES = ("other", "numbers", "texts")


@dataclass(frozen=True)
class Attack:
    """A statement that the attacker runs repeatedly. Blanks or numbers make payloads differ."""

    named: str
    sql: str
    pause_s: float


def forged(what: str) -> str:
    return f"""SELECT pg_notify('latchkey', '{{"t" : "public.numbers", "{what}" : true}}')"""


def forged_ids(table: str, ids: str, notices: int, in_each: int) -> str:
    return f"""SELECT count(pg_notify('latchkey',
                 json_build_object('t', 'public.{table}', 'ids', part.ids)::text))
               FROM (SELECT json_agg({ids}) AS ids FROM generate_series(1, {notices * in_each}) AS i
                     GROUP BY i / {in_each}) AS part"""


LONG = "i || repeat('x', 7800)"
NUMBER = "(random() * 1e15)::bigint::text"


def attacks(smoke: bool) -> dict[str, Attack]:
    few = 100 if smoke else 1
    return {
        "nothing": Attack("", "SELECT 1", 1),
        "forged `all`, 1/s": Attack("numbers", forged("all"), 1),
        "forged `all`, 100/s": Attack("numbers", forged("all"), 0.01),
        "forged `reload`, 1/s": Attack("numbers", forged("reload"), 1),
        "forged `reload`, 100/s": Attack("numbers", forged("reload"), 0.01),
        # Ten transactions; the last row shows the effect of a single one.
        "60,000 ids of 8 KB, bigint ids": Attack(
            "numbers", forged_ids("numbers", LONG, 6_000 // few, 1), 0.1
        ),
        "60,000 ids of 8 KB, text ids": Attack(
            "texts", forged_ids("texts", LONG, 6_000 // few, 1), 0.1
        ),
        "100,000 and more ids a second": Attack(
            "numbers", forged_ids("numbers", NUMBER, 400 // few, 400), 0.2
        ),
        "one transaction of 316 MB": Attack(
            "numbers",
            f"SELECT count(pg_notify('latchkey', i || repeat('x', 7900)))"
            f" FROM generate_series(1, {40_000 // few}) AS i",
            60,
        ),
    }


class Site(Installation):
    """Three tables of `rows` rows each."""

    def __init__(self, cluster: PrivateCluster, rows: int) -> None:
        cluster.createdb("attacked")
        super().__init__(cluster, "attacked")
        self.freshness |= {"heartbeat": "1s", "bound": "5s"}
        self.sql(f"CREATE ROLE {EVE} LOGIN")
        for table in TABLES:
            kind = "text" if table == "texts" else "bigint"
            self.sql(f"CREATE TABLE {table} (id {kind} PRIMARY KEY, key text NOT NULL)")
            self.sql(f"INSERT INTO {table} SELECT i, '{table} key of some length ' || i"
                     f" FROM generate_series(1, {rows}) AS i")  # fmt: skip
            self.source(table, table=f"public.{table}", id="id", key="key")


@contextlib.contextmanager
def running(there: Site, attack: Attack) -> Iterator[None]:
    stop = threading.Event()
    conn = there.cluster.connect(there.dbname, EVE)

    def run() -> None:
        with conn.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(attack.sql)
                stop.wait(attack.pause_s)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        conn.close()


def asked(there: Site, for_s: float) -> dict[str, list[tuple[bool, int]]]:
    """Return for each table whether each answer was fresh, and its age in ms."""
    seen: dict[str, list[tuple[bool, int]]] = {table: [] for table in TABLES}
    request = wire.verify([f"{table} key of some length 1".encode() for table in TABLES])
    end = time.monotonic() + for_s
    with wire.Raw(there.socket) as caller:
        while time.monotonic() < end:
            reply = caller.ask(request)
            if reply.verdicts != ["valid"] * len(TABLES):
                sys.exit(f"wrong verdicts: {reply.verdicts}")
            for table, (_, fresh), age in zip(TABLES, reply.answers, reply.ages_ms, strict=True):
                seen[table].append((fresh, age))
            time.sleep(0.02)
    return seen


def told(seen: list[tuple[bool, int]]) -> str:
    ages = sorted(age for _, age in seen)
    share = sum(fresh for fresh, _ in seen) / len(seen)
    return f"{share:.1%}, {ages[int(len(ages) * 0.99)] / 1000:.1f} s"


def table(smoke: bool, rows: int, only: str) -> None:
    """Print the table in Markdown."""
    print("\n| a login of the database, by NOTIFY | tables not named | the named one |")
    print("|---|---|---|")
    with server() as cluster:
        there = Site(cluster, rows)
        with served(there):
            for name, attack in attacks(smoke).items():
                if only not in name:
                    continue
                with running(there, attack):
                    seen = asked(there, 1 if smoke else 20)
                others = [one for each in TABLES if each != attack.named for one in seen[each]]
                named = told(seen[attack.named]) if attack.named else ""
                print(f"| {name} | {told(others)} | {named} |", flush=True)
                there.cli.sync("60s")
        there.close()
