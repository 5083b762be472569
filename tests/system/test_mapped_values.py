"""Values of mapped columns: flags, states, scopes and times of any type."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from harness.postgres import PrivateCluster
from harness.programs import check_config
from installation import Databases, Installation, Setting, emptied


@pytest.fixture(scope="module")
def scratch(databases: Databases) -> str:
    return databases.new()


@pytest.fixture
def site(cluster: PrivateCluster, scratch: str) -> Iterator[Installation]:
    with emptied(cluster, scratch) as made:
        yield made


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
                assert site.verdict(key, source=source) == verdict
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
