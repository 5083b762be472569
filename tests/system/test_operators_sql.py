"""SQL printed for operators: install, uninstall, and the rights of the granted role."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Installation, Keys
from refusals import correct


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    with correct(cluster, databases) as there:
        yield there


def catalogue(site: Installation) -> dict[str, list[Any]]:
    """All that an installation could leave behind in the database, except sessions and statistics."""
    of_users = "nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
    queries = {
        "schemas": f"SELECT nspname, nspacl::text FROM pg_namespace WHERE {of_users}",
        "functions": "SELECT p.oid::regprocedure::text, prosrc, proconfig, proacl::text"
        f" FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE {of_users}",
        "triggers": "SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(oid)"
        " FROM pg_trigger WHERE NOT tgisinternal",
        "relations": "SELECT c.oid::regclass::text, relkind, relacl::text, relrowsecurity"
        f" FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE {of_users}",
        "columns": "SELECT attrelid::regclass::text, attname, attacl::text FROM pg_attribute"
        " WHERE attacl IS NOT NULL",
        "types": f"SELECT typname FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace"
        f" WHERE {of_users}",
        "event triggers": "SELECT evtname FROM pg_event_trigger",
        "publications": "SELECT pubname FROM pg_publication",
        "slots": "SELECT slot_name FROM pg_replication_slots",
    }
    return {what: sorted(site.sql(query), key=repr) for what, query in queries.items()}


def run_sql(site: Installation, action: str, source: str | None = None) -> None:
    site.cluster.psql(site.cli.sql(action, site.config, source), site.dbname)


@pytest.fixture
def bare(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """All three schemas and a table of an odd name in one database, with nothing installed."""
    there = Installation(cluster, databases.new("api_keys"))
    for schema in ("external_credentials", "auth_api_key"):
        seeds.create_schema(there.conn, schema)
    odd = '"Odd \'one"."t""1"'
    there.sql(f'CREATE SCHEMA "Odd \'one"; CREATE TABLE {odd} (id int PRIMARY KEY, key text)')
    seeds.Pepper.random().write_to(there.peppers)
    there.source("api_keys", preset="api_keys", peppers=str(there.peppers))
    there.source("external", preset="external_credentials")
    there.source("jwt", preset="auth_api_key")
    there.source("odd", table=odd, id="id", key="key")
    yield there
    there.close()


def test_uninstall_leaves_nothing_behind(bare: Installation) -> None:
    run_sql(bare, "grant")  # the operator must revoke these grants
    before = catalogue(bare)
    run_sql(bare, "uninstall")  # before any installation
    assert catalogue(bare) == before
    run_sql(bare, "install")
    assert catalogue(bare) != before
    run_sql(bare, "uninstall")
    assert catalogue(bare) == before
    run_sql(bare, "uninstall")
    assert catalogue(bare) == before


def test_uninstalling_one_source_leaves_the_others_installed(bare: Installation) -> None:
    run_sql(bare, "grant")
    before = catalogue(bare)
    run_sql(bare, "install", "external")
    external_only = catalogue(bare)
    run_sql(bare, "install")
    for source in ("jwt", "odd", "api_keys"):
        run_sql(bare, "uninstall", source)
    assert catalogue(bare) == external_only
    run_sql(bare, "uninstall", "external")
    assert catalogue(bare) == before


def test_install_and_grant_may_be_run_again(bare: Installation) -> None:
    bare.install()
    once = catalogue(bare)
    bare.install()
    assert catalogue(bare) == once
    bare.check()


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE public.api_keys DISABLE TRIGGER latchkey_insert",
        "DROP TRIGGER latchkey_delete ON public.api_keys",
        "DROP SCHEMA latchkey CASCADE",
        "REVOKE SELECT (scopes) ON public.api_keys FROM latchkey",
    ],
)
def test_install_and_grant_mend_what_was_damaged(site: Keys, damage: str) -> None:
    before = catalogue(site)
    site.sql(damage)
    assert catalogue(site) != before
    site.install()
    assert catalogue(site) == before


@pytest.fixture(scope="module")
def granted(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A role that was created only by the output of `latchkey sql grant`."""
    there = Keys(cluster, databases.new("api_keys"))
    there.database["conninfo"] = cluster.conninfo(there.dbname, "granted_reader")
    there.issue("sk_granted")
    there.install()
    yield there
    there.close()


MAPPED = {
    "id",
    "token_hash",
    "token_hash_key_version",
    "user_id",
    "tenant_id",
    "scopes",
    "expires_at",
    "status",
}


def test_the_granted_role_reads_the_mapped_columns_of_its_table_only(granted: Keys) -> None:
    readable = granted.sql(
        """SELECT attrelid::regclass::text, attname FROM pg_attribute
           JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
           WHERE attnum > 0 AND NOT attisdropped AND relkind IN ('r', 'v', 'p', 'm', 'f')
             AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
             AND has_column_privilege('granted_reader', attrelid, attnum, 'SELECT')"""
    )
    assert set(readable) == {("api_keys", column) for column in MAPPED}
    rows = granted.cluster.sql(
        f"SELECT {', '.join(sorted(MAPPED))} FROM public.api_keys",
        dbname=granted.dbname,
        user="granted_reader",
    )
    assert len(rows) == 1


@pytest.mark.parametrize(
    "forbidden",
    [
        "SELECT * FROM public.api_keys",
        "SELECT name FROM public.api_keys",
        "SELECT count(*) FROM public.tenants",
        "SELECT count(*) FROM public.vw_api_keys",
        "INSERT INTO public.api_keys (tenant_id) VALUES (1)",
        "UPDATE public.api_keys SET status = 'active'",
        "UPDATE public.api_keys SET last_used_at = now()",
        "DELETE FROM public.api_keys",
        "TRUNCATE public.api_keys",
        "BEGIN; LOCK TABLE public.api_keys IN EXCLUSIVE MODE",
        "SELECT id FROM public.api_keys FOR UPDATE",
        "SELECT nextval('public.api_keys_id_seq')",
        "ALTER TABLE public.api_keys DISABLE TRIGGER ALL",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE TABLE latchkey.mine (id int)",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "SET ROLE postgres",
        "SET session_replication_role = replica",
    ],
)
def test_the_granted_role_may_write_nothing(granted: Keys, forbidden: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        granted.cluster.sql(forbidden, dbname=granted.dbname, user="granted_reader")


def test_the_granted_role_is_enough_to_serve(granted: Keys) -> None:
    assert "1 rows read, 1 keys" in granted.check()
    (attributes,) = granted.sql(
        """SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls
           FROM pg_roles WHERE rolname = 'granted_reader'"""
    )
    assert not any(attributes)
