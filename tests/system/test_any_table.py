"""Tables of any shape: the configuration maps columns to roles."""

from __future__ import annotations

import base64
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import check_config
from harness.wait import until
from installation import Databases, Installation, Keys, Setting


@pytest.fixture(scope="module")
def scratch(databases: Databases) -> str:
    """One database for all tests that need an empty one: emptying it is cheaper than creating another."""
    return databases.new()


@pytest.fixture
def site(cluster: PrivateCluster, scratch: str) -> Iterator[Installation]:
    site = Installation(cluster, scratch)
    yield site
    ours = r"nspname NOT IN ('information_schema') AND nspname NOT LIKE 'pg\_%'"
    for (schema,) in site.sql(f"SELECT quote_ident(nspname) FROM pg_namespace WHERE {ours}"):
        site.sql(f"DROP SCHEMA {schema} CASCADE")
    site.sql(f"CREATE SCHEMA public; ALTER DATABASE {scratch} RESET ALL")
    site.close()


# ---- ids

ODD_IDS = [
    "plain",
    "",
    " ",
    "two words",
    "comma, semicolon;",
    "{brace}",
    '"quoted"',
    "'single'",
    "back\\slash",
    '\\"both\\"',
    "NULL",
    "null",
    "tab\tline\nbreak\r",
    "ünï©ode → 😀",
    "\\u0041",
    "%s $1 :name ?",
    "🔑" * 400,
    "x" * 1500,
]


def table_with_ids(site: Installation, id_type: str) -> None:
    site.sql(f"CREATE TABLE public.t (id {id_type} PRIMARY KEY, key text, off timestamptz)")
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")


@pytest.fixture(scope="module")
def odd_ids(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new())
    table_with_ids(site, "text")
    for number, odd in enumerate(ODD_IDS):
        site.sql("INSERT INTO t VALUES (%s, %s)", odd, f"loaded {number}")
    with site.serve():
        yield site
    site.close()


@pytest.mark.parametrize("number", range(len(ODD_IDS)), ids=lambda n: repr(ODD_IDS[n])[:20])
def test_any_text_may_be_an_id(odd_ids: Installation, number: int) -> None:
    """The id passes unchanged through the load, the notification, the re-read and the answer."""
    odd, key = ODD_IDS[number], f"loaded {number}"
    answer = odd_ids.claims(key)
    assert answer["verdict"] == "valid" and answer.get("key_id", "") == odd
    odd_ids.sql("UPDATE t SET off = now() WHERE id = %s", odd)
    assert odd_ids.verdict(key) == "revoked"
    odd_ids.sql("UPDATE t SET off = NULL, key = %s WHERE id = %s", f"again {number}", odd)
    assert odd_ids.ask(key, f"again {number}").names == ["unknown", "valid"]
    odd_ids.sql("DELETE FROM t WHERE id = %s", odd)
    assert odd_ids.verdict(f"again {number}") == "unknown"
    assert odd_ids.source_status("t")["malformed_ids"] == 0


@pytest.mark.parametrize(
    ("id_type", "ids"),
    [
        ("uuid", [str(uuid.UUID(int=i)) for i in (0, 1, 2**128 - 1)]),
        ("smallint", ["-32768", "0", "32767"]),
        ("integer", ["-2147483648", "1", "2147483647"]),
        ("bigint", ["-9223372036854775808", "7", "9223372036854775807"]),
        ("numeric", ["12345678901234567890123", "1.50", "-1"]),
        ("varchar(40)", ["a", "B b", "NULL"]),
        ("char(8)", ["short", "exactly8", "a b"]),
        ("bytea", ["\\x00ff", "\\x", "\\x5c22"]),
        ("date", ["2024-02-29", "infinity", "0044-03-15 BC"]),
        ("inet", ["10.0.0.1", "::1", "10.0.0.0/8"]),
    ],
)
def test_a_unique_column_of_any_type_may_be_the_id(
    site: Installation, id_type: str, ids: list[str]
) -> None:
    table_with_ids(site, id_type)
    keys = [f"key of {row_id}" for row_id in ids]
    site.sql("INSERT INTO t VALUES (%s, %s)", ids[0], keys[0])
    with site.serve():
        for row_id, key in zip(ids[1:], keys[1:], strict=True):
            site.sql("INSERT INTO t VALUES (%s, %s)", row_id, key)
        answers = site.ask(*keys)
        assert answers.names == ["valid"] * 3
        assert [answer["key_id"] for answer in answers] == ids
        site.sql("UPDATE t SET off = now()")
        assert site.ask(*keys).names == ["revoked"] * 3
        site.sql("DELETE FROM t")
        assert site.ask(*keys).names == ["unknown"] * 3
        assert site.source_status("t")["malformed_ids"] == 0


# ---- names

ODD_NAMES = ["Mixed Case", 'quo"te', "o'clock", "back\\slash", "dot.ted", "$$", "ünïcode", "SELECT"]


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_schemas_tables_and_columns_of_any_name(site: Installation, odd: str) -> None:
    quoted = '"' + odd.replace('"', '""') + '"'
    site.sql(f"CREATE SCHEMA {quoted}")
    site.sql(
        f"""CREATE TABLE {quoted}.{quoted} ({quoted} int PRIMARY KEY, "{{K}} key" text,
                                            "Off At" timestamptz)"""
    )
    site.source("odd", table=f"{quoted}.{quoted}", id=odd, key="{K} key", revoked_at="Off At")
    site.sql(f"INSERT INTO {quoted}.{quoted} VALUES (1, 'k1'), (2, 'k2')")
    with site.serve():
        site.sql(f'UPDATE {quoted}.{quoted} SET "Off At" = now() WHERE {quoted} = 2')
        assert site.ask("k1", "k2").names == ["valid", "revoked"]
        site.sql(f"TRUNCATE {quoted}.{quoted}")
        assert site.verdict("k1") == "unknown"
    site.cluster.psql(site.cli.sql("uninstall", site.config), site.dbname)
    assert site.value("SELECT to_regnamespace('latchkey')") is None


def test_tables_whose_names_differ_late_do_not_share_triggers(site: Installation) -> None:
    """PostgreSQL cuts names after 63 bytes: names derived from two long names must still differ."""
    for last in "ab":
        table = "t" * 62 + last
        site.sql(f"CREATE TABLE public.{table} (id int PRIMARY KEY, key text)")
        site.source(f"source_{last}", table=f"public.{table}", id="id", key="key")
    with site.serve():
        for last in "ab":
            site.sql(f"INSERT INTO public.{'t' * 62}{last} VALUES (1, 'key {last}')")
        answers = site.ask("key a", "key b")
        assert [answer.get("source") for answer in answers] == ["source_a", "source_b"]
    site.cluster.psql(site.cli.sql("uninstall", site.config, "source_a"), site.dbname)
    assert site.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'latchkey%%'") == 4


# ---- how keys are stored

SHA = hashlib.sha256(b"the key").digest()
HEX, B64 = SHA.hex(), base64.b64encode(SHA).decode()
B64URL = base64.urlsafe_b64encode(SHA).decode()


@pytest.mark.parametrize(
    ("encoding", "column", "stored"),
    [
        ("raw", "bytea", SHA),
        ("hex", "text", HEX),
        ("hex", "text", HEX.upper()),
        ("hex", "char(64)", HEX),
        ("hex", "varchar(100)", HEX),
        ("base64", "text", B64),
        ("base64", "text", B64.rstrip("=")),
        ("base64", "text", B64URL),
        ("base64", "text", B64URL.rstrip("=")),
    ],
)
def test_sha256_in_each_encoding(
    site: Installation, encoding: str, column: str, stored: str | bytes
) -> None:
    site.sql(f"CREATE TABLE t (id int PRIMARY KEY, digest {column}, note text)")
    site.source(
        "t", table="public.t", id="id", key="digest", scheme="sha256", encoding=encoding
    )
    site.sql("INSERT INTO t VALUES (1, %s)", stored)
    with site.serve():
        assert site.ask("the key", "another key", HEX, B64).names == ["valid"] + ["unknown"] * 3
        # The same through a notification instead of the load.
        site.sql("UPDATE t SET digest = NULL")
        assert site.verdict("the key") == "unknown"
        site.sql("UPDATE t SET digest = %s", stored)
        assert site.verdict("the key") == "valid"


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("hex", HEX[:-1]),
        ("hex", HEX + "00"),
        ("hex", "\\x" + HEX),
        ("hex", " " + HEX),
        ("hex", "g" + HEX[1:]),
        ("base64", B64[:-2]),
        ("base64", B64 + "AA"),
        ("base64", "sha256:" + B64),
        ("base64", B64 + "\n"),
        ("base64", "!" + B64[1:]),
        ("base64", "===="),
    ],
)
def test_what_is_no_digest_is_counted_and_never_matches(
    site: Installation, encoding: str, stored: str
) -> None:
    site.sql("CREATE TABLE t (id int PRIMARY KEY, digest text)")
    site.source(
        "t", table="public.t", id="id", key="digest", scheme="sha256", encoding=encoding
    )
    site.sql("INSERT INTO t VALUES (1, %s)", stored)
    with site.serve():
        assert site.ask("the key", stored.strip() or "x").names == ["unknown", "unknown"]
        assert site.source_status("t")["odd_rows"] == {"bad_digest": 1}


@pytest.mark.parametrize("versioned", [True, False])
def test_hmac_in_hex_with_and_without_a_version_column(
    site: Installation, versioned: bool
) -> None:
    peppers = [seeds.Pepper.random(f"pepper_v{i}") for i in (1, 2)]
    for pepper in peppers:
        pepper.write_to(site.peppers)
    site.sql("CREATE TABLE t (id int PRIMARY KEY, digest text, version text)")
    settings: dict[str, Setting] = {"key_version": "version"} if versioned else {}
    site.source(
        "t",
        table="public.t",
        id="id",
        key="digest",
        scheme="hmac-sha256",
        encoding="hex",
        peppers=str(site.peppers),
        **settings,
    )
    for number, pepper in enumerate(peppers):
        digest = pepper.digest(f"key {number}").hex()
        site.sql("INSERT INTO t VALUES (%s, %s, %s)", number, digest, pepper.name)
    with site.serve():
        assert site.ask("key 0", "key 1", "key 2").names == ["valid", "valid", "unknown"]
        assert site.source_status("t")["odd_rows"] == {}
        hits = site.source_status("t")["accepted_by_pepper"]
        assert hits == {"pepper_v1.key": 1, "pepper_v2.key": 1}


# ---- flags, scopes, times


def one_row(site: Installation, column: str, value: str, **settings: Setting) -> None:
    """A table with this `odd` column; its value is written as in SQL."""
    site.sql(f"CREATE TABLE t (id int PRIMARY KEY, key text, odd {column})")
    site.sql(f"INSERT INTO t VALUES (1, 'the key', {value}), (2, 'other key', {value})")
    site.source("t", table="public.t", id="id", key="key", **settings)


def set_odd(site: Installation, value: str) -> None:
    site.sql(f"UPDATE t SET odd = {value} WHERE id = 1")


@pytest.mark.parametrize(
    ("role", "column", "verdicts"),
    [
        ("enabled", "boolean", {"true": "valid", "false": "disabled", "NULL": "disabled"}),
        ("revoked_at", "boolean", {"false": "valid", "true": "revoked", "NULL": "revoked"}),
        ("disabled_at", "boolean", {"false": "valid", "true": "disabled", "NULL": "disabled"}),
        ("deleted_at", "boolean", {"false": "valid", "true": "deleted", "NULL": "deleted"}),
        ("revoked_at", "date", {"NULL": "valid", "'2999-01-01'": "revoked"}),
        ("disabled_at", "timestamp", {"NULL": "valid", "now()": "disabled"}),
        ("deleted_at", "bigint", {"NULL": "valid", "1700000000": "deleted"}),
    ],
)
def test_flags_and_moments(
    site: Installation, role: str, column: str, verdicts: dict[str, str]
) -> None:
    """A value not known to be good refuses the key, so a flag that is NULL refuses too."""
    one_row(site, column, next(iter(verdicts)), **{role: "odd"})
    with site.serve():
        for value, verdict in [*verdicts.items(), next(iter(verdicts.items()))]:
            set_odd(site, value)
            assert site.ask("the key", "other key").names == [verdict, "valid"]


@pytest.mark.parametrize("role", ["revoked_at", "disabled_at", "deleted_at"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("bigint DEFAULT 0", "0"),
        ("bigint NOT NULL", "0"),
        ("int DEFAULT NULL::int + 0", "NULL"),
        ("smallint", "0"),
        ("text", "'false'"),
        ("varchar(5)", "''"),
        ("jsonb", "'false'"),
        ("numeric", "0"),
        ("interval", "NULL"),
        ("time", "NULL"),
        ("boolean[]", "NULL"),
        ("bytea", "NULL"),
    ],
)
def test_what_may_say_no_by_another_value_than_null_is_no_moment(
    site: Installation, role: str, column: str, value: str
) -> None:
    """A column of this type would refuse every key: NULL is not its only value for "no"."""
    one_row(site, column, value, **{role: "odd"})
    site.install()
    checked = check_config(site.config).expect(1).stdout
    assert "L109" in checked and f"{role} must be" in checked


def test_a_domain_over_a_flag_is_a_flag(site: Installation) -> None:
    site.sql("CREATE DOMAIN flag AS boolean; CREATE DOMAIN more AS flag NOT NULL DEFAULT false")
    one_row(site, "more", "false", deleted_at="odd")
    with site.serve():
        assert site.verdict("the key") == "valid"
        set_odd(site, "true")
        assert site.ask("the key", "other key").names == ["deleted", "valid"]


@pytest.mark.parametrize("value", ["0", "1", "'0'"])
def test_enum_like_numbers_may_be_a_status(site: Installation, value: str) -> None:
    one_row(
        site, "int", "1", status="odd", status_active=["1"], status_revoked=[], status_disabled=[]
    )
    with site.serve():
        set_odd(site, value)
        assert site.verdict("the key") == ("valid" if value == "1" else "disabled")


def test_an_enum_type_may_be_a_status(site: Installation) -> None:
    site.sql("CREATE TYPE mood AS ENUM ('on', 'off', 'o''ops\\')")
    one_row(
        site,
        "mood",
        "'on'",
        status="odd",
        status_active=["on"],
        status_disabled=["off", "nonsense"],
        status_revoked=["o'ops\\"],
    )
    with site.serve():
        for value, verdict in (("'off'", "disabled"), ("'o''ops\\'", "revoked"), ("'on'", "valid")):
            set_odd(site, value)
            assert site.verdict("the key") == verdict


@pytest.mark.parametrize(
    ("column", "value", "scope"),
    [
        ("text", "'read write'", "read write"),
        ("text", "' read  write '", "read write"),
        ("text", "'read,write, admin'", "read write admin"),
        ("text", "E'read\\twrite\\nadmin'", "read write admin"),
        ("text", "''", ""),
        ("text", "NULL", ""),
        ("text[]", "'{read,write}'", "read write"),
        ("text[]", "'{}'", ""),
        ("text[]", "NULL", ""),
        ("text[]", "ARRAY['read', NULL]", None),
        ("text[]", "ARRAY['read', '', 'a b']", "read"),
        ("text[]", "ARRAY[['read'], ['write']]", None),
        ("varchar(20)[]", "'{read,\"wr\\\\ite\"}'", "read wr\\ite"),
        ("json", "'[\"read\", \"write\"]'", "read write"),
        ("json", "' [ \"re\\u0061d\" ] '", "read"),
        ("jsonb", "NULL", ""),
    ],
)
def test_scopes_of_any_type(
    site: Installation, column: str, value: str, scope: str | None
) -> None:
    one_row(site, column, "NULL", scopes="odd")
    with site.serve():
        set_odd(site, value)
        answer = site.claims("the key")
        assert answer["verdict"] == ("disabled" if scope is None else "valid")
        assert answer.get("scope") == scope


NOW = int(os.environ["LATCHKEY_TESTS_NOW"])
SOON, PAST = NOW + 5000, NOW - 5000


def in_zone(epoch: int, zone: str) -> str:
    return f"to_timestamp({epoch}) AT TIME ZONE '{zone}'"


@pytest.mark.parametrize(
    ("column", "value", "zone", "exp"),
    [
        ("bigint", str(SOON), "UTC", SOON),
        ("bigint", str(PAST), "UTC", PAST),
        ("integer", "2147483647", "UTC", 2_147_483_647),
        ("bigint", "0", "UTC", 0),
        ("bigint", "NULL", "UTC", None),
        ("date", "'2999-12-31'", "UTC", 32_503_593_600),
        ("date", "'2999-12-31'", "Asia/Tokyo", 32_503_593_600 - 9 * 3600),
        ("date", "'2001-01-01'", "UTC", 978_307_200),
        ("date", "'infinity'", "UTC", None),
        ("timestamptz", f"to_timestamp({SOON})", "Asia/Tokyo", SOON),
        ("timestamp", in_zone(SOON, "UTC"), "UTC", SOON),
        ("timestamp", in_zone(PAST, "UTC"), "UTC", PAST),
        ("timestamp", in_zone(SOON, "Asia/Tokyo"), "Asia/Tokyo", SOON),
        ("timestamp", in_zone(PAST, "Asia/Tokyo"), "Asia/Tokyo", PAST),
        ("timestamp", in_zone(SOON, "America/Lima"), "America/Lima", SOON),
        ("timestamp", in_zone(PAST, "America/Lima"), "America/Lima", PAST),
        ("timestamp(0)", "'infinity'", "America/Lima", None),
    ],
)
def test_expiry_in_any_type_and_zone(
    site: Installation, column: str, value: str, zone: str, exp: int | None
) -> None:
    one_row(site, column, "NULL", expires_at="odd", time_zone=zone)
    # The time zone of the server or of the role must not matter.
    site.sql(f"ALTER DATABASE {site.dbname} SET timezone = 'Pacific/Kiritimati'")
    with site.serve():
        set_odd(site, value)
        answer = site.claims("the key")
        assert answer.get("exp") == exp
        assert answer["verdict"] == ("valid" if exp is None or exp > NOW else "expired")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("bigint", "9223372036854775807"),
        ("bigint", "-9223372036854775808"),
        ("bigint", "99999999999999"),
        ("date", "'5874897-12-31'"),
        ("timestamp", "'294276-12-31 23:59:59'"),
        ("timestamp", "'4714-11-24 00:00:00 BC'"),
    ],
)
@pytest.mark.parametrize("role", ["expires_at", "not_before"])
def test_a_time_beyond_all_dates_harms_no_other_row(
    site: Installation, column: str, value: str, role: str
) -> None:
    """An application's "never" may be a number that PostgreSQL reads as an invalid time."""
    zone = "America/Lima" if not value.startswith("'4714") else "Asia/Tokyo"
    one_row(site, column, "NULL", time_zone=zone, **{role: "odd"})
    site.sql(f"INSERT INTO t VALUES (3, 'odd from the start', {value})")
    with site.serve():
        set_odd(site, value)
        site.sql("INSERT INTO t VALUES (4, 'late key', NULL)")
        assert site.ask("other key", "late key").names == ["valid", "valid"]
        assert site.verdict("the key") == site.verdict("odd from the start")


@pytest.mark.parametrize("column", ["bigint", "bigint CHECK (odd <> 5)"])
@pytest.mark.parametrize(
    ("value", "expires", "begins"),
    [
        ("0", "expired", "valid"),
        ("7258118400", "valid", "not_yet_valid"),
        ("7258118401", "disabled", "disabled"),
        ("1900000000000", "disabled", "disabled"),  # milliseconds
        ("1900000000000000", "disabled", "disabled"),
        ("1900000000000000000", "disabled", "disabled"),
        ("-1", "disabled", "disabled"),
    ],
)
def test_an_integer_that_counts_no_seconds_refuses(
    site: Installation, column: str, value: str, expires: str, begins: str
) -> None:
    """Read as seconds, milliseconds would be a time tens of thousands of years from now: the key
    would never expire.
    """
    site.sql(f"CREATE TABLE t (id int PRIMARY KEY, key text, odd {column})")
    site.sql(f"INSERT INTO t VALUES (1, 'from the start', {value})")
    for source, role in {"a": "expires_at", "b": "not_before"}.items():
        site.source(source, table="public.t", id="id", key="key", **{role: "odd"})
    with site.serve():
        site.sql(f"INSERT INTO t VALUES (2, 'later', {value})")
        for key in ("from the start", "later"):
            for source, verdict in {"a": expires, "b": begins}.items():
                assert site.cli.verify(key, source=source).names == [verdict]
        odd = {source: site.source_status(source)["odd_rows"] for source in "ab"}
        told = {"unreadable_time": 1} if expires == "disabled" else {}
        assert odd == {"a": told, "b": told}


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ('{"scopes":["read"],"comment":"may not use admin api"}', None),
        ('["read","write"]', "read write"),
        ("{read,admin}", None),
        ("read admin", "read admin"),
    ],
)
def test_text_that_begins_like_json_is_json(
    site: Installation, text: str, scopes: str | None
) -> None:
    one_row(site, "text", "NULL", scopes="odd")
    with site.serve():
        set_odd(site, f"'{text}'")
        verdict = "disabled" if scopes is None else "valid"
        assert site.ask("the key").names == [verdict]
        assert site.claims("the key").get("scope") == scopes
        wanted = site.cli.verify("the key", scopes=["admin"]).names
        expected = "insufficient_scope" if "admin" not in (scopes or "").split() else "valid"
        assert wanted == ["disabled" if scopes is None else expected]


def test_no_row_changes_what_another_says(site: Installation) -> None:
    """The text of one row must not be found as the interned scopes of another row."""
    one_row(site, "text", "NULL", scopes="odd")
    with site.serve():
        site.sql("UPDATE t SET odd = 'admin ' || chr(2) WHERE id = 2")
        assert site.ask("other key").names == ["valid"]
        site.sql("UPDATE t SET odd = chr(1) || 'admin ' WHERE id = 1")
        assert site.ask("the key").names == ["valid"]
        assert site.cli.verify("the key", scopes=["admin"]).names == ["insufficient_scope"]


@pytest.mark.parametrize("order", ["a b", "b a"])
def test_twins_refuse_whatever_the_order_of_sources_and_peppers(
    site: Installation, order: str
) -> None:
    """The key is good in source a, and is stored twice in b, once under each pepper."""
    old, new = (seeds.Pepper.random(f"pepper_{name}") for name in ("1", "2"))
    for pepper in (old, new):
        pepper.write_to(site.peppers)
    site.sql("CREATE TABLE a (id int PRIMARY KEY, digest text); CREATE TABLE b (LIKE a, off bool)")
    site.sql("ALTER TABLE b ADD PRIMARY KEY (id)")
    site.sql("INSERT INTO a VALUES (1, %s)", hashlib.sha256(b"k").hexdigest())
    site.sql("INSERT INTO b VALUES (1, %s, false), (2, %s, false)",
             old.digest("k").hex(), new.digest("k").hex())  # fmt: skip
    terms: dict[str, Setting] = {"id": "id", "key": "digest", "encoding": "hex"}
    for name in order.split():
        hashed: dict[str, Setting] = {"scheme": "hmac-sha256", "peppers": str(site.peppers)}
        own = {"scheme": "sha256"} if name == "a" else hashed | {"revoked_at": "off"}
        site.source(name, table=f"public.{name}", **terms, **own)
    with site.serve():
        assert site.verdict("k") == "disabled"
        site.sql("UPDATE b SET off = true WHERE id = 2")
        assert site.verdict("k") == "revoked"
        site.sql("DELETE FROM b WHERE id = 1")
        assert site.verdict("k") == "revoked"
        site.sql("UPDATE b SET off = false")
        assert site.verdict("k") == "valid"


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("NULL", "valid"),
        ("now() - interval '1 minute'", "valid"),
        ("now() + interval '1 hour'", "not_yet_valid"),
        ("'infinity'", "not_yet_valid"),
        ("'-infinity'", "valid"),
    ],
)
def test_not_before(site: Installation, value: str, verdict: str) -> None:
    one_row(site, "timestamptz", "NULL", not_before="odd")
    with site.serve():
        set_odd(site, value)
        answers = site.ask("the key")
        assert answers.names == [verdict] and answers.exit_code == (0 if verdict == "valid" else 1)


def test_a_key_becomes_valid_by_itself(site: Installation) -> None:
    one_row(site, "timestamptz", "NULL", not_before="odd")
    with site.serve():
        start = site.value(
            """UPDATE t SET odd = clock_timestamp() + interval '700 milliseconds' WHERE id = 1
               RETURNING extract(epoch FROM odd)::float8"""
        )
        assert site.verdict("the key") == "not_yet_valid" or time.time() >= start
        while True:
            asked = time.time()
            verdict = site.cli.verify("the key").names[0]
            if verdict == "valid":
                break
            assert verdict == "not_yet_valid" and asked < start
        assert time.time() >= start


# ---- presets with changes


def test_a_preset_can_do_without_one_of_its_columns(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.source(
        "api_keys",
        preset="api_keys",
        peppers=str(site.peppers),
        scopes=False,
        tenant=False,
        expires_at=False,
    )
    site.sql("DROP VIEW public.vw_api_keys; ALTER TABLE public.api_keys DROP COLUMN scopes")
    site.sql(
        """INSERT INTO public.api_keys (tenant_id, user_id, name, token_hash,
                                        token_hash_key_version, expires_at)
           VALUES (%s, %s, 'bent', %s, %s, now() - interval '1 day')""",
        site.tenant,
        site.user,
        site.pepper.digest("sk_bent"),
        site.pepper.version,
    )
    with site.serve():
        answer = site.claims("sk_bent")
        assert answer["verdict"] == "valid"
        assert answer.keys().isdisjoint({"scope", "tenant", "exp"})
        assert site.verdict("sk_bent", scopes=["read"]) == "insufficient_scope"
    site.close()


@pytest.mark.parametrize(
    ("schema", "row"),
    [
        ("external_credentials", lambda site: seeds.insert_external(site.conn, "the key", 1)),
        ("auth_api_key", None),
    ],
)
def test_a_preset_works_on_a_table_of_another_name(
    cluster: PrivateCluster,
    databases: Databases,
    schema: seeds.SchemaName,
    row: Callable[[Installation], Any] | None,
) -> None:
    site = Installation(cluster, databases.new(schema))
    key = "the key"
    if row is None:
        user = seeds.insert_auth_user(site.conn, "ada@example.com")
        key = seeds.insert_auth_key(site.conn, user).token
        site.sql("ALTER TABLE auth.api_key RENAME TO tokens")
        site.sql("ALTER TABLE auth.tokens SET SCHEMA public")
    else:
        row(site)
        site.sql("ALTER TABLE public.external_credentials RENAME TO tokens")
    site.source("renamed", preset=schema, table="public.tokens", subject="id")
    with site.serve():
        answer = site.claims(key)
        assert answer["verdict"] == "valid" and answer["sub"] == answer["key_id"]
    site.close()


# ---- partitions


def test_a_partitioned_table_is_one_table(site: Installation) -> None:
    site.sql(
        """CREATE TABLE t (id int PRIMARY KEY, key text, off timestamptz) PARTITION BY RANGE (id);
           CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (100);
           CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (100) TO (200)"""
    )
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO t SELECT i, 'key ' || i FROM generate_series(0, 199) AS i")
    with site.serve():
        assert site.ask("key 0", "key 199").names == ["valid", "valid"]
        site.sql("UPDATE t SET off = now() WHERE id IN (0, 199)")
        assert site.ask("key 0", "key 199").names == ["revoked", "revoked"]
        site.sql("DELETE FROM t WHERE id IN (1, 198)")
        assert site.ask("key 1", "key 198").names == ["unknown", "unknown"]
        # The row moves from one partition into the other.
        site.sql("DELETE FROM t WHERE id = 150; UPDATE t SET id = 150 WHERE id = 50")
        assert site.claims("key 50")["key_id"] == "150"
        site.sql("UPDATE t SET off = now() WHERE id = 150")
        assert site.verdict("key 50") == "revoked"
        site.sql("TRUNCATE t")
        assert site.ask("key 2", "key 50").names == ["unknown", "unknown"]


def test_the_audit_finds_what_was_written_past_the_parent(site: Installation) -> None:
    """A statement on a partition itself fires no trigger of the parent."""
    site.sql(
        """CREATE TABLE t (id int PRIMARY KEY, key text, off timestamptz) PARTITION BY HASH (id);
           CREATE TABLE t_0 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0)"""
    )
    site.source("t", table="public.t", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO t VALUES (1, 'the key')")
    site.freshness["audit"] = "300ms"
    with site.serve():
        assert site.verdict("the key") == "valid"
        site.sql("UPDATE t_0 SET off = now()")
        until(
            lambda: site.source_status("t")["audit_mismatches"] > 0, 10, "an audit has found it"
        )
        site.wait_source("t", loads=2)
        assert site.verdict("the key") == "revoked"


@pytest.mark.parametrize("state", ["off = now()", "off = NULL"])
def test_a_row_that_no_answer_holds_refuses_its_key_all_the_same(
    site: Installation, state: str
) -> None:
    """If the loader left the row out, another row that holds the same key would admit it."""
    for name in ("a", "b"):
        site.sql(f"CREATE TABLE {name} (id text PRIMARY KEY, key text, off timestamptz)")
        site.source(name, table=f"public.{name}", id="id", key="key", revoked_at="off")
    site.sql("INSERT INTO a VALUES (repeat('x', 5000), 'the key')")
    site.sql(f"UPDATE a SET {state}")
    site.sql("INSERT INTO b VALUES ('1', 'the key')")
    with site.serve():
        refused = "revoked" if "now" in state else "disabled"
        assert site.verdict("the key") == refused
        site.sql("INSERT INTO a VALUES (repeat('y', 5000), 'another')")
        site.cli.sync()
        until(lambda: site.verdict("another") == "disabled", 10, "after the load")
        site.sql("DELETE FROM a")
        until(lambda: site.verdict("the key") == "valid", 10, "after the load")
        assert site.verdict("another") == "unknown"
        assert site.source_status("a")["keys"] == 0
