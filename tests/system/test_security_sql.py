"""An ordinary login gains nothing from the SQL that Latchkey prints and sends.

The tests follow docs/security.md, "What each promise is shown by".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from adversaries import APP, EVE, OWNERS, Traps
from harness.child import Completed
from harness.postgres import PASSWORD_ROLE, SUPERUSER, PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import Databases, Installation

KEYS = {f"key_{name:04}": name for name in range(5)}


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table of the administrator's; every role may create in public, as before PostgreSQL 15."""
    made = Installation(cluster, databases.new())
    made.sql("GRANT CREATE ON SCHEMA public TO PUBLIC")
    table(made)
    made.source("k", table="public.k", id="id", key="key", status="status", **MAPPED)
    yield made
    made.close()


MAPPED = {
    "subject": "owner",
    "expires_at": "expires_at",
    "scopes": "scopes",
    "metadata": "data",
    "last_used_at": "used",
}


def table(site: Installation, name: str = "public.k", owner: str = SUPERUSER) -> None:
    """Create a table with five keys."""
    site.sql(
        f"""CREATE TABLE {name} (id int PRIMARY KEY, key text NOT NULL, status text DEFAULT 'active',
            owner int, expires_at timestamptz, scopes text[], data jsonb, used timestamptz);
        ALTER TABLE {name} OWNER TO {owner};
        INSERT INTO {name} SELECT i, 'key_' || lpad(i::text, 4, '0'), 'active', i, now() + '1 day', '{{read}}',
            '{{"a": 1}}' FROM generate_series(0, 4) AS i;
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {APP}"""
    )


def run(site: Installation, what: str, user: str = SUPERUSER) -> str:
    """Run the output of `latchkey sql` as this user; returns psql's error, or ""."""
    try:
        site.cluster.psql(site.cli.sql(what, site.config), site.dbname, user)
    except AssertionError as error:
        return str(error)
    return ""


# ---- 1: search_path


def test_no_hostile_object_is_ever_called(site: Installation) -> None:
    """The search_path leads to operators, functions, types and relations named like those that SQL uses."""
    traps = Traps(site)
    traps.reach_everybody()
    site.freshness["audit"] = "1s"
    # A control: plain SQL there falls into a trap.
    site.cluster.sql("SELECT 1::pg_catalog.int4 = 1::pg_catalog.int4", dbname=site.dbname)
    assert traps.called() == [(SUPERUSER, "hostile.=(int4, int4)")]
    traps.forget()

    for what in ("grant", "install", "grant", "install"):
        assert run(site, what) == ""
    assert traps.called() == [], "what is printed and run by the administrator"
    assert not site.cluster.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'")[0][0]
    site.check()
    with Daemon(site.config):
        assert site.ask(*KEYS).names == ["valid"] * 5
        # The writer's own search_path leads into the traps too.
        as_app = contextlib.closing(site.cluster.connect(site.dbname, APP))
        with as_app as conn, conn.cursor() as cursor:
            cursor.execute("SET search_path = public, pg_catalog")
            cursor.execute("INSERT INTO public.k (id, key) VALUES (10, 'key_new')")
            cursor.execute("UPDATE public.k SET status = 'revoked' WHERE id OPERATOR(pg_catalog.=) 1")
            cursor.execute("UPDATE public.k SET id = 20 WHERE id OPERATOR(pg_catalog.=) 2")
            cursor.execute("DELETE FROM public.k WHERE id OPERATOR(pg_catalog.=) 3")
        assert site.ask(*KEYS, "key_new").names == ["valid", "revoked", "valid", "unknown", "valid", "valid"]
        until(lambda: site.source_status("k")["audits"] >= 2, 30, "two audits")
        until(lambda: site.source_status("k")["last_used"]["written"] >= 3, 30, "uses are written")
        site.sql("TRUNCATE public.k")
        assert site.ask("key_0000").names == ["unknown"]
        assert site.source_status("k")["audit_mismatches"] == 0
    assert run(site, "uninstall") == ""
    own_doing = [call for call in traps.called() if call[0] != APP]
    assert own_doing == [], "what the daemon sends, and what is printed"
    # The writer's own statements qualify their operators, so only the trigger could fall into a trap.
    assert traps.called() == []


@pytest.mark.parametrize("what", ["grant", "install", "uninstall"])
def test_eve_cannot_become_a_superuser_by_an_operator(site: Installation, what: str) -> None:
    """The original exploit: an operator in public that makes its caller grant her everything."""
    for script in ("grant", "install"):
        assert run(site, script) == ""
    pairs = [("oid", "regclass"), ("name", "name"), ("oid", "oid"), ("name", "text"), ("text", "text")]
    for number, (left, right) in enumerate(pairs):
        site.cluster.sql(
            f"""CREATE FUNCTION public.promote_{number}({left}, {right}) RETURNS bool LANGUAGE plpgsql AS
            $$ BEGIN ALTER ROLE eve SUPERUSER; RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$;
            CREATE OPERATOR public.= (FUNCTION = public.promote_{number}, LEFTARG = {left}, RIGHTARG = {right})""",
            dbname=site.dbname,
            user=EVE,
        )
    site.sql(f"ALTER DATABASE {site.dbname} SET search_path = public, pg_catalog")
    assert run(site, what) == ""
    assert site.cluster.sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'eve'") == [(False,)]


# ---- 2: objects that already exist


def test_a_schema_of_eves_is_refused(site: Installation) -> None:
    site.sql("CREATE SCHEMA latchkey AUTHORIZATION eve; GRANT USAGE ON SCHEMA latchkey TO PUBLIC")
    site.grant()
    said = run(site, "install")
    assert "schema latchkey belongs to role eve" in said
    assert site.sql("SELECT 1 FROM pg_trigger WHERE tgname LIKE 'latchkey%'") == [], "all or nothing"


def test_a_function_of_eves_is_refused(site: Installation) -> None:
    """CREATE OR REPLACE would leave her as the owner, who may replace the body."""
    site.grant()
    site.sql("CREATE SCHEMA latchkey; GRANT CREATE, USAGE ON SCHEMA latchkey TO eve")
    site.cluster.sql(
        """CREATE FUNCTION latchkey."notify public.k"() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RETURN NULL; END $$""",
        dbname=site.dbname,
        user=EVE,
    )
    said = run(site, "install")
    assert "was there before and belongs to role eve" in said
    assert site.sql("SELECT 1 FROM pg_trigger WHERE tgname LIKE 'latchkey%'") == []


@pytest.mark.parametrize(
    "harm",
    ["ALTER SCHEMA latchkey OWNER TO eve", 'ALTER FUNCTION latchkey."notify public.k"() OWNER TO eve'],
    ids=["schema", "function"],
)
def test_a_foreign_owner_is_found_by_check_and_by_the_heartbeat(site: Installation, harm: str) -> None:
    with site.serve() as daemon:
        assert site.ask("key_0000").names == ["valid"]
        site.sql(harm)
        until(lambda: "L119" in daemon.log(), 10, "the heartbeat's finding")
        until(lambda: "L119" in numbers(site), 10, "told in the status")
    assert "L119" in check(site).stdout


def check(site: Installation) -> Completed:
    return check_config(site.config)


def test_a_role_that_others_may_act_as_is_refused(site: Installation) -> None:
    """The role exists already, and eve is a member: she would read everything that it reads."""
    site.sql("CREATE ROLE reader_of_eve LOGIN; GRANT reader_of_eve TO eve")
    try:
        site.database["role"] = "reader_of_eve"
        assert "eve may act as it" in run(site, "grant")
        assert not site.value("SELECT has_column_privilege('reader_of_eve', 'public.k', 'key', 'SELECT')")
    finally:
        site.sql("DROP ROLE reader_of_eve")


# ---- 3: the whole definition counts


CHANGES = {
    "body": """CREATE OR REPLACE FUNCTION latchkey."notify public.k"() RETURNS trigger LANGUAGE plpgsql
        SET search_path = pg_catalog, pg_temp AS $x$ BEGIN RETURN NULL; END $x$""",
    "comment kept": """DO $do$ BEGIN EXECUTE (SELECT format('CREATE OR REPLACE FUNCTION latchkey."notify public.k"()
        RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $x$%s$x$',
        replace(prosrc, E'BEGIN\\n', E'BEGIN RETURN NULL;\\n'))
        FROM pg_proc WHERE proname = 'notify public.k'); END $do$""",
    "settings": """ALTER FUNCTION latchkey."notify public.k"() SET search_path = public""",
    "no settings": """ALTER FUNCTION latchkey."notify public.k"() RESET ALL""",
    "another setting": """ALTER FUNCTION latchkey."notify public.k"() SET bytea_output = escape""",
    "definer": """ALTER FUNCTION latchkey."notify public.k"() SECURITY DEFINER""",
    "stable": """ALTER FUNCTION latchkey."notify public.k"() STABLE""",
    "condition": """CREATE OR REPLACE TRIGGER latchkey_update AFTER UPDATE ON public.k
        REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (false)
        EXECUTE FUNCTION latchkey."notify public.k"()""",
    "columns": """DROP TRIGGER latchkey_insert ON public.k; CREATE TRIGGER latchkey_insert AFTER UPDATE OF id ON
        public.k FOR EACH STATEMENT EXECUTE FUNCTION latchkey."notify public.k"()""",
    "arguments": """CREATE OR REPLACE TRIGGER latchkey_truncate AFTER TRUNCATE ON public.k
        FOR EACH STATEMENT EXECUTE FUNCTION latchkey."notify public.k"('x')""",
    "another function": """CREATE FUNCTION latchkey.quiet() RETURNS trigger LANGUAGE plpgsql
        AS $x$ BEGIN RETURN NULL; END $x$; CREATE OR REPLACE TRIGGER latchkey_truncate AFTER TRUNCATE
        ON public.k FOR EACH STATEMENT EXECUTE FUNCTION latchkey.quiet()""",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_triggers_that_do_something_else_are_not_believed(site: Installation, change: str) -> None:
    """A reload does not change this: the daemon compares the complete definition with the one it would print."""
    with site.serve():
        assert site.ask("key_0000").names == ["valid"]
        events = ("insert", "update", "delete", "truncate")
        always = [f"ALTER TABLE public.k ENABLE ALWAYS TRIGGER latchkey_{event}" for event in events]
        site.sql("; ".join([change, *always]))
        until(lambda: numbers(site) & {"L111", "L112"}, 10, "the heartbeat's finding")
        loads = site.source_status("k")["loads"]
        until(lambda: site.source_status("k")["loads"] > loads + 1, 20, "read again and again")
        assert numbers(site) & {"L111", "L112"}, "after two more loads, too"
        site.cli.sync("500ms", expect=3)  # no caller may rely on it
        assert run(site, "install") == ""
        until(lambda: not numbers(site), 20, "believed again")
        assert site.ask("key_0000").names == ["valid"]


def numbers(site: Installation) -> set[str]:
    return {told["number"] for told in site.source_status("k").get("findings", []) if told["severity"] == "error"}


# ---- 6: rights


def test_a_superuser_is_refused_unless_that_is_wanted(cluster: PrivateCluster, databases: Databases) -> None:
    site = Installation(cluster, databases.new(), user=SUPERUSER)
    table(site)
    site.source("k", table="public.k", id="id", key="key")
    assert run(site, "install") == ""
    assert "L002" in check(site).expect(1).stdout
    site.database["allow_superuser"] = True
    assert "L403" in check(site).expect(0).stdout
    site.close()


def test_a_role_that_becomes_a_superuser_is_refused_while_running(site: Installation) -> None:
    with site.serve():
        assert site.ask("key_0000").names == ["valid"]
        try:
            site.sql(f"ALTER ROLE {PASSWORD_ROLE} SUPERUSER")
            until(lambda: "L002" in numbers(site), 10, "the heartbeat's finding")
            assert site.source_status("k")["suspended"]
        finally:
            site.sql(f"ALTER ROLE {PASSWORD_ROLE} NOSUPERUSER")
        until(lambda: not numbers(site), 20, "followed again")


def test_the_role_sees_no_other_table_with_row_level_security(site: Installation) -> None:
    """With BYPASSRLS, it would see every such table that PUBLIC may select from."""
    site.sql(
        """CREATE TABLE secret (words text); INSERT INTO secret VALUES ('hush'); GRANT SELECT ON secret TO PUBLIC;
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY; ALTER TABLE k ENABLE ROW LEVEL SECURITY"""
    )
    site.sql(f"ALTER ROLE {PASSWORD_ROLE} BYPASSRLS")  # as earlier versions granted
    site.install()
    assert not site.value("SELECT rolbypassrls FROM pg_roles WHERE rolname = %s", PASSWORD_ROLE)
    with contextlib.closing(site.cluster.connect(site.dbname, PASSWORD_ROLE, password="geheim")) as conn:
        cursor = conn.cursor()
        cursor.execute("SELECT count(*) FROM secret")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT count(id) FROM k")
        assert cursor.fetchone() == (5,)
    with site.serve():
        assert site.ask(*KEYS).names == ["valid"] * 5
        site.sql("UPDATE k SET status = 'revoked' WHERE id = 1")
        assert site.ask("key_0001").names == ["revoked"]
        until(lambda: site.source_status("k")["last_used"]["written"] >= 4, 30, "uses are written through a policy")


POLICIES = {
    "restrictive": "CREATE POLICY odd ON k AS RESTRICTIVE FOR SELECT TO PUBLIC USING (id <> 1)",
    "restrictive for all": "CREATE POLICY odd ON k AS RESTRICTIVE TO PUBLIC USING (true)",
    "dropped": "DROP POLICY latchkey_select ON k",
    "narrowed": "ALTER POLICY latchkey_select ON k USING (id <> 1)",
    "no longer ours": "ALTER POLICY latchkey_select ON k TO app",
    "no more writing": "DROP POLICY latchkey_update ON k",
}


@pytest.mark.parametrize("change", POLICIES.values(), ids=POLICIES.keys())
def test_policies_that_hide_rows_are_found(site: Installation, change: str) -> None:
    site.sql("ALTER TABLE k ENABLE ROW LEVEL SECURITY")
    with site.serve():
        assert site.ask(*KEYS).names == ["valid"] * 5
        site.sql(change)
        until(lambda: "L110" in numbers(site), 10, "the heartbeat's finding")
        assert "L110" in check(site).expect(1).stdout
        site.sql("DROP POLICY IF EXISTS odd ON k")
        site.grant()
        until(lambda: not numbers(site), 20, "followed again")
        assert site.ask(*KEYS).names == ["valid"] * 5


def test_owners_may_install_for_their_own_tables(site: Installation) -> None:
    """An owner need not be a superuser: owner1 owns the functions installed for his table, without a finding."""
    site.sql("GRANT CREATE ON DATABASE " + site.dbname + " TO owner1; CREATE SCHEMA mine AUTHORIZATION owner1")
    table(site, "mine.k", OWNERS[0])
    site.source("k", table="mine.k", id="id", key="key")
    site.grant()
    assert run(site, "install", OWNERS[0]) == ""
    site.check()
    with Daemon(site.config):
        site.sql("DELETE FROM mine.k WHERE id = 1")
        assert site.ask("key_0001", "key_0002").names == ["unknown", "valid"]
