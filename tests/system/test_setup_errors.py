"""Each setup error is refused at once, with its cause and its remedy in one paragraph."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg2
import pytest
from harness import seeds
from harness.folder import TemporaryFolder
from harness.postgres import PrivateCluster
from harness.programs import Cli, Daemon, check_config
from harness.wait import scaled, until
from installation import PASSWORD, Databases, Installation, Keys, Setting

Way = Literal["check", "start"]
WAYS: tuple[Way, ...] = ("check", "start")

USAGE, WORLD = 2, 1  # exit codes: the configuration is wrong; the system does not match it

# The daemon retries database errors for this long, so most tests wait for it. A slow machine takes
# longer to find the cause, and then gets a longer patience.
PATIENCE_S = (0.3, 2.0, 10.0)
TOO_SHORT = "were not loaded within the time allowed (`start_timeout`)"


def patience(seconds: float) -> str:
    return f"{round(scaled(seconds) * 1000)}ms"


def outcome(config: str | Path, way: Way) -> tuple[int, str]:
    """The exit code, and the complete output."""
    if way == "check":
        done = check_config(config)
        return done.exit_code, done.stdout + done.stderr
    with Daemon(config, wait=False) as daemon:
        code = daemon.wait_exit(20)
        assert daemon.notifications.count("READY=1") == 0
        return code, daemon.log()


def assert_refused(config: str | Path, way: Way, exit_code: int, *said: str) -> str:
    """The start fails with this code, and one line has all these texts. Returns the complete output."""
    code, text = outcome(config, way)
    for short, longer in itertools.pairwise(PATIENCE_S):
        if TOO_SHORT not in text or TOO_SHORT in said or not isinstance(config, str):
            break
        config = config.replace(f'"{patience(short)}"', f'"{patience(longer)}"')
        code, text = outcome(config, way)
    assert code == exit_code, text
    fitting = [line for line in text.splitlines() if all(part in line for part in said)]
    assert fitting, f"no line says all of {said}:\n{text}"
    for word in (PASSWORD, "terminate called", "what():", "Traceback"):
        assert word not in text
    return text


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation over its own database, with a short start timeout."""
    there = Keys(cluster, databases.new("api_keys"))
    there.freshness["start_timeout"] = patience(PATIENCE_S[0])
    there.install()
    yield there
    there.close()


@pytest.fixture(scope="module")
def sound(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation that no test changes."""
    there = Keys(cluster, databases.new("api_keys"))
    there.install()
    yield there
    there.close()


def test_what_is_in_order_is_told_so(sound: Keys) -> None:
    assert "The configuration and its tables are in order." in sound.check()


# ---- the configuration

SPARE = '[[database]]\nname = "spare"\nconninfo = "dbname=spare"\n'

# A regular expression to replace in a correct configuration, the replacement, and the expected texts.
MISTAKES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no TOML": (r"\A", "listen = [\n", ("not valid TOML", "latchkey.toml:")),
    "text that never ends": (r'"100ms"', '"100ms', ("not valid TOML",)),
    "a password in text that never ends": (
        r'conninfo = "(.*)"',
        rf'conninfo = "\1 password={PASSWORD}',
        ("not valid TOML",),
    ),
    "a setting twice": (r"\[freshness\]", '[freshness]\nbound = "1s"', ("not valid TOML", "bound")),
    "a misspelt setting": ("heartbeat", "hartbeat", ("`hartbeat`", "Did you mean `heartbeat`?")),
    "a misspelt setting that is needed": (
        "preset = ",
        "prest = ",
        ("`prest`", "Did you mean `preset`?"),
    ),
    "a misspelt section": (r"\[freshness\]", "[freshnes]", ("Did you mean `freshness`?",)),
    "a misspelt list": (r"\[\[source\]\]", "[[sources]]", ("Did you mean `source`?",)),
    "a setting of another product": (r"\[listen\]", "[listen]\ncolour = 1", ("Known here: ",)),
    "one bracket": (r"\[\[database\]\]", "[database]", ("`database`", "two brackets")),
    "two brackets": (r"\[listen\]", "[[listen]]", ("`listen` must be a table, [listen]",)),
    "a duration without quotes": ('"100ms"', "100", ("`heartbeat` must be a string",)),
    "a duration without unit": ('"100ms"', '"100"', ("`heartbeat`", "a number and a unit")),
    "a negative duration": ('"100ms"', '"-1s"', ("`heartbeat` is no duration",)),
    "a duration too short": ('"100ms"', '"1ms"', ("`heartbeat` is too short", "10ms")),
    "a bound below the heartbeat": ('"10s"', '"150ms"', ("`bound`", "twice `heartbeat`")),
    "a max_stale below the bound": ('"1h"', '"5s"', ("`max_stale`", "shorter than `bound`")),
    "a mode that is a number": (
        r"\[listen\]",
        "[listen]\nmode = 660",
        ("`mode` must be a string",),
    ),
    "a mode in letters": (r"\[listen\]", '[listen]\nmode = "rw"', ("`mode`", '"0660"')),
    "a relative socket": ('socket = "/', 'socket = "', ("`socket`", "absolute path")),
    "a socket too long": ('socket = "/', f'socket = "/{"x" * 107}', ("`socket`", "107 bytes")),
    "a group that is not there": (
        r"\[listen\]",
        '[listen]\ngroup = "nobodys-group"',
        ('no group "nobodys-group"',),
    ),
    "workers in words": (r"\[listen\]", '[listen]\nworkers = "2"', ("`workers`", "whole number")),
    "too many workers": (r"\[listen\]", "[listen]\nworkers = 33", ("`workers`", "1 to 32")),
    "no database": (r"\[\[database\]\]\n(.+\n)+", "", ("no [[database]] is configured",)),
    "no source": (r"\[\[source\]\]\n(.+\n)+", "", ("no [[source]] is configured",)),
    "no conninfo": ("conninfo = .*", "", ("`conninfo` is missing", "dbname=")),
    "an unreadable conninfo": ('conninfo = "', 'conninfo = "hots=x ', ("`conninfo`", "hots")),
    "a password in conninfo": (
        'conninfo = "',
        f'conninfo = "password={PASSWORD} ',
        ("`conninfo` holds a password", "`password_file`"),
    ),
    "a password in a URL": (
        "conninfo = .*",
        f'conninfo = "postgresql://latchkey:{PASSWORD}@localhost/app"',
        ("`conninfo` holds a password", "`password_file`"),
    ),
    "a password in a URL that does not escape it": (
        "conninfo = .*",
        f'conninfo = "postgresql://latchkey:{PASSWORD}/1@localhost/app"',
        ("`conninfo`",),
    ),
    "a password that conninfo does not quote": (
        'conninfo = "',
        f'conninfo = "password=zwei {PASSWORD} ',
        ("`conninfo`",),
    ),
    "no password file": (
        "password_file = .*",
        'password_file = "/nonexistent/file"',
        ("/nonexistent/file", "No such file"),
    ),
    "a password file of systemd's without systemd": (
        "password_file = .*",
        'password_file = "pgpass"',
        ('"pgpass"', "$CREDENTIALS_DIRECTORY", "LoadCredential="),
    ),
    "an unknown preset": (
        'preset = "api_keys"',
        'preset = "api_key"',
        ('no preset "api_key"', "Did you mean `api_keys`?"),
    ),
    "a preset of another product": (
        'preset = "api_keys"',
        'preset = "kong"',
        ('no preset "kong"', "Known here: api_keys, auth_api_key, external_credentials"),
    ),
    "neither preset nor table": ("preset = .*", "", ("`table` is missing", "Name a preset")),
    "a table without schema": ("preset = .*", 'table = "api_keys"', ("`table`", "schema.table")),
    "a table without id": ("preset = .*", 'table = "a.b"\nkey = "k"', ("needs `id`",)),
    "an unknown scheme": ("preset", 'scheme = "md5"\npreset', ("`scheme`", "hmac-sha256")),
    "an unknown encoding": ("preset", 'encoding = "rot13"\npreset', ("`encoding`", "base64")),
    "a column that is a number": ("preset", "tenant = 7\npreset", ("`tenant` must be a string",)),
    "a column that is true": ("preset", "tenant = true\npreset", ("`tenant` must be a string",)),
    "a status that is no list": (
        "preset",
        'status_active = "active"\npreset',
        ("`status_active`", "list of strings"),
    ),
    "no peppers": ("peppers = .*", "", ("`peppers` must name the folder",)),
    "peppers for nothing": (
        "preset = .*",
        'preset = "external_credentials"',
        ("`peppers`", "hmac-sha256"),
    ),
    "a folder of peppers that is not there": (
        "peppers = .*",
        'peppers = "/nonexistent/peppers"',
        ("/nonexistent/peppers", "No such file"),
    ),
    "a source of no database": (
        "preset",
        'database = "mian"\npreset',
        ('no [[database]] named "mian"', "Known: main"),
    ),
    "two sources of one name": (
        r"(\[\[source\]\]\n(?:.+\n)+)",
        r"\1\1",
        ('two sources are named "api_keys"',),
    ),
    "a database that nobody uses": (
        r"\[\[database\]\]([\s\S]*?)preset",
        SPARE + r'[[database]]\1database = "main"\npreset',
        ('"spare"', "Remove it, or add one"),
    ),
    "a source that does not say which database": (
        r"\[\[database\]\]",
        f"{SPARE}[[database]]",
        ('source "api_keys"', "`database` is missing", "main, spare"),
    ),
    "a rule for nobody": (r"\Z", "[[allow]]\nreasons = true\n", ("uid, user, gid or group",)),
    "a rule with a uid in quotes": (r"\Z", '[[allow]]\nuid = "0"\n', ("`uid`", "whole number")),
    "a rule with a word for a flag": (
        r"\Z",
        '[[allow]]\nuid = 0\nreasons = "yes"\n',
        ("`reasons` must be true or false",),
    ),
    "a rule for a source that is not there": (
        r"\Z",
        '[[allow]]\nuid = 0\nsources = ["api_kesy"]\n',
        ('"api_kesy"', "Did you mean `api_keys`?"),
    ),
    "a rule for nothing": (r"\Z", "[[allow]]\nuid = 0\nsources = []\n", ("`sources` is empty",)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("replaced", "by", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_in_the_configuration_is_named_with_its_remedy(
    sound: Keys, way: Way, replaced: str, by: str, said: tuple[str, ...]
) -> None:
    mistaken = re.sub(replaced, by, sound.config, count=1)
    assert mistaken != sound.config
    text = assert_refused(mistaken, way, USAGE, *said)
    assert len(text.splitlines()) == 1, "one paragraph"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), ("", "is empty")],
    ids=["missing", "empty"],
)
def test_a_configuration_that_cannot_be_read_is_named(
    way: Way, content: str | None, said: str
) -> None:
    folder = TemporaryFolder()
    path = folder.path / "latchkey.toml"
    if content is not None:
        path.write_text(content)
    assert_refused(path, way, USAGE, str(path), said, "--config")
    folder.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "holds no *.key, *.hex or *.b64 file"),
        ("readme.txt", b"peppers live here", "holds no *.key, *.hex or *.b64 file"),
        ("v1.key", b"", "is empty"),
        ("v1.hex", b"geheim is not hex", "is not valid hex"),
        ("v1.b64", b"geheim is not base64!", "is not valid base64"),
        ("v1.key", b"geheim" * 1000, "is longer than 4096 bytes"),
    ],
    ids=["empty", "other", "empty key", "hex", "base64", "too long"],
)
def test_a_folder_without_usable_peppers_is_named(
    sound: Keys, way: Way, name: str | None, content: bytes, said: str
) -> None:
    folder = TemporaryFolder()
    if name is not None:
        (folder.path / name).write_bytes(content)
    config = sound.config.replace(str(sound.peppers), str(folder.path))
    assert_refused(config, way, USAGE, str(folder.path), said)
    folder.close()


@pytest.mark.parametrize("arguments", [[], ["--config"], ["--cheque"], ["key"]])
def test_a_wrong_command_line_of_the_daemon_is_a_usage_error(
    sound: Keys, arguments: list[str]
) -> None:
    with Daemon(sound.config, arguments=arguments or ["--no"], wait=False) as daemon:
        assert daemon.wait_exit() == USAGE
        assert daemon.log() and daemon.notifications == []


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


# ---- the socket's path


@pytest.fixture(scope="module")
def placed(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """An installation with a socket path that a test may occupy; the test frees it again."""
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("external", preset="external_credentials")
    seeds.insert_external(there.conn, "sk_placed", 1)
    there.install()
    yield there
    there.close()


@contextlib.contextmanager
def listening(path: Path, reply: bytes | None = None) -> Iterator[None]:
    """Another program on a socket. It answers each connection with `reply`, then closes it."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):  # shutdown() ends it with an error
                while True:
                    connection, _ = server.accept()
                    with connection:
                        if reply:
                            connection.recv(1)
                            connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


@contextlib.contextmanager
def plain_file(path: Path) -> Iterator[None]:
    path.write_text("precious")
    yield
    assert path.read_text() == "precious"
    path.unlink()


@contextlib.contextmanager
def folder(path: Path) -> Iterator[None]:
    path.mkdir()
    yield
    path.rmdir()


@contextlib.contextmanager
def symlink(path: Path) -> Iterator[None]:
    """A program that followed the link would delete or replace its target."""
    target = path.with_name("target")
    target.write_text("precious")
    path.symlink_to(target)
    yield
    assert path.is_symlink() and target.read_text() == "precious"
    path.unlink()
    target.unlink()


@contextlib.contextmanager
def symlink_to_a_stale_socket(path: Path) -> Iterator[None]:
    target = path.with_name("target")
    make_stale(target)
    path.symlink_to(target)
    yield
    assert path.is_symlink() and target.is_socket()
    path.unlink()
    target.unlink()


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(path))


OCCUPIED: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "a plain file": (plain_file, ("is not a socket", "Move it away")),
    "a folder": (folder, ("is not a socket", "Move it away")),
    "a symbolic link": (symlink, ("is not a socket", "Move it away")),
    "a link to a socket": (symlink_to_a_stale_socket, ("is not a socket", "Move it away")),
    "another program": (listening, ("some other program listens", "Stop it first")),
}


@pytest.mark.parametrize(("occupy", "said"), OCCUPIED.values(), ids=OCCUPIED.keys())
def test_what_stands_at_the_sockets_path_is_named_and_stays(
    placed: Installation, occupy: Callable[[Path], Any], said: tuple[str, ...]
) -> None:
    with occupy(placed.socket):
        assert_refused(placed.config, "start", WORLD, str(placed.socket), *said)


def test_a_second_instance_is_refused_and_harms_the_first_in_nothing(placed: Installation) -> None:
    with Daemon(placed.config):
        assert_refused(
            placed.config, "start", WORLD, "another latchkeyd serves", str(placed.socket), "Stop it"
        )
        assert placed.verdict("sk_placed") == "valid"


@pytest.mark.parametrize("way", ["missing", "a file"])
def test_a_folder_that_is_not_there_is_named(placed: Installation, way: str) -> None:
    parent = placed.folder / "nowhere"
    if way == "a file":
        parent.touch()
    config = placed.config.replace(str(placed.socket), str(parent / "latchkey.sock"))
    assert_refused(config, "start", WORLD, str(parent), "Does the folder exist")
    parent.unlink(missing_ok=True)


def test_a_socket_that_nobody_listens_on_is_taken_over(placed: Installation) -> None:
    make_stale(placed.socket)
    with Daemon(placed.config):
        assert placed.verdict("sk_placed") == "valid"
    assert not placed.socket.exists()


def test_a_killed_daemon_can_be_started_again(placed: Installation) -> None:
    with Daemon(placed.config) as daemon:
        for _ in range(2):
            daemon.kill()
            assert placed.socket.is_socket(), "it could not clean up"
            placed.cli.ping(expect=3)
            daemon.start().wait_ready()
            assert placed.verdict("sk_placed") == "valid"


@pytest.mark.parametrize("mode", ["0600", "0660", "0666"])
def test_the_socket_has_the_mode_configured(placed: Installation, mode: str) -> None:
    config = placed.config.replace("[listen]", f'[listen]\nmode = "{mode}"')
    with Daemon(config):
        assert placed.socket.stat().st_mode & 0o777 == int(mode, 8)


# ---- SQL for operators


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


# ---- latchkey's own command line

NOWHERE = Path("/nonexistent/latchkey.sock")

MISUSES: list[tuple[str, ...]] = [
    (),
    ("--json",),
    ("veryfy",),
    ("--verbose", "ping"),
    ("ping", "--force"),
    ("ping", "verify"),
    ("--socket",),
    ("verify", "--scope"),
    ("verify", "--scope", ""),
    ("verify", "--scope", "s" * 256),
    ("verify", *(part for i in range(33) for part in ("--scope", f"s{i}"))),
    ("verify", *(part for i in range(33) for part in ("--any-scope", f"s{i}"))),
    ("verify", "--source", "s" * 64),
    ("verify", "--max-age", "5"),
    ("verify", "--max-age", "-5s"),
    ("verify", "--max-age", "soon"),
    ("sync", "--timeout", "0s"),
    ("sync", "--timeout", "61s"),
    ("sync", "--timeout", "later"),
    ("mint",),
    ("mint", "--prefix", ""),
    ("mint", "--prefix", "with space"),
    ("mint", "--prefix", "p" * 33),
    ("mint", "--prefix", "p", "--count", "0"),
    ("mint", "--prefix", "p", "--count", "many"),
    ("mint", "--prefix", "p", "--source", "api_keys"),
    ("mint", "--prefix", "p", "--config", "/nonexistent"),
    ("sql",),
    ("sql", "install"),
    ("sql", "drop", "--config", "/nonexistent"),
    ("sql", "install", "--config", "/nonexistent"),
    ("sql", "install", "--config", "/"),
    ("sql", "install", "uninstall", "--config", "/nonexistent"),
]


@pytest.mark.parametrize("arguments", MISUSES, ids=" ".join)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    done = Cli(NOWHERE).run(*arguments, stdin=b"key\n").expect(2)
    assert done.stdout == ""
    assert done.stderr.startswith("latchkey: ") and len(done.stderr.splitlines()) == 1


def test_sql_for_a_source_that_is_not_there_is_a_usage_error(sound: Keys) -> None:
    path = sound.folder / "sound.toml"
    path.write_text(sound.config)
    for arguments in (("sql", "install"), ("mint", "--prefix", "p")):
        done = Cli(NOWHERE).run(*arguments, "--config", str(path), "--source", "api_kesy").expect(2)
        assert done.stdout == "" and '"api_kesy"' in done.stderr


def test_no_key_at_all_is_a_usage_error(served: Installation) -> None:
    done = served.cli.run("--socket", str(served.socket), "verify", stdin=b"").expect(2)
    assert done.stdout == "" and "no key on standard input" in done.stderr


PRECIOUS = "sk_live_Precious9PreciousPrecious4PreciousPrecious"

SLIPS: list[tuple[str, ...]] = [
    (PRECIOUS,),
    (PRECIOUS, "verify"),
    ("verify", PRECIOUS),
    ("verify", "--", PRECIOUS),
    ("verify", "--scope", "read", PRECIOUS),
    ("verify", "--metadata", PRECIOUS),
    ("verify", "--max-age", PRECIOUS),
    ("verify", f"--{PRECIOUS}"),
    ("verify", f"--metadata={PRECIOUS}"),
    ("verify", "--key", PRECIOUS),
    ("why", PRECIOUS),
    ("why", "--scope", "read", PRECIOUS),
    ("why", "--max-age", PRECIOUS),
    ("ping", PRECIOUS),
    ("status", PRECIOUS),
    ("sync", PRECIOUS),
    ("sync", "--timeout", PRECIOUS),
    ("mint", PRECIOUS),
    ("mint", "--prefix", PRECIOUS),
    ("mint", "--prefix", "p", "--count", PRECIOUS),
    ("sql", PRECIOUS),
    ("sql", PRECIOUS, "--config", "/nonexistent"),
    (f"--json={PRECIOUS}", "ping"),
]


@pytest.mark.parametrize("arguments", SLIPS, ids=" ".join)
def test_an_argument_that_may_be_a_key_is_never_repeated(arguments: tuple[str, ...]) -> None:
    done = Cli(NOWHERE).run(*arguments, stdin=b"key\n").expect(2)
    assert PRECIOUS not in done.stdout + done.stderr
    assert done.stderr.startswith("latchkey: ")


COMMANDS = [("verify",), ("why",), ("sync",), ("ping",), ("status",)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("there", ["nothing", "no folder", "stale", "plain", "folder", "long"])
def test_where_no_daemon_answers_there_is_no_answer(command: tuple[str, ...], there: str) -> None:
    temporary = TemporaryFolder()
    path = temporary.path / "latchkey.sock"
    if there == "stale":
        make_stale(path)
    elif there == "plain":
        path.touch()
    elif there == "folder":
        path.mkdir()
    elif there == "no folder":
        path = path / "latchkey.sock"
    elif there == "long":
        path = path / ("x" * 108)
    done = Cli(path).run("--socket", str(path), *command, stdin=b"sk_key\n").expect(3)
    assert done.stdout == "" and str(path) in done.stderr and "sk_key" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    temporary.close()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x01",
        b"\x01\x82\0\0\x10\0\0\0" + bytes(8),  # a reply to another request
        b"\x01\x81\0\0\xff\xff\xff\xff" + bytes(8),  # a frame of four gigabytes
        b"\x01\xff\0\0\x12\0\0\0" + bytes(10),  # error zero
    ],
    ids=["nothing", "HTTP", "one byte", "another", "too long", "no error"],
)
def test_what_is_no_latchkeyd_gives_no_answer(
    command: tuple[str, ...], reply: bytes | None
) -> None:
    temporary = TemporaryFolder()
    path = temporary.path / "latchkey.sock"
    with listening(path, reply):
        done = Cli(path).run("--socket", str(path), *command, stdin=b"sk_key\n").expect(3)
    assert done.stdout == "" and str(path) in done.stderr and len(done.stderr.splitlines()) == 1
    temporary.close()


@pytest.fixture(scope="module")
def served(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A daemon with one key, for the client's options."""
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("external", preset="external_credentials")
    seeds.insert_external(there.conn, "sk_served", 1)
    with there.serve():
        yield there
    there.close()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("where", ["before", "behind", "around", "environment", "both"])
def test_common_options_stand_before_or_behind_the_command(
    served: Installation, command: tuple[str, ...], where: str
) -> None:
    path = ["--socket", str(served.socket)]
    arguments: list[str] = {
        "before": ["--json", *path, *command],
        "behind": [*command, "--json", *path],
        "around": [*path, *command, "--json"],
        "environment": [*command, "--json"],
        "both": [*path, *command, "--json"],
    }[where]
    env = {
        "environment": {"LATCHKEY_SOCKET": str(served.socket)},
        "both": {"LATCHKEY_SOCKET": str(NOWHERE)},  # the option takes precedence
    }.get(where)
    done = served.cli.run(*arguments, stdin=b"sk_served\n", env=env).expect(0)
    (answer,) = done.json_lines()
    assert answer and done.stderr == ""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_json_people_are_told_in_words(
    served: Installation, command: tuple[str, ...]
) -> None:
    done = served.cli.run("--socket", str(served.socket), *command, stdin=b"sk_served\n").expect(0)
    assert done.stdout and done.stderr == ""
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)


def test_a_source_that_may_be_a_key_is_not_repeated_by_the_daemon(served: Installation) -> None:
    done = served.cli.run(
        "--socket", str(served.socket), "verify", "--source", PRECIOUS, stdin=b"sk_served\n"
    )
    assert done.exit_code == 2 and PRECIOUS not in done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_socket_that_may_not_be_opened_says_how_to_change_that(served: Installation) -> None:
    done = served.cli.run("--socket", str(served.socket), "ping", uid=4001).expect(3)
    assert "may not open it" in done.stderr and "`mode`" in done.stderr
