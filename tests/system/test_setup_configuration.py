"""Mistakes in the configuration: each is refused at once, with its cause and its remedy in one paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from harness.folder import TemporaryFolder
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from installation import PASSWORD, Databases, Keys
from refusals import USAGE, WAYS, Way, assert_refused, correct


@pytest.fixture(scope="module")
def sound(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """A correct installation that no test changes."""
    with correct(cluster, databases) as there:
        yield there


def test_what_is_in_order_is_told_so(sound: Keys) -> None:
    assert "The configuration and its tables are in order." in sound.check()


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
