"""Owners of tables that do not trust each other: no owner influences the reading of another's table.

One role reads several owners' tables. No owner's code may read or change another's data. The daemon never calls
owners' types and casts, or refuses them. It refuses functions that PostgreSQL would call for the reader. Changes
that an owner's function leaves in a session end with that session.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from adversaries import OWNERS
from harness.postgres import SUPERUSER, PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import Databases, Installation

OWNER1, OWNER2 = OWNERS


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A schema and a table for each owner, two sources, one role that reads both."""
    made = Installation(cluster, databases.new())
    # Each function called records this in a sequence, which a rollback does not undo.
    made.sql(
        """CREATE SCHEMA note; GRANT USAGE ON SCHEMA note TO PUBLIC; CREATE SEQUENCE note.calls;
        GRANT ALL ON note.calls TO PUBLIC"""
    )
    for owner in OWNERS:
        made.sql(
            f"""CREATE SCHEMA {owner} AUTHORIZATION {owner};
            CREATE TABLE {owner}.k (id int PRIMARY KEY, key text NOT NULL, status text NOT NULL DEFAULT 'active',
                subject text, used timestamptz);
            ALTER TABLE {owner}.k OWNER TO {owner};
            INSERT INTO {owner}.k SELECT i, '{owner}_key_000' || i, 'active', i::text FROM generate_series(0, 3) i"""
        )
        made.source(owner, table=f"{owner}.k", id="id", key="key", status="status", subject="subject")
    yield made
    made.close()


def as_owner(site: Installation, text: str, owner: str = OWNER1) -> None:
    site.cluster.sql(text, dbname=site.dbname, user=owner)


def called(site: Installation) -> bool:
    return bool(site.value("SELECT is_called FROM note.calls"))


def numbers(site: Installation, name: str = OWNER1) -> set[str]:
    return {told["number"] for told in site.source_status(name).get("findings", []) if told["severity"] == "error"}


# A function that records its call, and spoils the session for later queries.
EVIL = """CREATE FUNCTION owner1.evil({arguments}) RETURNS {kind} LANGUAGE plpgsql {volatile} AS $$ BEGIN
    PERFORM nextval('note.calls'); PERFORM set_config('search_path', 'owner1', false);
    PERFORM set_config('standard_conforming_strings', 'off', false);
    PERFORM set_config('row_security', 'off', false);
    RETURN {result}; END $$"""


def evil(arguments: str, kind: str, result: str, volatile: str = "") -> str:
    return EVIL.format(arguments=arguments, kind=kind, result=result, volatile=volatile)


# ---- types and casts


def test_an_enum_is_read_without_its_owners_casts(site: Installation) -> None:
    """The daemon must not evaluate `status::text`, which would call the owner's cast; the labels are the same."""
    as_owner(
        site,
        "CREATE TYPE owner1.mood AS ENUM ('active', 'revoked');"
        "ALTER TABLE owner1.k ALTER status DROP DEFAULT;"
        "ALTER TABLE owner1.k ALTER status TYPE owner1.mood USING status::owner1.mood;"
        "ALTER TABLE owner1.k ALTER status SET DEFAULT 'active';"
        "ALTER TABLE owner1.k ADD tags owner1.mood[] DEFAULT '{active}';"
        + evil("owner1.mood", "text", "'active'")
        + ";"
        + evil("owner1.mood, json", "json", "'[\"admin\"]'").replace("(owner1.mood, json)", "(owner1.mood, int)")
        + ";"
        "CREATE FUNCTION owner1.as_json(owner1.mood) RETURNS json LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('note.calls'); RETURN '\"admin\"'; END $$;"
        "CREATE CAST (owner1.mood AS text) WITH FUNCTION owner1.evil(owner1.mood) AS IMPLICIT;"
        "CREATE CAST (owner1.mood AS json) WITH FUNCTION owner1.as_json(owner1.mood) AS IMPLICIT;",
    )
    site.source(OWNER1, table="owner1.k", id="id", key="key", status="status", scopes="tags")
    with site.serve():
        as_owner(site, "UPDATE owner1.k SET status = 'revoked' WHERE id = 1")
        as_owner(site, "UPDATE owner2.k SET status = 'revoked' WHERE id = 2", OWNER2)
        assert site.ask("owner1_key_0000", "owner1_key_0001").names == ["valid", "revoked"]
        assert site.claims("owner1_key_0000")["scope"] == "active"
        assert site.ask("owner2_key_0001", "owner2_key_0002").names == ["valid", "revoked"]
    assert not called(site)


TYPES = {
    "composite": "CREATE TYPE owner1.odd AS (a text)",
    "range": "CREATE TYPE owner1.odd AS RANGE (SUBTYPE = text)",
    "domain over composite": "CREATE TYPE owner1.inner AS (a text); CREATE DOMAIN owner1.odd AS owner1.inner",
    "row of a table": "CREATE TABLE owner1.odd (a text)",
}


@pytest.mark.parametrize("make", TYPES.values(), ids=TYPES.keys())
@pytest.mark.parametrize("array", ["", "[]"], ids=["one", "array"])
def test_other_types_of_owners_are_refused(site: Installation, make: str, array: str) -> None:
    as_owner(site, f"{make}; ALTER TABLE owner1.k ADD odd owner1.odd{array}")
    site.source(OWNER1, table="owner1.k", id="id", key="key", tenant="odd")
    site.install()
    assert "L117" in check_config(site.config).expect(1).stdout


DOMAINS = {
    "text": ("owner1.d_text", "CREATE DOMAIN owner1.d_text AS text CHECK (VALUE <> '')", "'x'", "x"),
    "of a domain": (
        "owner1.d_two",
        "CREATE DOMAIN owner1.d_one AS int; CREATE DOMAIN owner1.d_two AS owner1.d_one",
        "7",
        "7",
    ),
    "uuid": (
        "owner1.d_uuid",
        "CREATE DOMAIN owner1.d_uuid AS uuid",
        "'00000000-0000-0000-0000-000000000001'",
        "00000000-0000-0000-0000-000000000001",
    ),
}


@pytest.mark.parametrize(("name", "make", "value", "told"), DOMAINS.values(), ids=DOMAINS.keys())
def test_a_domain_is_read_as_the_type_beneath_it(
    site: Installation, name: str, make: str, value: str, told: str
) -> None:
    as_owner(site, f"{make}; ALTER TABLE owner1.k ADD tenant {name} DEFAULT {value}")
    site.source(OWNER1, table="owner1.k", id="id", key="key", tenant="tenant")
    with site.serve():
        assert site.claims("owner1_key_0000")["tenant"] == told


# ---- code that PostgreSQL calls for the reader


CODE = {
    "index": "CREATE INDEX ON owner1.k ((owner1.evil(1) + id))",
    "partial index": "CREATE INDEX ON owner1.k (id) WHERE owner1.evil(1) > id",
    "operator in an index": """CREATE OPERATOR owner1.### (FUNCTION = owner1.evil2, LEFTARG = int, RIGHTARG = int);
        CREATE INDEX ON owner1.k ((1 OPERATOR(owner1.###) 2 + id))""",
    "check": "ALTER TABLE owner1.k ADD CHECK (owner1.evil(1) + id > -1000000)",
    "statistics": "CREATE STATISTICS owner1.s ON (owner1.evil(1) + id), key FROM owner1.k",
    "policy": "CREATE POLICY odd ON owner1.k USING (owner1.evil(1) = 1)",
}


@pytest.mark.parametrize("make", CODE.values(), ids=CODE.keys())
def test_code_of_an_owner_stops_his_own_source_alone(site: Installation, make: str) -> None:
    """PostgreSQL evaluates an IMMUTABLE function while it plans the reader's query, as the reader."""
    with site.serve():
        assert site.ask("owner1_key_0000", "owner2_key_0000").names == ["valid", "valid"]
        as_owner(
            site,
            evil("i int", "int", "i", "IMMUTABLE")
            + "; CREATE FUNCTION owner1.evil2(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';"
            + make,
        )
        until(lambda: "L118" in numbers(site), 10, "the heartbeat's finding")
        assert "owner1" in site.source_status(OWNER1)["problems"][0]
        assert numbers(site, OWNER2) == set()
        as_owner(site, "UPDATE owner2.k SET status = 'revoked' WHERE id = 0", OWNER2)
        until(lambda: site.cli.verify(["owner2_key_0000"]).names == ["revoked"], 10, "others go on")
    assert "L118" in check_config(site.config).expect(1).stdout
    # An owner's code gains nothing from a role that reads only this owner's table.
    alone = Installation(site.cluster, site.dbname)
    alone.source(OWNER1, table="owner1.k", id="id", key="key", status="status", subject="subject")
    alone.check()
    alone.close()


def test_what_an_owners_code_leaves_in_a_session_reaches_no_other_table(site: Installation) -> None:
    """Between two heartbeats, an index may exist before the daemon detects it."""
    site.freshness |= {"heartbeat": "5s"}
    as_owner(
        site,
        """CREATE FUNCTION owner1.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR owner1.= (FUNCTION = owner1.yes, LEFTARG = text, RIGHTARG = text)""",
    )
    with site.serve() as daemon:
        assert site.ask("owner2_key_0000").names == ["valid"]
        as_owner(
            site,
            evil("i int", "int", "i", "IMMUTABLE")
            + "; CREATE INDEX ON owner1.k ((owner1.evil(1) + id));"
            + "SELECT setval('note.calls', 1, false); UPDATE owner1.k SET subject = 'x' WHERE id = 1",
        )
        until(lambda: called(site), 10, "the owner's code ran in our session")
        as_owner(site, "UPDATE owner2.k SET status = 'revoked' WHERE id = 0", OWNER2)
        until(lambda: site.cli.verify(["owner2_key_0000"]).names == ["revoked"], 10, "revoked all the same")
        assert daemon.exit_code is None


# Definitions that reach an owner's function without naming it in an expression.
HIDDEN = {
    "range in a predicate": """CREATE TYPE owner1.odd AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = owner1.sd);
        ALTER TABLE owner1.k ADD odd owner1.odd""",
    "domain in a check": """CREATE DOMAIN owner1.d AS text CHECK (owner1.evil(1) = 1);
        ALTER TABLE owner1.k ADD CHECK ((status::owner1.d)::text IS NOT NULL)""",
    "range in a composite": """CREATE TYPE owner1.odd AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = owner1.sd);
        CREATE TYPE owner1.two AS (a owner1.odd); ALTER TABLE owner1.k ADD odd owner1.two[]""",
    "multirange": """CREATE TYPE owner1.odd AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = owner1.sd);
        ALTER TABLE owner1.k ADD odd owner1.odd_multirange""",
}


@pytest.mark.parametrize("make", HIDDEN.values(), ids=HIDDEN.keys())
def test_code_behind_a_type_counts_mapped_or_not(site: Installation, make: str) -> None:
    with site.serve():
        as_owner(
            site,
            evil("i int", "int", "i", "IMMUTABLE")
            + "; CREATE FUNCTION owner1.sd(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 - $2';"
            + make,
        )
        site.reload("owner1.k")
        until(lambda: "L118" in numbers(site), 20, "the heartbeat's finding")
        assert numbers(site, OWNER2) == set()


LATER = {
    "the other table changes its owner": "ALTER TABLE owner2.k OWNER TO owner2; GRANT owner1 TO owner2",
    "a membership ends": "REVOKE owner2 FROM owner1",
}


@pytest.mark.parametrize("change", LATER.values(), ids=LATER.keys())
def test_code_that_becomes_a_strangers_is_found_by_the_heartbeat(site: Installation, change: str) -> None:
    as_owner(
        site,
        evil("i int", "int", "i", "IMMUTABLE") + "; CREATE INDEX ON owner1.k ((owner1.evil(1) + id))",
    )
    if "REVOKE" in change:
        site.sql("GRANT owner2 TO owner1")
    else:
        site.sql("ALTER TABLE owner2.k OWNER TO owner1")
    try:
        with site.serve():
            assert numbers(site) == set()
            site.sql(change)
            until(lambda: "L118" in numbers(site), 10, "the heartbeat's finding")
    finally:
        site.sql("REVOKE owner2 FROM owner1; REVOKE owner1 FROM owner2")


# ---- writing runs more code than can be checked


def test_nothing_is_written_to_a_table_whose_owner_is_a_stranger_to_another(site: Installation) -> None:
    """An UPDATE runs triggers, rules, cascades, and checks that hold SQL as text, all as the daemon's role."""
    site.source(OWNER1, table="owner1.k", id="id", key="key", status="status", last_used_at="used")
    site.install()
    assert "whatever an UPDATE of owner1.k runs for role owner1" in check_config(site.config).expect(1).stdout
    # A role that reads only this owner's table writes, and the owner gains nothing.
    alone = Installation(site.cluster, site.dbname)
    alone.source(OWNER1, table="owner1.k", id="id", key="key", status="status", last_used_at="used")
    alone.more = '[last_used]\nflush = "1s"\n'
    with alone.serve():
        assert alone.ask("owner1_key_0000").names == ["valid"]
        until(lambda: alone.source_status(OWNER1)["last_used"]["written"] == 1, 20, "a use is written")
    alone.close()


def test_triggers_of_a_third_roles_are_found(site: Installation) -> None:
    """The table's owner created the trigger, but the function's owner could run code as the daemon's role."""
    alone = Installation(site.cluster, site.dbname)
    alone.source(OWNER1, table="owner1.k", id="id", key="key", last_used_at="used")
    alone.install()
    alone.check()
    alone.sql(
        """CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON owner1.k FOR EACH ROW EXECUTE FUNCTION public.touch()"""
    )
    alone.check()  # the function still belongs to a superuser
    alone.sql("ALTER FUNCTION public.touch() OWNER TO eve")
    assert "public.touch() of role eve" in check_config(alone.config).expect(1).stdout
    alone.close()


EVES = """CREATE FUNCTION public.evil(text, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
    CREATE OPERATOR public.### (FUNCTION = public.evil, LEFTARG = text, RIGHTARG = int);
    CREATE TYPE public.mood AS ENUM ('good');
    CREATE FUNCTION public.as_json(public.mood) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT ''{}''::json';
    ALTER FUNCTION public.evil(text, int) OWNER TO eve; ALTER OPERATOR public.###(text, int) OWNER TO eve;
    ALTER FUNCTION public.as_json(public.mood) OWNER TO eve;"""
BEHIND = {
    "an operator in the check of a domain": """CREATE DOMAIN public.d AS text CHECK (VALUE OPERATOR(public.###) 1);
        ALTER TABLE owner1.k ADD CHECK ((key::public.d)::text IS NOT NULL)""",
    "a domain in the check of a domain": """CREATE DOMAIN public.e AS text CHECK (public.evil(VALUE, 1));
        CREATE DOMAIN public.f AS text CHECK ((VALUE::public.e)::text IS NOT NULL);
        ALTER TABLE owner1.k ADD CHECK ((key::public.f)::text IS NOT NULL)""",
    "a rule": """CREATE RULE r AS ON UPDATE TO owner1.k DO ALSO SELECT public.evil('', 1)""",
    "a cast": """CREATE CAST (public.mood AS json) WITH FUNCTION public.as_json(public.mood);
        ALTER TABLE owner1.k ADD CHECK (to_json('good'::public.mood) IS NOT NULL OR key = 'x')""",
}


@pytest.mark.parametrize("made", BEHIND.values(), ids=BEHIND.keys())
def test_code_of_a_third_role_behind_what_an_update_runs_is_found(
    site: Installation, made: str
) -> None:
    alone = Installation(site.cluster, site.dbname)
    alone.source(OWNER1, table="owner1.k", id="id", key="key", last_used_at="used")
    alone.install()
    alone.check()
    alone.sql(EVES)
    alone.sql(made)
    assert "of role eve" in check_config(alone.config).expect(1).stdout
    alone.close()


def test_what_an_owner_calls_his_own_is_cut(site: Installation) -> None:
    """All findings fit into a status, even with long names."""
    with site.serve() as daemon:
        columns = ", ".join(f"ADD c{'x' * 55}{i:04} int" for i in range(1500))
        site.sql(f"ALTER TABLE owner1.k RENAME key TO elsewhere; ALTER TABLE owner1.k {columns}")
        site.wait_source(OWNER1, suspended=True)
        (found,) = [f for f in site.source_status(OWNER1)["findings"] if f["number"] == "L104"]
        assert len(found["text"]) < 3000 and "Set the right one" in found["text"]
        assert max(map(len, daemon.log().splitlines())) < 5000


def test_to_a_superuser_every_owner_is_a_stranger(cluster: PrivateCluster, databases: Databases) -> None:
    """Code of a table's owner, run as a superuser, would control the server, even if he owns all tables read."""
    made = Installation(cluster, databases.new(), user=SUPERUSER, allow_superuser=True)
    made.sql("CREATE SCHEMA owner1 AUTHORIZATION owner1")
    as_owner(made, "CREATE TABLE owner1.k (id int PRIMARY KEY, key text)")
    made.source(OWNER1, table="owner1.k", id="id", key="key")
    made.install()
    made.check()
    as_owner(
        made,
        """CREATE FUNCTION owner1.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
        CREATE INDEX ON owner1.k ((owner1.f(1) + id))""",
    )
    assert "L118" in check_config(made.config).expect(1).stdout
    made.close()


def test_a_status_that_would_be_too_long_leaves_findings_out(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Many sources with long findings: the status still contains all counters and states."""
    roles = {
        "subject": "text", "tenant": "text", "scopes": "text", "metadata": "text", "status": "text",
        "enabled": "boolean", "expires_at": "timestamptz", "not_before": "timestamptz",
        "revoked_at": "timestamptz", "disabled_at": "timestamptz", "deleted_at": "timestamptz",
    }  # fmt: skip
    made = Installation(cluster, databases.new())
    columns = ", ".join(f"{name} {kind}" for name, kind in roles.items())
    made.sql(f"CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE NOT NULL, {columns})")
    for i in range(32):
        made.source(f"source{i}", table="public.t", id="id", key="key", **{name: name for name in roles})
    made.freshness |= {"audit": "0s"}
    with made.serve():
        renames = "; ".join(f"ALTER TABLE t RENAME {name} TO gone_{name}" for name in roles)
        more = ", ".join(f"ADD a{'x' * 57}{i:02} int" for i in range(40))
        made.sql(f"{renames}; ALTER TABLE t {more}")
        until(lambda: all(s["suspended"] for s in made.cli.status()["sources"]), 30, "all are found")
        sources = made.cli.status()["sources"]
        assert len(sources) == 32
        assert all("left_out" in source and "findings" not in source for source in sources)
    made.close()
