"""DDL under a running daemon: a table becomes unreadable.

Later than `bound`, no answer on "gone" is a fresh yes (see `followed_table`). `sync` fails, and no answer is fresh
until the table is mended.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from followed_table import (
    GRANTED,
    PLAIN,
    READER,
    REVOKE,
    Case,
    assert_follows,
    assert_no_fresh_yes,
    fresh,
    run,
    served,
    table,
)
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases

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
        table("off boolean DEFAULT false"),
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
