"""One Latchkey over one database: its configuration, its triggers, its daemon, its client."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

from harness import seeds
from harness.folder import TemporaryFolder
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.cli import Cli, Verdicts
from harness.programs import Daemon, check_config
from harness.wait import until

PASSWORD = "geheim"

Setting = str | bool | int | list[str]

# A short heartbeat keeps the tests' waits short. The bound stays wide, so that a machine busy with
# other work does not make answers look stale.
RELAXED = {"heartbeat": "100ms", "bound": "10s", "max_stale": "1h", "start_timeout": "20s"}


def prepare(cluster: PrivateCluster, schemas: Iterable[str] = seeds.ALL_SCHEMAS) -> None:
    """Give a new server the daemon's role and a template of each schema, for Databases to copy."""
    # One password for all databases: the role belongs to the server.
    cluster.sql(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}'")
    for name in schemas:
        cluster.createdb(f"template_{name}")
        with contextlib.closing(cluster.connect(f"template_{name}")) as conn:
            seeds.create_schema(conn, name)


class Databases:
    """Creates databases with unique names."""

    def __init__(self, cluster: PrivateCluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)

    def new(self, schema: str | None = None) -> str:
        """Create a database from one of the three schemas, or an empty one; returns its name."""
        name = f"db_{next(self._numbers)}"
        template = "template1" if schema is None else f"template_{schema}"
        self._cluster.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Drop a database. The server terminates every connection to it."""
        self._cluster.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def toml_section(header: str, **settings: Setting) -> str:
    """One TOML table of a configuration. JSON strings, numbers and lists are valid TOML."""
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()
    ]
    return "\n".join([header, *lines, ""])


def changed_for_a_while(table: str) -> str:
    """SQL that forces a reload of a table and leaves the table unchanged."""
    return f"""ALTER TABLE {table} DISABLE TRIGGER latchkey_truncate,
        ENABLE ALWAYS TRIGGER latchkey_truncate"""


class Installation:
    """An operator's setup around one database. Tests add sources, then serve it."""

    def __init__(
        self,
        cluster: PrivateCluster,
        dbname: str,
        *,
        user: str = PASSWORD_ROLE,
        **database: Setting,
    ) -> None:
        self.cluster = cluster
        self.dbname = dbname
        self._temporary = TemporaryFolder()
        self.folder = self._temporary.path
        self.socket = self.folder / "latchkey.sock"
        self.peppers = self._temporary.subfolder("peppers", 0o700)
        self.password_file = self.folder / "password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(PASSWORD + "\n")
        self.freshness: dict[str, Setting] = dict(RELAXED)
        self.listen: dict[str, Setting] = {"socket": str(self.socket)}
        self.database: dict[str, Setting] = {
            "name": "main",
            "conninfo": cluster.conninfo(dbname, user),
            "password_file": str(self.password_file),
        } | database
        self.more = ""  # TOML sections to append to the configuration
        self._sources: list[dict[str, Setting]] = []
        self.conn = cluster.connect(dbname)
        self.cli = Cli(self.socket)

    def close(self) -> None:
        """Delete the temporary files. The database stays."""
        self.conn.close()
        self._temporary.close()

    # ---- configuration

    def source(self, name: str, **settings: Setting) -> None:
        """Add a [[source]], or replace the one of this name."""
        if "preset" not in settings:
            settings.setdefault("scheme", "plain")  # the configuration has no default for it
        self._sources = [known for known in self._sources if known["name"] != name]
        self._sources.append({"name": name} | settings)

    @property
    def config(self) -> str:
        """The current configuration."""
        sections = [
            toml_section("[listen]", **self.listen),
            toml_section("[freshness]", **self.freshness),
            toml_section("[[database]]", **self.database),
            *(toml_section("[[source]]", **settings) for settings in self._sources),
            self.more,
        ]
        return "\n".join(sections)

    # ---- commands of an operator

    def sql(self, text: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run and commit SQL as the owner of the tables; returns the rows, if any."""
        with self.conn.cursor() as cursor:
            cursor.execute(text, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, text: str, *parameters: Any) -> Any:
        """The one value that a query returns."""
        ((value,),) = self.sql(text, *parameters)
        return value

    def grant(self) -> None:
        """Run the output of `latchkey sql grant`."""
        self.cluster.psql(self.cli.sql("grant", self.config), self.dbname)

    def install(self) -> None:
        """Run the output of `latchkey sql grant`, then that of `latchkey sql install`."""
        printed = self.cli.sql("grant", self.config) + self.cli.sql("install", self.config)
        self.cluster.psql(printed, self.dbname)

    def check(self) -> str:
        """`latchkeyd --check` must succeed; returns its output."""
        return check_config(self.config).expect(0).stdout

    @contextlib.contextmanager
    def serve(self) -> Iterator[Daemon]:
        """Install, and run a daemon from readiness to its orderly end."""
        self.install()
        with Daemon(self.config) as daemon:
            yield daemon

    # ---- questions

    def ask(self, *keys: str | bytes, **terms: Any) -> Verdicts:
        """Verdicts after a `sync`: every earlier commit is in force."""
        self.cli.sync("30s")
        return self.cli.verify(keys, **terms)

    def verdict(self, key: str | bytes, **terms: Any) -> str:
        """The verdict on one key after a `sync`."""
        return self.ask(key, **terms).names[0]

    def claims(self, key: str | bytes, **terms: Any) -> dict[str, Any]:
        """One answer without its age, which depends on the time of the request."""
        (answer,) = self.ask(key, **terms)
        assert isinstance(answer.pop("age_ms"), int)
        return answer

    # ---- counters

    def database_status(self, name: str = "main") -> dict[str, Any]:
        """The part of `status` about one database."""
        return _named(self.cli.status()["databases"], name)

    def source_status(self, name: str) -> dict[str, Any]:
        """The part of `status` about one source."""
        return _named(self.cli.status()["sources"], name)

    def wait_source(self, name: str, **expected: Any) -> None:
        """Wait for values in `status`: the loader publishes counters between two steps, possibly later."""

        def as_expected() -> bool:
            status = self.source_status(name)
            return all(status.get(counter) == value for counter, value in expected.items())

        until(as_expected, 10, f"status of source {name}: {expected}")

    def reload(self, table: str) -> None:
        """Force a reload of a table, which also recounts its odd rows."""
        # A trigger that was altered for a moment may have missed a change, so the loader reloads
        # the table. The notification makes it look at the table before the next heartbeat.
        self.sql(f"""DO $$ BEGIN
            PERFORM set_config('lock_timeout', '20s', true);
            IF EXISTS (SELECT FROM pg_trigger
                       WHERE tgrelid = to_regclass('{table}') AND tgname = 'latchkey_truncate') THEN
                {changed_for_a_while(table)};
            END IF;
        END $$""")
        self.sql("SELECT pg_notify('latchkey', %s)", json.dumps({"t": table, "reload": True}))


@contextlib.contextmanager
def emptied(cluster: PrivateCluster, dbname: str) -> Iterator[Installation]:
    """An installation over a database, which is empty again at the end: that is cheaper than another one."""
    with contextlib.closing(Installation(cluster, dbname)) as site:
        yield site
        ours = r"nspname NOT IN ('information_schema') AND nspname NOT LIKE 'pg\_%'"
        for (schema,) in site.sql(f"SELECT quote_ident(nspname) FROM pg_namespace WHERE {ours}"):
            site.sql(f"DROP SCHEMA {schema} CASCADE")
        site.sql(f"CREATE SCHEMA public; ALTER DATABASE {dbname} RESET ALL")


@contextlib.contextmanager
def one_key(
    cluster: PrivateCluster, databases: Databases, key: str, source: str = "external"
) -> Iterator[Installation]:
    """An installation over external_credentials with one valid key."""
    with contextlib.closing(Installation(cluster, databases.new("external_credentials"))) as site:
        site.source(source, preset="external_credentials")
        seeds.insert_external(site.conn, key, 42)
        site.install()
        yield site


class Keys(Installation):
    """An installation over api_keys, with a tenant, a user and a pepper for new keys."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        self.pepper = seeds.Pepper.random()
        self.pepper.write_to(self.peppers)
        self.source("api_keys", preset="api_keys", peppers=str(self.peppers))
        self.tenant = seeds.insert_tenant(self.conn, "Acme")
        self.user = seeds.insert_user(self.conn)

    def issue(self, token: str, **facts: Any) -> int:
        """Insert a row with the token as its name; returns its id."""
        return seeds.insert_api_key(
            self.conn, self.tenant, self.user, token, token, self.pepper, **facts
        )


def _named(reports: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (report,) = (report for report in reports if report["name"] == name)
    return report


