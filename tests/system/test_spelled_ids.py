"""Settings of a session that change the text of an id: notifications name the same row under all of them."""

from __future__ import annotations

import pytest
from followed_table import installed, server_version
from harness.postgres import PrivateCluster
from installation import Databases

SPELLED = {
    # type, ids, settings of the writing session
    "bytea, escape": ("bytea", ["\\x00ff", "\\x5c41"], "bytea_output = escape"),
    "date, German": ("date", ["2024-02-29", "infinity"], "DateStyle = German"),
    "date, SQL": ("date", ["2024-02-03", "0044-03-15 BC"], "DateStyle = 'SQL, DMY'"),
    "date[], Postgres": ("date[]", ["{2024-02-03}", "{2024-02-29,infinity}"], "DateStyle = 'Postgres, MDY'"),
    "timestamp, Postgres": ("timestamp", ["2024-02-03 01:02:03.5", "-infinity"], "DateStyle = 'Postgres, DMY'"),
    "timestamptz, TimeZone": ("timestamptz", ["2024-02-03 01:02:03+00", "2024-07-03"], "TimeZone = 'Asia/Kathmandu'"),
    "timestamptz, both": (
        "timestamptz", ["2024-02-03 01:02:03+00", "1890-01-01"], "TimeZone = 'America/New_York'; SET DateStyle = SQL",
    ),
    "timetz": ("timetz", ["01:02:03+05:30", "23:00-08"], "TimeZone = 'Europe/Oslo'"),
    "tstzrange": ("tstzrange", ["[2024-01-01,2024-02-01)", "empty"], "TimeZone = 'Pacific/Kiritimati'"),
    "interval, sql_standard": ("interval", ["1 day 02:03:04", "-1 mon"], "IntervalStyle = sql_standard"),
    "interval, iso_8601": ("interval", ["1 day 02:03:04", "-00:00:01.5"], "IntervalStyle = iso_8601"),
    "interval, verbose": ("interval", ["1 day", "3 years"], "IntervalStyle = postgres_verbose"),
    "float4, fewer digits": ("float4", ["0.1", "16777217"], "extra_float_digits = -6"),
    "float8, fewer digits": ("float8", ["0.1", "123456789.123456789"], "extra_float_digits = -15"),
    "float8, more digits": ("float8", ["0.1", "-0.3"], "extra_float_digits = 3"),
    "float8[]": ("float8[]", ["{0.1}", "{NaN,1e300}"], "extra_float_digits = -15"),
    "numeric": ("numeric", ["1.50", "12345678901234567890.1"], "extra_float_digits = -15"),
    "char(n)": ("char(8)", ["short", "exactly8"], "DateStyle = German"),
    "money": ("money", ["1.50", "-2000"], "lc_monetary = 'C'"),
    "text, encoding": ("text", ["\u00e9t\u00e9", "plain"], "client_encoding = LATIN1"),
    "text, backslashes": ("text", ["a\\b", "c"], "standard_conforming_strings = off"),
    "xid8": ("xid8", ["7", "9"], "DateStyle = German"),
    "inet": ("inet", ["10.0.0.1", "::1"], "bytea_output = escape"),
    "in replication": ("bytea", ["\\x00ff", "\\x41"], "bytea_output = escape; SET session_replication_role = replica"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "ids", "settings"), SPELLED.values(), ids=SPELLED.keys())
def test_no_setting_of_a_writer_changes_which_row_is_meant(
    cluster: PrivateCluster, databases: Databases, kind: str, ids: list[str], settings: str
) -> None:
    if kind == "xid8" and server_version(cluster) < 13:
        pytest.skip("there is no such type")
    setup = f"CREATE TABLE k (id {kind} PRIMARY KEY, key text, revoked_at timestamptz)"
    with installed(cluster, databases, setup, revoked_at="revoked_at") as site:
        write = f"SET {settings}; {{}}; RESET ALL"
        for number, row in enumerate(ids):
            site.sql(f"INSERT INTO k VALUES (%s::{kind}, 'loaded {number}')", row)
        with site.serve():
            assert site.ask("loaded 0", "loaded 1").names == ["valid", "valid"]
            site.sql(write.format("UPDATE public.k SET revoked_at = now() WHERE key = 'loaded 0'"))
            site.sql(write.format("DELETE FROM public.k WHERE key = 'loaded 1'"))
            assert site.ask("loaded 0", "loaded 1").names == ["revoked", "unknown"]
            site.sql(write.format("UPDATE public.k SET key = 'changed', revoked_at = NULL"))
            assert site.ask("loaded 0", "changed").names == ["unknown", "valid"]
            site.sql(write.format("DELETE FROM public.k"))
            assert site.verdict("changed") == "unknown"
            site.sql(f"SET {settings}; INSERT INTO public.k VALUES ($${ids[0]}$$::{kind}, 'told'); RESET ALL")
            assert site.verdict("told") == "valid"
            site.sql("DELETE FROM k")
            assert site.verdict("told") == "unknown"
            assert site.source_status("k")["loads"] == 1, "told of row by row"


@pytest.mark.parametrize(
    "settings",
    ["bytea_output = escape", "DateStyle = German", "TimeZone = 'Asia/Tokyo'", "extra_float_digits = -15",
     "IntervalStyle = iso_8601", "quote_all_identifiers = on", "search_path = other"],
)  # fmt: skip
def test_no_setting_of_our_own_role_changes_how_a_row_is_told(
    cluster: PrivateCluster, databases: Databases, settings: str
) -> None:
    """ALTER ROLE and ALTER DATABASE set only the initial settings of the daemon's sessions."""
    setup = r"""CREATE TABLE k (id bytea PRIMARY KEY, key text, b bytea, t timestamptz, revoked_at timestamptz);
        INSERT INTO k VALUES ('\x00ff', 'one', '\x5c', '2024-02-03 01:02:03+00')"""
    with installed(cluster, databases, setup, revoked_at="revoked_at", subject="t", tenant="b") as site:
        with site.serve():
            usual = site.claims("one")
        name, _, value = settings.partition(" = ")
        site.sql(f"ALTER DATABASE {site.dbname} SET {name} = {value}")
        with site.serve():
            assert site.claims("one") == usual
            site.sql("DELETE FROM k")
            assert site.verdict("one") == "unknown"
