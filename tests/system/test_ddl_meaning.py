"""DDL under a running daemon: the meaning of a table changes, and no trigger reports it.

The case's DDL, or an ordinary statement after it, revokes "gone" (see `followed_table`). Later than `bound`, no
answer on "gone" is a fresh yes. `sync` succeeds, and its answers are right.
"""

from __future__ import annotations

import pytest
from followed_table import (
    BLOCK,
    CHILDREN,
    GRANTED,
    KEYS,
    NESTED,
    PARTITIONED,
    PLAIN,
    RENAME_LABEL,
    REVOKE,
    STATUS,
    Case,
    assert_follows,
    assert_no_fresh_yes,
    enum,
    installed,
    run,
    served,
    table,
)
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from installation import Databases

# ---- tables that stay readable

GONE_NOW = "CASE WHEN key = 'gone' THEN now() END"


def label(kind: str, more: str = "") -> Case:
    """An accepted label becomes one that refuses."""
    return Case(RENAME_LABEL, enum(kind, more), STATUS, "disabled", revoke=BLOCK, revoked="disabled")


FLAGGED = table("revoked_at boolean DEFAULT false")
WAS = table("was timestamptz", "revoked_at timestamptz")
GENERATED = table(
    "status text DEFAULT 'good'", "off boolean GENERATED ALWAYS AS (status = 'blocked') STORED"
)
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
        ("ALTER TABLE k ALTER id TYPE smallint", REVOKE.format("gone")), table("revoked_at timestamptz", ids="bigint")
    ),
    "id: integer to uuid": Case(
        (
            "ALTER TABLE k ALTER id TYPE uuid USING lpad(to_hex(id), 32, '0')::uuid",
            REVOKE.format("gone"),
        )
    ),
    "id: text to integer": Case(
        ("ALTER TABLE k ALTER id TYPE int USING id::int", REVOKE.format("gone")),
        table("revoked_at timestamptz", ids="text"),
    ),
    "id: char(4) to char(8)": Case(
        ("ALTER TABLE k ALTER id TYPE char(8)", REVOKE.format("gone")), table("revoked_at timestamptz", ids="char(4)")
    ),
    "id: text to bytea": Case(
        ("ALTER TABLE k ALTER id TYPE bytea USING id::bytea", REVOKE.format("gone")),
        table("revoked_at timestamptz", ids="text"),
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
        FLAGGED,
    ),
    "revoked_at: flag to domain over flag": Case(
        "CREATE DOMAIN flag AS boolean; ALTER TABLE k ALTER revoked_at TYPE flag USING key = 'gone'",
        FLAGGED,
        revoke=BY_FLAG,
    ),
    "expires_at: time to seconds": Case(
        (
            "ALTER TABLE k ALTER expires_at TYPE bigint USING extract(epoch FROM expires_at)",
            "UPDATE k SET expires_at = extract(epoch FROM now()) - 60 WHERE key = 'gone'",
        ),
        table("expires_at timestamptz DEFAULT '2100-01-01'")
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
        table("expires_at bigint DEFAULT 4102444800")
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
        WAS
        + "; UPDATE k SET was = now() WHERE key = 'gone'"
        + GRANTED,
    ),
    "two columns renamed into each other": Case(
        """ALTER TABLE k RENAME revoked_at TO x; ALTER TABLE k RENAME was TO revoked_at;
        ALTER TABLE k RENAME x TO was""",
        WAS
        + "; UPDATE k SET was = now() WHERE key = 'gone'"
        + GRANTED,
    ),
    "key and subject renamed into each other": Case(
        """ALTER TABLE k RENAME key TO x; ALTER TABLE k RENAME who TO key;
        ALTER TABLE k RENAME x TO who""",
        table("who text", "revoked_at timestamptz")
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
        WAS
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
        GENERATED,
        {"revoked_at": "off"},
        revoke="UPDATE k SET off = true WHERE key = '{}'",
    ),
    "a generated column is changed by another": Case(
        BLOCK.format("gone"),
        GENERATED,
        {"revoked_at": "off"},
        revoke=BLOCK,
    ),
    "a generated column's expression": Case(
        "ALTER TABLE k ALTER off SET EXPRESSION AS (status = 'blocked' OR key = 'gone')",
        GENERATED,
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
        table("revoked_at timestamptz", ids="text"),
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
