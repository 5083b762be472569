"""A database that does not match the configuration: the start is refused, with the cause and the remedy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.wait import until
from installation import PASSWORD, Databases, Installation, Keys, Setting
from refusals import PATIENCE_S, WAYS, WORLD, Way, assert_refused, correct, patience


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation with a short start timeout."""
    with correct(cluster, databases) as there:
        there.freshness["start_timeout"] = patience(PATIENCE_S[0])
        yield there


# ---- the system around it


def columns(**settings: Setting) -> Callable[[Keys], None]:
    """The same source with these settings."""

    def change(site: Keys) -> None:
        site.source("api_keys", preset="api_keys", peppers=str(site.peppers), **settings)

    return change


def conninfo(**settings: str) -> Callable[[Keys], None]:
    def change(site: Keys) -> None:
        words = [f"{name}={value}" for name, value in settings.items()]
        site.database["conninfo"] = " ".join([str(site.database["conninfo"]), *words])

    return change


def sql(text: str) -> Callable[[Keys], None]:
    def change(site: Keys) -> None:
        site.sql(text.format(db=site.dbname))

    return change


def read_only_for_writers(site: Keys) -> None:
    sql("ALTER DATABASE {db} SET default_transaction_read_only = on")(site)
    conninfo(target_session_attrs="read-write")(site)


def wrong_password(site: Keys) -> None:
    # The wrong password contains the true one, because the test searches the output for it.
    site.password_file.write_text(f"{PASSWORD}-but-wrong\n")


def no_password(site: Keys) -> None:
    del site.database["password_file"]
    conninfo(passfile="/nonexistent")(site)


def other_mapping(site: Keys) -> None:
    """The installed triggers compare other columns than the present mapping."""
    columns(subject="tenant_id", tenant="user_id", not_before="created_at")(site)
    site.grant()


def own_table(definition: str, **settings: Setting) -> Callable[[Keys], None]:
    """A table of another shape with its triggers, so that only the shape is wrong."""

    def change(site: Keys) -> None:
        site.sql(f"CREATE TABLE public.own ({definition})")
        site.source("own", **({"table": "public.own", "id": "id", "key": "key"} | settings))
        site.install()

    return change


mars_time = own_table(
    "id int PRIMARY KEY, key text, until timestamp", expires_at="until", time_zone="Mars/Olympus"
)


def mars_time_with_a_row(site: Keys) -> None:
    mars_time(site)
    site.sql("INSERT INTO own VALUES (1, 'k', now())")


def index(site: Keys, text: str) -> None:
    own_table("id int NOT NULL, other int, key text")(site)
    site.sql(f"CREATE UNIQUE INDEX ON public.own {text}")


INSTALL, GRANT = "`latchkey sql install", "`latchkey sql grant"
TRIGGER = "ALTER TABLE public.api_keys {} TRIGGER latchkey_update"

TROUBLE: dict[str, tuple[Callable[[Keys], None], tuple[str, ...]]] = {
    # ---- no connection
    "no server there": (conninfo(host="/nonexistent"), ("/nonexistent", "Check `conninfo`")),
    "no server at the port": (
        conninfo(host="127.0.0.1", port="1"),
        ("Connection refused", "Check `conninfo`"),
    ),
    "no such host": (conninfo(host="nowhere.invalid"), ("nowhere.invalid", "Check `conninfo`")),
    "no such database": (
        conninfo(dbname="nowhere"),
        ('database "nowhere" does not exist', "Check `conninfo`"),
    ),
    "no such role": (
        conninfo(user="nobody_at_all"),
        ('role "nobody_at_all" does not exist', "Check `conninfo`"),
    ),
    "a wrong password": (wrong_password, ("password authentication failed", "`password_file`")),
    "no password": (no_password, ("no password supplied", "`password_file`")),
    "a wish for a server that can be written to": (
        read_only_for_writers,
        ("read-only", "`conninfo`"),
    ),
    # ---- tables and columns
    "no table": (
        columns(table="public.nowhere"),
        ("there is no table public.nowhere", "Set `table`", '[[source]] "api_keys"'),
    ),
    "a view": (
        columns(table="public.vw_api_keys"),
        ("public.vw_api_keys is not a table", "set `table`"),
    ),
    "no column": (
        columns(tenant="tenant"),
        ('no column "tenant"', 'tenant = "tenant"', "Its columns are: ", "tenant_id"),
    ),
    "a column that the role may not read": (
        sql("REVOKE SELECT (scopes) ON public.api_keys FROM latchkey"),
        ("may not read", '"scopes"', GRANT, "superuser"),
    ),
    "a schema that the role may not use": (
        sql("REVOKE USAGE ON SCHEMA public FROM PUBLIC, latchkey"),
        ("schema public", GRANT),
    ),
    "a raw digest in text": (
        own_table("id int PRIMARY KEY, key text", scheme="sha256", encoding="raw"),
        ('"key"', "type text", "needs bytea", 'encoding = "hex"'),
    ),
    "keys as text in bytea": (
        own_table("id int PRIMARY KEY, key bytea"),
        ('"key"', "type bytea", "`scheme`", '[[source]] "own"'),
    ),
    "a digest as text in bytea": (
        own_table("id int PRIMARY KEY, key bytea", scheme="sha256", encoding="hex"),
        ('"key"', "type bytea", 'encoding = "raw"'),
    ),
    "a flag that is text": (
        own_table("id int PRIMARY KEY, key text, live text", enabled="live"),
        ('"live"', "not boolean", "`status`"),
    ),
    "an expiry that is text": (
        own_table("id int PRIMARY KEY, key text, until text", expires_at="until"),
        ('"until"', "must be a timestamp, a date"),
    ),
    "a time zone that is none, still without rows": (mars_time, ("Mars/Olympus", "`time_zone`")),
    "a time zone that is none": (
        mars_time_with_a_row,
        ("Mars/Olympus", "`time_zone`"),
    ),
    # ---- ids
    "an id without index": (
        own_table("id int NOT NULL, key text"),
        ('"id" of public.own', "unique index", "Set `id`"),
    ),
    "an id that may be null": (own_table("id int UNIQUE, key text"), ('"id"', "NOT NULL", "`id`")),
    "an id unique for some rows": (
        lambda site: index(site, "(id) WHERE other > 0"),
        ('"id"', "does not identify a row"),
    ),
    "an id unique with another column": (
        lambda site: index(site, "(id, other)"),
        ('"id"', "does not identify a row"),
    ),
    "an id unique but for its sign": (
        lambda site: index(site, "(abs(id))"),
        ('"id"', "does not identify a row"),
    ),
    # ---- triggers
    "no trigger": (
        sql("DROP SCHEMA latchkey CASCADE"),
        ("latchkey_insert, latchkey_update, latchkey_delete, latchkey_truncate missing", INSTALL),
    ),
    "one trigger missing": (
        sql("DROP TRIGGER latchkey_truncate ON public.api_keys"),
        ("trigger latchkey_truncate missing", INSTALL, "owner"),
    ),
    "a disabled trigger": (
        sql(TRIGGER.format("DISABLE")),
        ("trigger latchkey_update", "not ENABLE ALWAYS", INSTALL),
    ),
    "a trigger that replication does not fire": (
        sql(TRIGGER.format("ENABLE")),
        ("trigger latchkey_update", "not ENABLE ALWAYS", INSTALL),
    ),
    "a trigger that only replication fires": (
        sql(TRIGGER.format("ENABLE REPLICA")),
        ("trigger latchkey_update", "not ENABLE ALWAYS", INSTALL),
    ),
    "triggers for another mapping": (other_mapping, ("made for another mapping", INSTALL)),
    "a function that somebody wrote anew": (
        sql(
            'CREATE OR REPLACE FUNCTION latchkey."notify public.api_keys"() RETURNS trigger'
            " LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        ),
        ("made for another mapping", INSTALL),
    ),
    "the trigger of another table": (
        sql(
            "CREATE FUNCTION public.mute() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NULL; END';"
            "DROP TRIGGER latchkey_update ON public.api_keys;"
            "CREATE TRIGGER latchkey_update AFTER UPDATE ON public.api_keys"
            " EXECUTE FUNCTION public.mute();"
            "ALTER TABLE public.api_keys ENABLE ALWAYS TRIGGER latchkey_update"
        ),
        ("trigger latchkey_update made for another mapping", INSTALL),
    ),
    "a trigger for too few updates": (
        sql(
            "DROP TRIGGER latchkey_update ON public.api_keys;"
            "CREATE TRIGGER latchkey_update AFTER INSERT ON public.api_keys"
            " REFERENCING NEW TABLE AS new_rows"
            ' FOR EACH STATEMENT EXECUTE FUNCTION latchkey."notify public.api_keys"();'
            "ALTER TABLE public.api_keys ENABLE ALWAYS TRIGGER latchkey_update"
        ),
        ("trigger latchkey_update", INSTALL),
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("change", "said"), TROUBLE.values(), ids=TROUBLE.keys())
def test_what_is_wrong_in_the_world_is_named_with_its_remedy(
    site: Keys, way: Way, change: Callable[[Keys], None], said: tuple[str, ...]
) -> None:
    change(site)
    text = assert_refused(site.config, way, WORLD, *said)
    assert site.pepper.secret.hex() not in text


@pytest.mark.parametrize("way", WAYS)
def test_everything_wrong_is_named_at_once(site: Keys, way: Way) -> None:
    columns(tenant="no_tenant", subject="no_subject")(site)
    site.sql("DROP TRIGGER latchkey_delete ON public.api_keys")
    site.source("nowhere", table="public.nowhere", id="id", key="key")
    text = assert_refused(site.config, way, WORLD, '"no_tenant"')
    for part in ('"no_subject"', "latchkey_delete missing", "no table public.nowhere"):
        assert part in text


def test_check_disturbs_no_daemon_that_runs(site: Keys) -> None:
    del site.freshness["start_timeout"]
    site.issue("sk_checked")
    with site.serve() as daemon:
        assert "1 rows read, 1 keys" in site.check()
        assert site.verdict("sk_checked") == "valid" and daemon.exit_code is None


# ---- a database that starts late


def test_a_database_that_comes_up_in_time_is_waited_for() -> None:
    with PrivateCluster() as late:
        late.sql(f"CREATE ROLE latchkey LOGIN PASSWORD '{PASSWORD}'")
        late.createdb("app")
        with contextlib.closing(late.connect("app")) as conn:
            seeds.create_schema(conn, "external_credentials")
            seeds.insert_external(conn, "sk_late", 1)
        site = Installation(late, "app")
        site.source("external", preset="external_credentials")
        site.install()
        late.stop()
        # --check does not wait: its caller wants the present state.
        assert_refused(site.config, "check", WORLD, "cannot connect", "Check `conninfo`")
        with Daemon(site.config, wait=False) as daemon:
            until(lambda: "cannot connect" in daemon.log(), 10, "it has tried")
            assert daemon.exit_code is None and daemon.notifications.count("READY=1") == 0
            late.start()
            daemon.wait_ready()
            assert site.verdict("sk_late") == "valid"
        site.close()
