"""DDL under a running daemon: the meaning of a table changes, and no trigger reports it.

Each case has a table `k` with three keys. The case's DDL, or an ordinary statement after it, revokes "gone".
"stays" is never revoked. The application revokes "later" at the end, which shows that the feed still works.
The promise holds throughout: later than `bound`, no answer on "gone" is a fresh yes. Where the table can still
be read, `sync` succeeds, and its answers are right; where it cannot, `sync` fails, and no answer is fresh until
the table is mended.

Audits are off, so the heartbeat alone must detect the changes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Setting

BOUND_S = 0.6
QUICK: dict[str, Setting] = {"heartbeat": "100ms", "bound": "600ms", "audit": "0s"}
READER = "ddl_reader"  # a role that has no rights from other tests
KEYS = ("gone", "stays", "later")
REVOKE = "UPDATE k SET revoked_at = now() WHERE key = '{}'"
ROWS = "INSERT INTO k (id, key) VALUES (1, 'gone'), (2, 'stays'), (3, 'later')"
PLAIN = f"CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, revoked_at timestamptz); {ROWS}"
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
    site = Installation(cluster, databases.new(), user=READER)
    site.freshness |= QUICK
    try:
        site.sql(setup)
        site.source("k", **{"table": "public.k", "id": "id", "key": "key"} | mapping)
        yield site
    finally:
        site.close()
        databases.drop(site.dbname)


@pytest.fixture(autouse=True, scope="module")
def reader(cluster: PrivateCluster) -> None:
    cluster.sql(f"CREATE ROLE {READER} LOGIN")


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


# ---- tables that stay readable

GONE_NOW = "CASE WHEN key = 'gone' THEN now() END"
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


def label(kind: str, more: str = "") -> Case:
    """An accepted label becomes one that refuses."""
    return Case(RENAME_LABEL, enum(kind, more), STATUS, "disabled", revoke=BLOCK, revoked="disabled")


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
NUMBERED = f"CREATE TABLE k (id {{}} PRIMARY KEY, key text NOT NULL, revoked_at timestamptz); {ROWS}"
ANY_CASE = "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
FLAGGED = "CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, revoked_at {0}); " + ROWS
BY_FLAG = "UPDATE k SET revoked_at = true WHERE key = '{}'"

READABLE = {
    # The type of the id changes, then rows change.
    "id: integer to text": Case(
        f"ALTER TABLE k ALTER id TYPE text USING 'k' || id; {REVOKE.format('gone')}"
    ),
    "id: integer to text, apart": Case(
        ("ALTER TABLE k ALTER id TYPE text USING 'k' || id", REVOKE.format("gone"))
    ),
    "id: integer to text, row deleted": Case(
        ("ALTER TABLE k ALTER id TYPE text USING 'k' || id", "DELETE FROM k WHERE key = 'gone'"),
        gone="unknown",
    ),
    "id: integer to bigint": Case(
        ("ALTER TABLE k ALTER id TYPE bigint USING id + 10000000000", REVOKE.format("gone"))
    ),
    "id: bigint to smallint": Case(
        ("ALTER TABLE k ALTER id TYPE smallint", REVOKE.format("gone")), NUMBERED.format("bigint")
    ),
    "id: integer to uuid": Case(
        (
            "ALTER TABLE k ALTER id TYPE uuid USING lpad(to_hex(id), 32, '0')::uuid",
            REVOKE.format("gone"),
        )
    ),
    "id: text to integer": Case(
        ("ALTER TABLE k ALTER id TYPE int USING id::int", REVOKE.format("gone")),
        NUMBERED.format("text"),
    ),
    "id: char(4) to char(8)": Case(
        ("ALTER TABLE k ALTER id TYPE char(8)", REVOKE.format("gone")), NUMBERED.format("char(4)")
    ),
    "id: text to bytea": Case(
        ("ALTER TABLE k ALTER id TYPE bytea USING id::bytea", REVOKE.format("gone")),
        NUMBERED.format("text"),
    ),
    "id: integer to numeric": Case(
        ("ALTER TABLE k ALTER id TYPE numeric(10, 2)", REVOKE.format("gone"))
    ),
    "id: integer to a domain": Case(
        (
            "CREATE DOMAIN number AS int; ALTER TABLE k ALTER id TYPE number",
            REVOKE.format("gone"),
        )
    ),
    "id: other numbers for all rows": Case(
        ("ALTER TABLE k ALTER id TYPE int USING 4 - id", REVOKE.format("gone"))
    ),
    "id: an enum whose label is renamed": Case(
        (RENAME_LABEL, "DELETE FROM k WHERE id = 'bad'"),
        """CREATE TYPE mood AS ENUM ('good', 'better', 'best');
        CREATE TABLE k (id mood PRIMARY KEY, key text, revoked_at timestamptz);
        INSERT INTO k VALUES ('good', 'gone'), ('better', 'stays'), ('best', 'later')""",
        gone="unknown",
    ),
    # A rewrite changes a column that refuses keys.
    "revoked_at: rewritten": Case(
        f"ALTER TABLE k ALTER revoked_at TYPE timestamptz USING {GONE_NOW}"
    ),
    "revoked_at: rewritten for all": Case(
        "ALTER TABLE k ALTER revoked_at TYPE timestamptz USING now()", stays="revoked", revoke=""
    ),
    "revoked_at: time to flag": Case(
        "ALTER TABLE k ALTER revoked_at TYPE boolean USING key = 'gone'", revoke=BY_FLAG
    ),
    "revoked_at: flag to time": Case(
        f"""ALTER TABLE k ALTER revoked_at DROP DEFAULT;
        ALTER TABLE k ALTER revoked_at TYPE timestamptz USING {GONE_NOW}""",
        FLAGGED.format("boolean DEFAULT false"),
    ),
    "revoked_at: flag to domain over flag": Case(
        "CREATE DOMAIN flag AS boolean; ALTER TABLE k ALTER revoked_at TYPE flag USING key = 'gone'",
        FLAGGED.format("boolean DEFAULT false"),
        revoke=BY_FLAG,
    ),
    "expires_at: time to seconds": Case(
        (
            "ALTER TABLE k ALTER expires_at TYPE bigint USING extract(epoch FROM expires_at)",
            "UPDATE k SET expires_at = extract(epoch FROM now()) - 60 WHERE key = 'gone'",
        ),
        "CREATE TABLE k (id int PRIMARY KEY, key text, expires_at timestamptz DEFAULT '2100-01-01');"
        + ROWS
        + "; ALTER TABLE k ALTER expires_at DROP DEFAULT",
        {"expires_at": "expires_at"},
        gone="expired",
        revoke="UPDATE k SET expires_at = 1 WHERE key = '{}'",
        revoked="expired",
    ),
    "expires_at: seconds to time": Case(
        (
            "ALTER TABLE k ALTER expires_at TYPE timestamptz USING to_timestamp(expires_at)",
            "UPDATE k SET expires_at = now() - interval '1 minute' WHERE key = 'gone'",
        ),
        "CREATE TABLE k (id int PRIMARY KEY, key text, expires_at bigint DEFAULT 4102444800);"
        + ROWS
        + "; ALTER TABLE k ALTER expires_at DROP DEFAULT",
        {"expires_at": "expires_at"},
        gone="expired",
        revoke="UPDATE k SET expires_at = 'epoch' WHERE key = '{}'",
        revoked="expired",
    ),
    # Columns are added, dropped and reordered.
    "a mapped column dropped, and added with a default": Case(
        "ALTER TABLE k DROP revoked_at; ALTER TABLE k ADD revoked_at timestamptz DEFAULT now()",
        PLAIN + GRANTED,
        stays="revoked",
        revoke="",
    ),
    "a mapped column dropped, another renamed": Case(
        "ALTER TABLE k DROP revoked_at; ALTER TABLE k RENAME was TO revoked_at",
        "CREATE TABLE k (id int PRIMARY KEY, key text, was timestamptz, revoked_at timestamptz);"
        + ROWS
        + "; UPDATE k SET was = now() WHERE key = 'gone'"
        + GRANTED,
    ),
    "two columns renamed into each other": Case(
        """ALTER TABLE k RENAME revoked_at TO x; ALTER TABLE k RENAME was TO revoked_at;
        ALTER TABLE k RENAME x TO was""",
        "CREATE TABLE k (id int PRIMARY KEY, key text, was timestamptz, revoked_at timestamptz);"
        + ROWS
        + "; UPDATE k SET was = now() WHERE key = 'gone'"
        + GRANTED,
    ),
    "key and subject renamed into each other": Case(
        """ALTER TABLE k RENAME key TO x; ALTER TABLE k RENAME who TO key;
        ALTER TABLE k RENAME x TO who""",
        "CREATE TABLE k (id int PRIMARY KEY, key text, who text, revoked_at timestamptz);"
        + ROWS
        + "; UPDATE k SET who = CASE WHEN key = 'gone' THEN 'other' ELSE key END",
        {"revoked_at": "revoked_at", "subject": "who"},
        gone="unknown",
    ),
    "two columns renamed, and back": Case(
        (
            """BEGIN; ALTER TABLE k RENAME revoked_at TO x; ALTER TABLE k RENAME was TO revoked_at;
            ALTER TABLE k RENAME x TO was; UPDATE k SET was = now() WHERE key = 'gone';
            ALTER TABLE k RENAME revoked_at TO x; ALTER TABLE k RENAME was TO revoked_at;
            ALTER TABLE k RENAME x TO was; COMMIT""",
        ),
        "CREATE TABLE k (id int PRIMARY KEY, key text, was timestamptz, revoked_at timestamptz);"
        + ROWS
        + GRANTED,
    ),
    "a mapped column renamed, and back": Case(
        f"""ALTER TABLE k RENAME revoked_at TO x; UPDATE k SET x = now() WHERE key = 'gone';
        ALTER TABLE k RENAME x TO revoked_at"""
    ),
    # The meaning of a value changes, and no row does.
    "a label": label("mood"),
    "a label of a domain": label("feeling", "CREATE DOMAIN feeling AS mood"),
    "a label of a domain over a domain": label(
        "deep", "CREATE DOMAIN feeling AS mood; CREATE DOMAIN deep AS feeling"
    ),
    "two labels renamed into each other": Case(
        """ALTER TYPE mood RENAME VALUE 'good' TO 'x'; ALTER TYPE mood RENAME VALUE 'blocked' TO 'good';
        ALTER TYPE mood RENAME VALUE 'x' TO 'blocked'""",
        enum("mood"),
        STATUS,
        gone="disabled",
        revoke="UPDATE k SET status = 'blocked' WHERE key = '{}'",
        revoked="disabled",
    ),
    "a label, and then rows": Case(
        (
            "ALTER TYPE mood RENAME VALUE 'blocked' TO 'barred'",
            "UPDATE k SET status = 'barred' WHERE key = 'gone'",
        ),
        enum("mood"),
        STATUS,
        gone="disabled",
        revoke="UPDATE k SET status = 'barred' WHERE key = '{}'",
        revoked="disabled",
    ),
    "the type of a status: enum to text": Case(
        """ALTER TABLE k ALTER status TYPE text USING CASE WHEN key = 'gone' THEN 'blocked' ELSE status::text END""",
        enum("mood"),
        STATUS,
        gone="disabled",
        revoke=BLOCK,
        revoked="disabled",
    ),
    "the type of a status: another enum with the same labels": Case(
        """CREATE TYPE other AS ENUM ('blocked', 'better', 'good');
        ALTER TABLE k ALTER status TYPE other USING
            (CASE WHEN key = 'gone' THEN 'blocked' ELSE status::text END)::other""",
        enum("mood"),
        STATUS,
        gone="disabled",
        revoke=BLOCK,
        revoked="disabled",
    ),
    # Rows appear and disappear with the partitions that hold them.
    "a partition detached": Case(
        "ALTER TABLE k DETACH PARTITION p1", PARTITIONED, gone="unknown"
    ),
    "a partition detached concurrently": Case(
        "ALTER TABLE k DETACH PARTITION p1 CONCURRENTLY", PARTITIONED, gone="unknown", server=14
    ),
    "a partition detached, changed and attached": Case(
        """ALTER TABLE k DETACH PARTITION p1; UPDATE p1 SET revoked_at = now();
        ALTER TABLE k ATTACH PARTITION p1 FOR VALUES IN (1)""",
        PARTITIONED,
    ),
    "a partition detached, changed and attached, apart": Case(
        (
            "ALTER TABLE k DETACH PARTITION p1",
            "UPDATE p1 SET revoked_at = now()",
            "ALTER TABLE k ATTACH PARTITION p1 FOR VALUES IN (1)",
        ),
        PARTITIONED,
    ),
    "a partition dropped": Case("DROP TABLE p1", PARTITIONED, gone="unknown"),
    "a partition truncated": Case("TRUNCATE p1", PARTITIONED, gone="unknown"),
    "a partition replaced by another": Case(
        """CREATE TABLE p1_new (LIKE p1 INCLUDING ALL); INSERT INTO p1_new SELECT id, key, now() FROM p1;
        DROP TABLE p1; ALTER TABLE k ATTACH PARTITION p1_new FOR VALUES IN (1)""",
        PARTITIONED,
    ),
    "a partition of a partition detached": Case(
        "ALTER TABLE low DETACH PARTITION p1", NESTED, gone="unknown"
    ),
    "a partition of a partition truncated": Case("TRUNCATE p1", NESTED, gone="unknown"),
    "the partition above it detached": Case(
        "ALTER TABLE k DETACH PARTITION low", NESTED, gone="unknown"
    ),
    "the partition above it truncated": Case("TRUNCATE low", NESTED, gone="unknown"),
    "a partition of a partition detached, changed and attached": Case(
        """ALTER TABLE low DETACH PARTITION p1; UPDATE p1 SET revoked_at = now();
        ALTER TABLE low ATTACH PARTITION p1 FOR VALUES IN (1)""",
        NESTED,
    ),
    "a partition's column rewritten from the parent": Case(
        f"ALTER TABLE k ALTER revoked_at TYPE timestamptz USING {GONE_NOW}", PARTITIONED
    ),
    "a child disinherited": Case("ALTER TABLE child NO INHERIT k", CHILDREN, gone="unknown"),
    "a child disinherited, changed and back": Case(
        """ALTER TABLE child NO INHERIT k; UPDATE child SET revoked_at = now();
        ALTER TABLE child INHERIT k""",
        CHILDREN,
    ),
    "a child dropped": Case("DROP TABLE child", CHILDREN, gone="unknown"),
    "a child truncated": Case("TRUNCATE child", CHILDREN, gone="unknown"),
    "the parent alone truncated": Case(
        "TRUNCATE ONLY k",
        """CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, revoked_at timestamptz);
        CREATE TABLE child (LIKE k INCLUDING ALL); ALTER TABLE child INHERIT k;
        INSERT INTO k VALUES (1, 'gone'); INSERT INTO child VALUES (2, 'stays'), (3, 'later')""",
        gone="unknown",
    ),
    "the table gets a parent, which is changed": Case(
        f"""CREATE TABLE above (id int NOT NULL, key text NOT NULL, revoked_at timestamptz);
        ALTER TABLE k INHERIT above; {REVOKE.replace("UPDATE k", "UPDATE above").format("gone")}"""
    ),
    "the table gets a parent and loses it": Case(
        f"""CREATE TABLE above (id int NOT NULL, key text NOT NULL, revoked_at timestamptz);
        ALTER TABLE k INHERIT above; {REVOKE.replace("UPDATE k", "UPDATE above").format("gone")};
        ALTER TABLE k NO INHERIT above"""
    ),
    "the table becomes a partition, and none": Case(
        f"""CREATE TABLE above (LIKE k INCLUDING ALL) PARTITION BY RANGE (id);
        ALTER TABLE above ATTACH PARTITION k FOR VALUES FROM (0) TO (100);
        {REVOKE.replace("UPDATE k", "UPDATE above").format("gone")};
        ALTER TABLE above DETACH PARTITION k"""
    ),
    # Another table takes the name.
    "blue and green, and back": Case(
        """CREATE TABLE green (LIKE k INCLUDING ALL); INSERT INTO green SELECT * FROM k;
        ALTER TABLE k RENAME TO blue; ALTER TABLE green RENAME TO k;
        ALTER TABLE blue DISABLE TRIGGER USER; UPDATE blue SET revoked_at = now() WHERE key = 'gone';
        ALTER TABLE blue ENABLE ALWAYS TRIGGER latchkey_insert, ENABLE ALWAYS TRIGGER latchkey_update,
            ENABLE ALWAYS TRIGGER latchkey_delete, ENABLE ALWAYS TRIGGER latchkey_truncate;
        ALTER TABLE k RENAME TO green; ALTER TABLE blue RENAME TO k"""
    ),
    "blue and green, and back, apart": Case(
        (
            """CREATE TABLE green (LIKE k INCLUDING ALL); INSERT INTO green SELECT * FROM k;
            GRANT SELECT ON green TO public""",
            "ALTER TABLE k RENAME TO blue; ALTER TABLE green RENAME TO k",
            "UPDATE blue SET revoked_at = now() WHERE key = 'gone'",
            "ALTER TABLE k RENAME TO green; ALTER TABLE blue RENAME TO k",
        )
    ),
    # Generated and identity columns.
    "id becomes an identity": Case(
        f"ALTER TABLE k ALTER id ADD GENERATED ALWAYS AS IDENTITY; {REVOKE.format('gone')}"
    ),
    "a generated column becomes an ordinary one": Case(
        (
            "ALTER TABLE k ALTER off DROP EXPRESSION",
            "UPDATE k SET off = true WHERE key = 'gone'",
        ),
        """CREATE TABLE k (id int PRIMARY KEY, key text, status text DEFAULT 'good',
            off boolean GENERATED ALWAYS AS (status = 'blocked') STORED);"""
        + ROWS,
        {"revoked_at": "off"},
        revoke="UPDATE k SET off = true WHERE key = '{}'",
    ),
    "a generated column is changed by another": Case(
        BLOCK.format("gone"),
        """CREATE TABLE k (id int PRIMARY KEY, key text, status text DEFAULT 'good',
            off boolean GENERATED ALWAYS AS (status = 'blocked') STORED);"""
        + ROWS,
        {"revoked_at": "off"},
        revoke=BLOCK,
    ),
    "a generated column's expression": Case(
        "ALTER TABLE k ALTER off SET EXPRESSION AS (status = 'blocked' OR key = 'gone')",
        """CREATE TABLE k (id int PRIMARY KEY, key text, status text DEFAULT 'good',
            off boolean GENERATED ALWAYS AS (status = 'blocked') STORED);"""
        + ROWS,
        {"revoked_at": "off"},
        revoke=BLOCK,
        server=17,
    ),
    # Rules redirect statements.
    "a rule on another table": Case(
        (
            "CREATE TABLE other (key text); INSERT INTO other VALUES ('gone');"
            " CREATE RULE r AS ON DELETE TO other DO ALSO UPDATE k SET revoked_at = now() WHERE key = OLD.key",
            "DELETE FROM other",
        )
    ),
    "a rule on the table": Case(
        (
            "CREATE RULE r AS ON UPDATE TO k WHERE NEW.key = 'gone' DO INSTEAD DELETE FROM k WHERE id = OLD.id",
            REVOKE.format("gone"),
        ),
        gone="unknown",
    ),
    "a rule that turns one table's statements into another's": Case(
        (
            "CREATE TABLE hull (LIKE k); CREATE RULE r AS ON INSERT TO hull DO INSTEAD"
            " UPDATE k SET revoked_at = now() WHERE key = NEW.key",
            "INSERT INTO hull VALUES (7, 'gone')",
        )
    ),
    # These changes must not disturb the feed.
    "storage parameters": Case(
        f"ALTER TABLE k SET (fillfactor = 50, autovacuum_enabled = off); {REVOKE.format('gone')}"
    ),
    "a column's statistics and storage": Case(
        f"""ALTER TABLE k ALTER key SET STATISTICS 500; ALTER TABLE k ALTER key SET STORAGE EXTERNAL;
        {REVOKE.format('gone')}"""
    ),
    "an index, a column, a check": Case(
        f"""CREATE INDEX ON k (key); ALTER TABLE k ADD note text DEFAULT 'x'; ALTER TABLE k ADD CHECK (id > 0);
        {REVOKE.format('gone')}"""
    ),
    "rewritten by VACUUM FULL": Case(("VACUUM FULL k", REVOKE.format("gone"))),
    "rewritten by CLUSTER": Case(("CLUSTER k USING k_pkey", REVOKE.format("gone"))),
    "unlogged and logged": Case(
        ("ALTER TABLE k SET UNLOGGED", "ALTER TABLE k SET LOGGED", REVOKE.format("gone"))
    ),
    "replica identity": Case(f"ALTER TABLE k REPLICA IDENTITY FULL; {REVOKE.format('gone')}"),
    "another owner": Case(
        f"ALTER TABLE k OWNER TO {PASSWORD_ROLE}; {REVOKE.format('gone')}"
    ),
    "a collation": Case(
        (
            'ALTER TABLE k ALTER key TYPE text COLLATE "C", ALTER id TYPE text COLLATE "C"',
            REVOKE.format("gone"),
        ),
        NUMBERED.format("text"),
    ),
}


@pytest.mark.parametrize("case", READABLE.values(), ids=READABLE.keys())
def test_a_table_that_means_something_else_is_read_again(
    cluster: PrivateCluster, databases: Databases, case: Case
) -> None:
    with served(cluster, databases, case) as site:
        since = run(site, *case.transactions)
        assert_no_fresh_yes(site, since)
        assert_follows(site, case)


AT_ONCE = ("revoked_at: rewritten", "two columns renamed into each other", "a label", "a partition detached")


@pytest.mark.parametrize("name", AT_ONCE)
def test_a_sync_tells_of_what_no_trigger_did(
    cluster: PrivateCluster, databases: Databases, name: str
) -> None:
    """No heartbeat comes in between, so the sync's own barrier must detect the change."""
    case = READABLE[name]
    with installed(cluster, databases, case.setup, **case.mapping) as site:
        site.freshness |= {"heartbeat": "60s", "bound": "120s"}
        with site.serve():
            assert site.ask(*KEYS).names == ["valid"] * 3
            run(site, *case.transactions)
            assert site.ask("gone", "stays").names == [case.gone, case.stays]


# ---- scopes and claims


ADMIN = "INSERT INTO k VALUES (1, 'gone', {0}), (2, 'stays', {1}), (3, 'later', {1})"
LISTS = {
    "enum[]": "mood[]",
    "domain over enum[]": "moods",
    "array of domain over enum": "feeling[]",
    "domain over array of domain over enum": "feelings",
}


@pytest.mark.parametrize("kind", LISTS.values(), ids=LISTS.keys())
def test_a_scope_that_is_a_label_is_renamed(
    cluster: PrivateCluster, databases: Databases, kind: str
) -> None:
    setup = f"""CREATE TYPE mood AS ENUM ('good', 'better'); CREATE DOMAIN moods AS mood[];
        CREATE DOMAIN feeling AS mood; CREATE DOMAIN feelings AS feeling[];
        CREATE TABLE k (id int PRIMARY KEY, key text, scopes {kind});
        INSERT INTO k VALUES (1, 'gone', '{{good}}'), (2, 'stays', '{{better}}')"""
    with installed(cluster, databases, setup, scopes="scopes") as site, site.serve():
        assert site.verdict("gone", scopes=["good"]) == "valid"
        site.sql(RENAME_LABEL)
        assert site.verdict("gone", scopes=["good"]) == "insufficient_scope"
        assert site.verdict("gone", scopes=["bad"]) == "valid"
        assert site.verdict("stays", scopes=["better"]) == "valid"


WHO = {
    # type, value, new type, USING, the row's later value
    "integer to text": ("int", "7", "text", "'u' || who", "1234"),
    "integer to text of one byte": ("int", "7", "text", "'u' || who", "1"),
    "integer to bigint": ("int", "7", "bigint", "who", "12345678901"),
    "bigint to integer": ("bigint", "7", "int", "who", "1234"),
    "bigint to text": ("bigint", "7", "text", "'u' || who", "abcdefgh"),
    "smallint to text": ("smallint", "7", "text", "'u' || who", "ab"),
    "text to integer": ("text", "'7'", "int", "who::int", "825373492"),
    "integer to uuid": (
        "int", "7", "uuid", "lpad(who::text, 32, '0')::uuid", "31323334-3132-3334-3132-333431323334",
    ),
    "integer to bytea": ("int", "7", "bytea", "who::text::bytea", "\\x31323334"),
    "integer to date": ("int", "7", "date", "'epoch'::date + who", "2024-02-29"),
    "integer to float4": ("int", "7", "float4", "who", "1.5"),
    "text to jsonb": ("text", "'7'", "jsonb", "to_jsonb(who)", '{"a": 1}'),
    "jsonb to text": ("jsonb", "'7'", "text", "who::text", "x1234"),
}  # fmt: skip


@pytest.mark.parametrize("role", ["subject", "tenant"])
@pytest.mark.parametrize(("before", "value", "after", "how", "said"), WHO.values(), ids=WHO.keys())
def test_nobody_becomes_somebody_else(
    cluster: PrivateCluster, databases: Databases, role: str, before: str, value: str, after: str, how: str, said: str
) -> None:
    """The key's row names another person: the bytes of a value must not be read as another type."""
    setup = f"""CREATE TABLE k (id int PRIMARY KEY, key text, who {before});
        INSERT INTO k VALUES (1, 'gone', {value})"""
    name = {"subject": "sub", "tenant": "tenant"}[role]
    with installed(cluster, databases, setup, **{role: "who"}) as site, site.serve():
        was = site.claims("gone")[name]
        site.sql(f"ALTER TABLE k ALTER who TYPE {after} USING {how}")
        between = site.value("SELECT who::text FROM k")
        site.sql("UPDATE k SET who = %s", said)
        since = time.monotonic()
        seen: set[Any] = set()
        while time.monotonic() < since + 2 * BOUND_S:
            seen.add(site.cli.verify("gone")[0].get(name))
        assert seen <= {was, between, said, None}
        assert site.claims("gone")[name] == said


# ---- changes without effect


def test_indexes_that_are_made_anew_cost_no_load(cluster: PrivateCluster, databases: Databases) -> None:
    with served(cluster, databases, Case("")) as site:
        for statement in (
            "REINDEX INDEX CONCURRENTLY k_pkey",
            "CREATE UNIQUE INDEX CONCURRENTLY more ON k (id)",
            "DROP INDEX more",
        ):
            site.sql(statement)
            site.cli.sync("10s")
        assert site.source_status("k")["loads"] == 1


# ---- tables that become unreadable

GROUP = "ddl_group"
SUSPENDED = {
    "the table is dropped": Case(
        "DROP TABLE k", mend=PLAIN + f"; {REVOKE.format('gone')}", told="there is no table"
    ),
    "the table is renamed": Case(
        f"{REVOKE.format('gone')}; ALTER TABLE k RENAME TO other",
        mend="ALTER TABLE other RENAME TO k",
        told="there is no table",
    ),
    "the table goes to another schema": Case(
        f"CREATE SCHEMA other; ALTER TABLE k SET SCHEMA other; {REVOKE.format('gone').replace(' k ', ' other.k ')}",
        mend="ALTER TABLE other.k SET SCHEMA public",
        told="there is no table",
    ),
    "its schema is renamed": Case(
        f"{REVOKE.format('gone')}; ALTER SCHEMA public RENAME TO other",
        mend="ALTER SCHEMA other RENAME TO public",
        told="there is no table",
    ),
    "its schema may not be used": Case(
        f"REVOKE USAGE ON SCHEMA public FROM public, {READER}; {REVOKE.format('gone')}",
        mend="GRANT USAGE ON SCHEMA public TO public",
        told="may not use schema",
    ),
    "a column may not be read": Case(
        f"REVOKE SELECT (revoked_at) ON k FROM {READER}; {REVOKE.format('gone')}",
        mend="install",
        told="may not read column",
    ),
    "a mapped column is dropped": Case(
        "ALTER TABLE k DROP revoked_at",
        mend=f"ALTER TABLE k ADD revoked_at timestamptz; {REVOKE.format('gone')}; GRANT SELECT ON k TO {READER}",
        told='has no column "revoked_at"',
    ),
    "a mapped column is renamed": Case(
        f"{REVOKE.format('gone')}; ALTER TABLE k RENAME revoked_at TO other",
        mend="ALTER TABLE k RENAME other TO revoked_at",
        told='has no column "revoked_at"',
    ),
    "a mapped column is renamed, and then changed": Case(
        (
            "ALTER TABLE k RENAME revoked_at TO other",
            "UPDATE k SET other = now() WHERE key = 'gone'",
        ),
        mend="ALTER TABLE k RENAME other TO revoked_at",
        told='has no column "revoked_at"',
    ),
    "the id's column is renamed, and then a row is deleted": Case(
        ("ALTER TABLE k RENAME id TO other", "DELETE FROM k WHERE key = 'gone'"),
        gone="unknown",
        mend="ALTER TABLE k RENAME other TO id",
        told='has no column "id"',
    ),
    "a mapped column becomes composite": Case(
        f"""CREATE TYPE pair AS (a text, b text); ALTER TABLE k ALTER revoked_at TYPE pair
            USING CASE WHEN key = 'gone' THEN ROW('x', 'y')::pair END""",
        mend="ALTER TABLE k ALTER revoked_at TYPE timestamptz USING CASE WHEN revoked_at IS NOT NULL THEN now() END",
        told="neither PostgreSQL's own",
    ),
    "keys become bytes": Case(
        f"{REVOKE.format('gone')}; ALTER TABLE k ALTER key TYPE bytea USING key::bytea",
        mend="ALTER TABLE k ALTER key TYPE text USING convert_from(key, 'UTF8')",
        told="of type bytea",
    ),
    "row level security hides rows": Case(
        f"ALTER TABLE k ENABLE ROW LEVEL SECURITY; {REVOKE.format('gone')}",
        mend="ALTER TABLE k DISABLE ROW LEVEL SECURITY",
        told="row level security hides rows",
    ),
    "a restrictive policy comes": Case(
        "CREATE POLICY hidden ON k AS RESTRICTIVE USING (key <> 'gone')",
        PLAIN + "; ALTER TABLE k ENABLE ROW LEVEL SECURITY",
        mend=f"DROP POLICY hidden ON k; {REVOKE.format('gone')}",
        told="row level security hides rows",
    ),
    "a restrictive policy's group gets a member": Case(
        f"GRANT {GROUP} TO {READER}",
        PLAIN
        + f"""; ALTER TABLE k ENABLE ROW LEVEL SECURITY;
        CREATE POLICY hidden ON k AS RESTRICTIVE TO {GROUP} USING (key <> 'gone')""",
        mend=f"REVOKE {GROUP} FROM {READER}; {REVOKE.format('gone')}",
        told="row level security hides rows",
    ),
    "it becomes a view": Case(
        f"""{REVOKE.format('gone')}; ALTER TABLE k RENAME TO other; CREATE VIEW k AS TABLE other;
        GRANT SELECT ON k TO {READER}""",
        mend="DROP VIEW k; ALTER TABLE other RENAME TO k",
        told="is not a table",
    ),
    "another table without triggers takes its name": Case(
        f"""CREATE TABLE green (LIKE k INCLUDING ALL); INSERT INTO green SELECT * FROM k;
        ALTER TABLE k RENAME TO blue; ALTER TABLE green RENAME TO k; GRANT SELECT ON k TO {READER};
        {REVOKE.format('gone')}""",
        mend="install",
        told="latchkey_update",
    ),
    "a mapped column becomes virtual": Case(
        f"ALTER TABLE k DROP off; ALTER TABLE k ADD off boolean GENERATED ALWAYS AS (key = 'gone') VIRTUAL{GRANTED}",
        "CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, off boolean DEFAULT false);" + ROWS,
        {"revoked_at": "off"},
        revoke="UPDATE k SET off = true WHERE key = '{}'",
        mend="ALTER TABLE k DROP off; ALTER TABLE k ADD off boolean DEFAULT false;"
        f" UPDATE k SET off = true WHERE key = 'gone'{GRANTED}",
        told="VIRTUAL",
        server=18,
    ),
    "a mapped column is shown by a name": Case(
        "ALTER TABLE k ALTER revoked_at TYPE regtype USING CASE WHEN key = 'gone' THEN 'int'::regtype END",
        mend="ALTER TABLE k ALTER revoked_at TYPE timestamptz USING CASE WHEN revoked_at IS NOT NULL THEN now() END",
        told="the name of what has that number",
    ),
    "an id is no longer of one row": Case(
        f"ALTER TABLE k DROP CONSTRAINT k_pkey; {REVOKE.format('gone')}; INSERT INTO k VALUES (1, 'more')",
        mend="DELETE FROM k WHERE key = 'more'; ALTER TABLE k ADD PRIMARY KEY (id)",
        told="unique index",
    ),
    "its triggers are dropped": Case(
        f"DROP TRIGGER latchkey_update ON k; {REVOKE.format('gone')}",
        mend="install",
        told="latchkey_update",
    ),
}


@pytest.fixture
def group(cluster: PrivateCluster) -> Iterator[None]:
    cluster.sql(f"CREATE ROLE {GROUP} NOLOGIN")
    yield
    cluster.sql(f"DROP ROLE {GROUP}")


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("case", SUSPENDED.values(), ids=SUSPENDED.keys())
def test_a_table_that_cannot_be_followed_ages_until_it_can(
    cluster: PrivateCluster, databases: Databases, case: Case
) -> None:
    with served(cluster, databases, case) as site:
        since = run(site, *case.transactions)
        assert_no_fresh_yes(site, since)
        site.cli.sync("300ms", expect=3)
        until(
            lambda: any(case.told in line for line in site.source_status("k").get("problems", [])),
            10,
            f"status says {case.told}",
        )
        until(lambda: not fresh(site, "stays"), 5, "answers are not fresh")
        if case.mend == "install":
            site.install()
        else:
            site.sql(case.mend)
            if not site.value("SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'latchkey_update')"):
                site.install()
        assert_follows(site, case)


# ---- races with DDL


def waits(site: Installation, text: str) -> bool:
    """Whether a statement with this text waits for another transaction's lock."""
    return bool(
        site.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
            f"%{text}%",
        )
    )


def test_a_partition_on_its_way_out_is_gone_for_all_who_come_later(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """DETACH CONCURRENTLY waits for old transactions. New transactions no longer see the partition's rows."""
    case = Case("ALTER TABLE k DETACH PARTITION p1 CONCURRENTLY", PARTITIONED, gone="unknown", server=14)
    with (
        served(cluster, databases, case) as site,
        contextlib.closing(cluster.connect(site.dbname, autocommit=False)) as old,
        contextlib.closing(cluster.connect(site.dbname)) as detaching,
    ):
        old.cursor().execute("SELECT FROM k")
        thread = threading.Thread(target=detaching.cursor().execute, args=case.transactions)
        thread.start()
        try:
            until(lambda: waits(site, "CONCURRENTLY"), 10, "the partition is being detached")
            assert site.value("SELECT count(*) FROM k WHERE key = 'gone'") == 0
            assert_no_fresh_yes(site, time.monotonic())
            assert_follows(site, case)
        finally:
            old.rollback()
            thread.join()
        assert_follows(site, case)


def test_a_row_is_never_read_as_the_table_was(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """A time becomes a flag, and a row changes before the next heartbeat. A NULL flag refuses, a NULL time does
    not: a re-read with the old query would admit a revoked key."""
    setup = f"{PLAIN.replace('revoked_at timestamptz', 'revoked_at timestamptz, who text')}; {REVOKE.format('gone')}"
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="who") as site:
        site.freshness |= {"heartbeat": "60s", "bound": "120s"}
        with site.serve():
            assert site.ask("gone", "stays").names == ["revoked", "valid"]

            def readings() -> int:
                status = site.source_status("k")
                return int(status["rereads"] + status["loads"])

            before = readings()
            site.sql("ALTER TABLE k ALTER revoked_at TYPE boolean USING CASE WHEN revoked_at IS NULL THEN false END")
            site.sql("UPDATE k SET who = 'somebody'")
            until(lambda: readings() > before, 10, "the rows are read")
            assert site.cli.verify("gone").names == ["revoked"]
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


# PostgreSQL manual, "Caveats" of concurrency control: to a snapshot taken before a TRUNCATE or a rewrite has
# committed, the table is empty afterwards. A COPY that waits for the table's lock has such a snapshot.
EMPTIED = {
    "rewritten": "ALTER TABLE k ALTER revoked_at TYPE timestamptz USING revoked_at + interval '0'",
    "filled anew": "CREATE TEMP TABLE was AS TABLE k; TRUNCATE k; INSERT INTO p1 SELECT * FROM was WHERE id = '1';"
    " INSERT INTO k SELECT * FROM was WHERE id <> '1'",
    "a part filled anew": "CREATE TEMP TABLE was AS TABLE p1; TRUNCATE p1; INSERT INTO p1 SELECT * FROM was",
}
TWO_ROWS = """CREATE TABLE k (id text PRIMARY KEY, key text NOT NULL, revoked_at timestamptz);
    CREATE TABLE p1 (LIKE k INCLUDING ALL); ALTER TABLE p1 INHERIT k; INSERT INTO p1 VALUES ('1', 'gone', now());
    INSERT INTO k VALUES ('2', 'gone', NULL), ('3', 'stays', NULL)"""


@pytest.mark.parametrize("statements", EMPTIED.values(), ids=EMPTIED.keys())
def test_a_load_that_waited_for_a_rewrite_sees_what_was_written(
    cluster: PrivateCluster, databases: Databases, statements: str
) -> None:
    """Two rows hold the key "gone", and the revoked one refuses it: if a load missed that row, the other would
    admit.
    """
    with (
        installed(cluster, databases, TWO_ROWS, revoked_at="revoked_at") as site,
        contextlib.closing(cluster.connect(site.dbname, autocommit=False)) as rewriting,
    ):
        site.freshness |= {"heartbeat": "1s", "bound": "10s"}
        with site.serve():
            assert site.ask("gone", "stays").names == ["revoked", "valid"]
            loads = site.source_status("k")["loads"]
            rewriting.cursor().execute(statements)
            for ask in ("all", "reload"):  # one of them starts a reload of the table
                site.sql("SELECT pg_notify('latchkey', %s)", f'{{"t": "public.k", "{ask}": true}}')
            until(lambda: waits(site, "COPY"), 10, "a load waits for the lock")
            rewriting.commit()
            seen = set()
            while site.source_status("k")["loads"] == loads:
                pass
            for _ in range(10):
                seen.add(tuple(site.cli.verify(["gone", "stays"]).names))
            assert seen == {("revoked", "valid")}
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


def test_a_row_read_from_another_table_of_that_name_does_not_stay(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Two schemas swap names and swap back between two heartbeats; meanwhile the loader reads a changed row."""
    setup = """CREATE SCHEMA app; CREATE TABLE app.k (id int PRIMARY KEY, key text, revoked_at timestamptz);
        INSERT INTO app.k VALUES (1, 'gone'), (2, 'stays'), (3, 'later'); CREATE SCHEMA green;
        CREATE TABLE green.k (LIKE app.k INCLUDING ALL); INSERT INTO green.k SELECT * FROM app.k;
        GRANT USAGE ON SCHEMA green TO public; GRANT SELECT ON green.k TO public"""
    with installed(cluster, databases, setup, table="app.k", revoked_at="revoked_at") as site:
        site.freshness |= {"heartbeat": "60s", "bound": "120s"}
        with site.serve():
            assert site.ask(*KEYS).names == ["valid"] * 3
            before = site.source_status("k")["rereads"]
            site.sql("ALTER SCHEMA app RENAME TO blue; ALTER SCHEMA green RENAME TO app")
            site.sql("UPDATE blue.k SET revoked_at = now() WHERE key = 'gone'")
            until(lambda: site.source_status("k")["rereads"] > before, 10, "the row is read")
            site.sql("ALTER SCHEMA app RENAME TO green; ALTER SCHEMA blue RENAME TO app")
            assert site.ask("gone", "stays").names == ["revoked", "valid"]


HARM = {
    "renamed": "ALTER TABLE k RENAME revoked_at TO other",
    "dropped": "ALTER TABLE k DROP revoked_at",
    "id renamed": "ALTER TABLE k RENAME id TO other",
    "id dropped": "ALTER TABLE k DROP id",
    "of a type without equality": "ALTER TABLE k ALTER subject TYPE json USING to_json(subject)",
    "of a type that no text is made of": "ALTER TABLE k ALTER subject TYPE xid USING '7'::xid",
    "schema renamed": "ALTER SCHEMA latchkey RENAME TO other",
    "reading revoked": "REVOKE ALL ON k FROM application; GRANT UPDATE, DELETE, TRUNCATE ON k TO application",
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM.keys())
def test_the_triggers_fail_no_statement_of_the_applications(
    cluster: PrivateCluster, databases: Databases, harm: str
) -> None:
    """If the triggers cannot compare rows, they report a change of the whole table."""
    setup = """CREATE TABLE k (id int PRIMARY KEY, key text NOT NULL, subject text, note text, revoked_at timestamptz);
        INSERT INTO k VALUES (1, 'gone', 'x'), (2, 'stays', 'y'), (3, 'later', 'z');
        DO $$ BEGIN CREATE ROLE application LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT ALL ON k TO application"""
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="subject") as site, site.serve():
        assert site.ask(*KEYS).names == ["valid"] * 3
        site.sql(harm)
        with contextlib.closing(cluster.connect(site.dbname, "application")) as conn, conn.cursor() as cursor:
            cursor.execute("UPDATE k SET note = 'changed'")
            cursor.execute("DELETE FROM k")
            cursor.execute("TRUNCATE k")
        since = time.monotonic()
        assert_no_fresh_yes(site, since)


# ---- text of ids in the writer's session

SPELLED = {
    # type, ids, settings of the writing session
    "bytea, escape": ("bytea", ["\\x00ff", "\\x5c41"], "bytea_output = escape"),
    "date, German": ("date", ["2024-02-29", "infinity"], "DateStyle = German"),
    "date, SQL": ("date", ["2024-02-03", "0044-03-15 BC"], "DateStyle = 'SQL, DMY'"),
    "date[], Postgres": ("date[]", ["{2024-02-03}", "{2024-02-29,infinity}"], "DateStyle = 'Postgres, MDY'"),
    "timestamp, Postgres": ("timestamp", ["2024-02-03 01:02:03.5", "-infinity"], "DateStyle = 'Postgres, DMY'"),
    "timestamptz, TimeZone": ("timestamptz", ["2024-02-03 01:02:03+00", "2024-07-03"], "TimeZone = 'Asia/Kathmandu'"),
    "timestamptz, both": (
        "timestamptz", ["2024-02-03 01:02:03+00", "1890-01-01"], "TimeZone = 'America/New_York'; SET DateStyle = SQL",
    ),
    "timetz": ("timetz", ["01:02:03+05:30", "23:00-08"], "TimeZone = 'Europe/Oslo'"),
    "tstzrange": ("tstzrange", ["[2024-01-01,2024-02-01)", "empty"], "TimeZone = 'Pacific/Kiritimati'"),
    "interval, sql_standard": ("interval", ["1 day 02:03:04", "-1 mon"], "IntervalStyle = sql_standard"),
    "interval, iso_8601": ("interval", ["1 day 02:03:04", "-00:00:01.5"], "IntervalStyle = iso_8601"),
    "interval, verbose": ("interval", ["1 day", "3 years"], "IntervalStyle = postgres_verbose"),
    "float4, fewer digits": ("float4", ["0.1", "16777217"], "extra_float_digits = -6"),
    "float8, fewer digits": ("float8", ["0.1", "123456789.123456789"], "extra_float_digits = -15"),
    "float8, more digits": ("float8", ["0.1", "-0.3"], "extra_float_digits = 3"),
    "float8[]": ("float8[]", ["{0.1}", "{NaN,1e300}"], "extra_float_digits = -15"),
    "numeric": ("numeric", ["1.50", "12345678901234567890.1"], "extra_float_digits = -15"),
    "char(n)": ("char(8)", ["short", "exactly8"], "DateStyle = German"),
    "money": ("money", ["1.50", "-2000"], "lc_monetary = 'C'"),
    "text, encoding": ("text", ["\u00e9t\u00e9", "plain"], "client_encoding = LATIN1"),
    "text, backslashes": ("text", ["a\\b", "c"], "standard_conforming_strings = off"),
    "xid8": ("xid8", ["7", "9"], "DateStyle = German"),
    "inet": ("inet", ["10.0.0.1", "::1"], "bytea_output = escape"),
    "in replication": ("bytea", ["\\x00ff", "\\x41"], "bytea_output = escape; SET session_replication_role = replica"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "ids", "settings"), SPELLED.values(), ids=SPELLED.keys())
def test_no_setting_of_a_writer_changes_which_row_is_meant(
    cluster: PrivateCluster, databases: Databases, kind: str, ids: list[str], settings: str
) -> None:
    if kind == "xid8" and server_version(cluster) < 13:
        pytest.skip("there is no such type")
    setup = f"CREATE TABLE k (id {kind} PRIMARY KEY, key text, revoked_at timestamptz)"
    with installed(cluster, databases, setup, revoked_at="revoked_at") as site:
        write = f"SET {settings}; {{}}; RESET ALL"
        for number, row in enumerate(ids):
            site.sql(f"INSERT INTO k VALUES (%s::{kind}, 'loaded {number}')", row)
        with site.serve():
            assert site.ask("loaded 0", "loaded 1").names == ["valid", "valid"]
            site.sql(write.format("UPDATE public.k SET revoked_at = now() WHERE key = 'loaded 0'"))
            site.sql(write.format("DELETE FROM public.k WHERE key = 'loaded 1'"))
            assert site.ask("loaded 0", "loaded 1").names == ["revoked", "unknown"]
            site.sql(write.format("UPDATE public.k SET key = 'changed', revoked_at = NULL"))
            assert site.ask("loaded 0", "changed").names == ["unknown", "valid"]
            site.sql(write.format("DELETE FROM public.k"))
            assert site.verdict("changed") == "unknown"
            site.sql(f"SET {settings}; INSERT INTO public.k VALUES ($${ids[0]}$$::{kind}, 'told'); RESET ALL")
            assert site.verdict("told") == "valid"
            site.sql("DELETE FROM k")
            assert site.verdict("told") == "unknown"
            assert site.source_status("k")["loads"] == 1, "told of row by row"


@pytest.mark.parametrize(
    "settings",
    ["bytea_output = escape", "DateStyle = German", "TimeZone = 'Asia/Tokyo'", "extra_float_digits = -15",
     "IntervalStyle = iso_8601", "quote_all_identifiers = on", "search_path = other"],
)  # fmt: skip
def test_no_setting_of_our_own_role_changes_how_a_row_is_told(
    cluster: PrivateCluster, databases: Databases, settings: str
) -> None:
    """ALTER ROLE and ALTER DATABASE set only the initial settings of the daemon's sessions."""
    setup = r"""CREATE TABLE k (id bytea PRIMARY KEY, key text, b bytea, t timestamptz, revoked_at timestamptz);
        INSERT INTO k VALUES ('\x00ff', 'one', '\x5c', '2024-02-03 01:02:03+00')"""
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="t", tenant="b") as site:
        with site.serve():
            usual = site.claims("one")
        name, _, value = settings.partition(" = ")
        site.sql(f"ALTER DATABASE {site.dbname} SET {name} = {value}")
        with site.serve():
            assert site.claims("one") == usual
            site.sql("DELETE FROM k")
            assert site.verdict("one") == "unknown"


# ---- values that a type or a collation treats as equal


@pytest.fixture(scope="module")
def icu(cluster: PrivateCluster) -> None:
    if not cluster.sql("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1"):
        pytest.skip("this server was built without ICU")


ALIKE = {
    # type, value, another value equal to it
    "any case": ("text COLLATE any_case", "sk_aé", "SK_AÉ"),
    "any case, varchar": ("varchar(20) COLLATE any_case", "sk_a", "SK_A"),
    "any case, char(n)": ("char(8) COLLATE any_case", "sk_a", "SK_A"),
    "any case, a domain": ("any_text", "sk_a", "SK_A"),
    "numeric": ("numeric", "1.0", "1.00"),
    "interval": ("interval", "24:00:00", "1 day"),
    "float8": ("float8", "0", "-0"),
    "timetz": ("timetz", "01:00:00+00", "01:00:00+00"),
    "citext": ("citext", "sk_a", "SK_A"),
    "numeric[]": ("numeric[]", "{1.0}", "{1.00}"),
    "jsonb": ("jsonb", '{"a": 1.0}', '{"a": 1.00}'),
    "numrange": ("numrange", "[1.0,2)", "[1.00,2)"),
}


def create_alike(site: Installation, kind: str) -> None:
    if kind == "citext":
        if not site.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
            pytest.skip("this server has no citext")
        site.sql("CREATE EXTENSION citext")
    site.sql("CREATE DOMAIN any_text AS text COLLATE any_case")


# A column of another type cannot hold keys (L107).
KEYS_ALIKE = {
    name: alike for name, alike in ALIKE.items() if alike[0].startswith(("text", "varchar", "char", "citext", "any_"))
}


@pytest.mark.usefixtures("icu")
@pytest.mark.parametrize(("kind", "one", "other"), KEYS_ALIKE.values(), ids=KEYS_ALIKE.keys())
def test_a_key_that_changes_into_its_equal_is_another_key(
    cluster: PrivateCluster, databases: Databases, kind: str, one: str, other: str
) -> None:
    with installed(cluster, databases, ANY_CASE) as site:
        create_alike(site, kind)
        site.sql(f"CREATE TABLE k (id int PRIMARY KEY, key {kind})")
        site.sql("INSERT INTO k VALUES (1, %s)", one)
        spelling = f"SELECT rtrim(concat(%s::{kind.partition(' COLLATE')[0]}))"
        spelled = {text: site.value(spelling, text) for text in (one, other)}
        if spelled[one] == spelled[other]:
            pytest.skip("both are spelled alike")
        with site.serve():
            assert site.verdict(spelled[one]) == "valid"
            site.sql("UPDATE k SET key = %s", other)
            assert site.ask(spelled[one], spelled[other]).names == ["unknown", "valid"]


@pytest.mark.usefixtures("icu")
@pytest.mark.parametrize(("kind", "one", "other"), ALIKE.values(), ids=ALIKE.keys())
def test_an_id_that_changes_into_its_equal_is_another_id(
    cluster: PrivateCluster, databases: Databases, kind: str, one: str, other: str
) -> None:
    with installed(cluster, databases, ANY_CASE) as site:
        create_alike(site, kind)
        site.sql(f"CREATE TABLE k (id {kind} PRIMARY KEY, key text)")
        site.sql("INSERT INTO k VALUES (%s, 'first')", one)
        with site.serve():
            assert site.verdict("first") == "valid"
            site.sql("UPDATE k SET id = %s", other)
            assert site.claims("first")["key_id"] == site.value("SELECT rtrim(concat(id)) FROM k")
            site.sql("UPDATE k SET key = 'second'")
            assert site.ask("first", "second").names == ["unknown", "valid"]
            site.sql("DELETE FROM k")
            assert site.ask("first", "second").names == ["unknown", "unknown"]


@pytest.mark.usefixtures("icu")
def test_a_word_that_changes_into_its_equal_is_another_word(
    cluster: PrivateCluster, databases: Databases
) -> None:
    setup = f"""{ANY_CASE}; CREATE TABLE k (id int PRIMARY KEY, key text, status text COLLATE any_case,
            scopes text COLLATE any_case, who text COLLATE any_case);
        INSERT INTO k VALUES (1, 'gone', 'active', 'read', 'ann')"""
    with installed(cluster, databases, setup, status="status", scopes="scopes", subject="who") as site:
        with site.serve():
            assert site.verdict("gone", scopes=["read"]) == "valid"
            site.sql("UPDATE k SET who = 'ANN'")
            assert site.claims("gone")["sub"] == "ANN"
            site.sql("UPDATE k SET scopes = 'READ'")
            assert site.verdict("gone", scopes=["read"]) == "insufficient_scope"
            site.sql("UPDATE k SET status = 'ACTIVE'")
            assert site.verdict("gone") == "disabled"


@pytest.mark.usefixtures("icu")
def test_ids_that_a_collation_takes_for_one_are_two(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """The unique index compares bytes, the column does not."""
    setup = f"""{ANY_CASE}; CREATE TABLE k (id text COLLATE any_case NOT NULL, key text);
        CREATE UNIQUE INDEX ON k (id COLLATE "C"); INSERT INTO k VALUES ('ab', 'small'), ('AB', 'large')"""
    with installed(cluster, databases, setup) as site, site.serve():
        assert site.ask("small", "large").names == ["valid", "valid"]
        site.sql("""DELETE FROM k WHERE id = 'ab' COLLATE "C" """)
        assert site.ask("small", "large").names == ["unknown", "valid"]
        site.sql("INSERT INTO k VALUES ('aB', 'mixed')")
        site.sql("""UPDATE k SET id = 'Ab' WHERE key = 'large'; DELETE FROM k WHERE key = 'mixed'""")
        assert site.ask("small", "large", "mixed").names == ["unknown", "valid", "unknown"]
