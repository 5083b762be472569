"""A table `k` with three keys, followed by a daemon, and the promises about its keys.

"gone" is revoked by a statement that no trigger reports, or by one that follows it. "stays" is never revoked.
The application revokes "later" at the end, which shows that the feed still works.

Audits are off, so the heartbeat alone must detect the changes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Setting

BOUND_S = 0.6
QUICK: dict[str, Setting] = {"heartbeat": "100ms", "bound": "600ms", "audit": "0s"}
READER = "ddl_reader"  # a role that has no rights from other tests
KEYS = ("gone", "stays", "later")
REVOKE = "UPDATE k SET revoked_at = now() WHERE key = '{}'"
ROWS = "INSERT INTO k (id, key) VALUES (1, 'gone'), (2, 'stays'), (3, 'later')"


def table(*columns: str, ids: str = "int") -> str:
    """SQL that creates `k` with these columns besides `id` and `key`, and inserts its three keys."""
    parts = [f"id {ids} PRIMARY KEY", "key text NOT NULL", *columns]
    return f"CREATE TABLE k ({', '.join(parts)}); {ROWS}"


PLAIN = table("revoked_at timestamptz")
# The role may read columns that are added later.
GRANTED = f"; GRANT SELECT ON k TO {READER}"


@dataclass(frozen=True)
class Case:
    """One DDL case. Each statement of a tuple runs in its own transaction."""

    ddl: str | tuple[str, ...]
    setup: str = PLAIN
    mapping: dict[str, Setting] = field(default_factory=lambda: {"revoked_at": "revoked_at"})
    gone: str = "revoked"  # the verdict on "gone" afterwards; `stays` is that on "stays"
    stays: str = "valid"
    revoke: str = REVOKE  # the application's later revocation; "": impossible
    revoked: str = "revoked"
    mend: str = ""  # SQL that makes the table readable again; "install": `latchkey sql`
    told: str = ""  # the problem that `status` reports while the table cannot be read
    server: int = 13  # the oldest PostgreSQL version that has this

    @property
    def transactions(self) -> tuple[str, ...]:
        return (self.ddl,) if isinstance(self.ddl, str) else self.ddl


@contextlib.contextmanager
def installed(
    cluster: PrivateCluster, databases: Databases, setup: str, **mapping: Setting
) -> Iterator[Installation]:
    """A database with the table, and a source that reads it."""
    cluster.create_role(READER)
    site = Installation(cluster, databases.new(), user=READER)
    site.freshness |= QUICK
    try:
        site.sql(setup)
        site.source("k", **{"table": "public.k", "id": "id", "key": "key"} | mapping)
        yield site
    finally:
        site.close()
        databases.drop(site.dbname)


def run(site: Installation, *transactions: str) -> float:
    """Commit the transactions; returns the time at which the last one had committed."""
    for text in transactions:
        site.sql(text)
    return time.monotonic()


def assert_no_fresh_yes(site: Installation, since: float, key: str = "gone") -> None:
    """No answer sent later than `bound` after `since` is a fresh yes. Returns at a refusal, or past the bound."""
    while True:
        asked = time.monotonic()
        (answer,) = site.cli.verify(key)
        yes = answer["verdict"] == "valid" and answer["fresh"]
        late = asked - since > BOUND_S
        assert not (yes and late), f"a fresh yes {asked - since:.3f} s after the commit"
        if late or answer["verdict"] not in ("valid", "unavailable"):
            return


def fresh(site: Installation, key: str = "stays") -> bool:
    return bool(site.cli.verify(key)[0]["fresh"])


def server_version(cluster: PrivateCluster) -> int:
    return int(cluster.sql("SHOW server_version_num")[0][0]) // 10000


@contextlib.contextmanager
def served(cluster: PrivateCluster, databases: Databases, case: Case) -> Iterator[Installation]:
    """The case's table, followed by a daemon; all three keys are valid."""
    if server_version(cluster) < case.server:
        pytest.skip(f"PostgreSQL {case.server} and later")
    with installed(cluster, databases, case.setup, **case.mapping) as site, site.serve():
        assert site.ask(*KEYS).names == ["valid"] * 3
        yield site


def assert_follows(site: Installation, case: Case) -> None:
    """The table has the case's verdicts, with fresh answers, and a revocation by the application takes effect."""
    assert site.ask("gone", "stays").names == [case.gone, case.stays]
    until(lambda: fresh(site), 10, "answers are fresh")
    assert site.cli.verify(["gone", "stays"]).names == [case.gone, case.stays]
    if case.revoke:
        site.sql(case.revoke.format("later"))
        assert site.verdict("later") == case.revoked


STATUS = {"status": "status", "status_active": ["good", "better"]}


def enum(kind: str, more: str = "", column: str = "status", value: str = "'{}'") -> str:
    """A table with a column of enum labels: "gone" has the label `good`, the others have `better`.
    """
    good, better = value.format("good"), value.format("better")
    return f"""CREATE TYPE mood AS ENUM ('good', 'better', 'blocked'); {more};
        CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, {column} {kind});
        INSERT INTO k VALUES (1, 'gone', {good}), (2, 'stays', {better}), (3, 'later', {better})"""


RENAME_LABEL = "ALTER TYPE mood RENAME VALUE 'good' TO 'bad'"
BLOCK = "UPDATE k SET status = 'blocked' WHERE key = '{}'"

COLUMNS = "(id int PRIMARY KEY, key text NOT NULL, revoked_at timestamptz)"
PARTITIONED = f"""CREATE TABLE k {COLUMNS} PARTITION BY LIST (id);
    CREATE TABLE p1 PARTITION OF k FOR VALUES IN (1);
    CREATE TABLE p23 PARTITION OF k FOR VALUES IN (2, 3); {ROWS}"""
NESTED = f"""CREATE TABLE k {COLUMNS} PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF k FOR VALUES FROM (0) TO (2) PARTITION BY LIST (id);
    CREATE TABLE p1 PARTITION OF low FOR VALUES IN (1);
    CREATE TABLE p23 PARTITION OF k FOR VALUES FROM (2) TO (9); {ROWS}"""
CHILDREN = f"""CREATE TABLE k {COLUMNS}; CREATE TABLE child (LIKE k INCLUDING ALL);
    ALTER TABLE child INHERIT k; INSERT INTO child VALUES (1, 'gone');
    INSERT INTO k VALUES (2, 'stays'), (3, 'later')"""


def waits(site: Installation, text: str) -> bool:
    """Whether a statement with this text waits for another transaction's lock."""
    return bool(
        site.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
            f"%{text}%",
        )
    )
