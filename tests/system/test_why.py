"""`latchkey why` explains one key to permitted callers, and repeats nothing of the key."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from explained import ALL, RESTRICTED, UNTOLD, Site, conditions
from harness import seeds, wire
from harness.folder import TemporaryFolder
from harness.postgres import PrivateCluster
from harness.cli import Cli
from harness.wire import Raw
from installation import Databases, Installation


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Site]:
    site = Site(cluster, databases.new("api_keys"))
    with site.serve() as daemon:
        site.daemon = daemon  # type: ignore[attr-defined]
        yield site
    site.close()


# ---- one row


def test_a_good_key_and_where_it_was_looked_for(site: Site) -> None:
    expiry = datetime.now(timezone.utc) + timedelta(days=1)
    row = site.issue("sk_why_good", site.old, scopes=["read"], expires_at=expiry)
    told = site.why("sk_why_good", scopes=["read"])
    assert told["verdict"] == "valid" and told["fresh"] and told["age_ms"] < 10_000
    assert told["key"] == {"bytes": 11, "form": "other"}
    assert told["rows"] == [
        {
            "source": "hashed",
            "key_id": str(row),
            "digest": f"HMAC-SHA-256 under pepper {site.old.version}",
            "pepper": site.old.version,
            "speaks": True,
            "sub": str(site.user),
            "tenant": str(site.tenant),
            "scope": "read",
            "exp": int(expiry.timestamp()),
            "failing": [],
        }
    ]
    tried = {
        source["name"]: (
            source["scheme"],
            source["state"],
            [(way.get("pepper"), way["found"]) for way in source["tried"]],
        )
        for source in told["sources"]
    }
    assert tried == {
        "hashed": (
            "hmac-sha256",
            "fresh",
            [(site.new.version, False), (site.old.version, True)],
        ),
        "plain": ("plain", "fresh", [(None, False)]),
        "jwt": ("jwt", "fresh", [(None, False)]),
    }
    words = site.words("sk_why_good")
    assert words.startswith("valid: the holder may in (fresh, age ")
    assert f'row "{row}" of source "hashed"' in words and "FOUND" in words


@pytest.mark.parametrize("status", ["revoked", "disabled"])
def test_a_refused_row_of_api_keys_with_everything_that_speaks_against_it(
    site: Site, status: str
) -> None:
    token = f"sk_why_all_{status}"
    site.issue(token, status=status, scopes=["read"], expires_at=timedelta(hours=-2))
    told = site.why(token, scopes=["read", "write"], any_scopes=["admin", "root"])
    assert told["verdict"] == status
    refused, expired, scopes = told["rows"][0]["failing"]
    assert refused == {"condition": status}
    assert expired["condition"] == "expired" and 7100 < expired["for_s"] < 7900
    assert expired["at"] == told["rows"][0]["exp"]
    assert scopes == {
        "condition": "insufficient_scope",
        "missing": ["write"],
        "none_of": ["admin", "root"],
    }
    words = site.words(token, "--scope", "write", "--any-scope", "admin")
    assert words.startswith(f"{status}: the holder may not in")
    assert f"- {status} - expired 2h ago, at 20" in words or "expired 2h" in words
    assert 'lacks scope "write"; holds none of "admin"' in words


def test_an_expired_key_and_one_short_of_scopes(site: Site) -> None:
    site.issue("sk_why_old", expires_at=timedelta(minutes=-5))
    assert conditions(site.why("sk_why_old")) == ["expired"]
    assert "expired 5m" in site.words("sk_why_old")
    site.issue("sk_why_short", scopes=["read"])
    told = site.why("sk_why_short", scopes=["write"])
    assert told["verdict"] == "insufficient_scope"
    assert told["rows"][0]["failing"] == [
        {"condition": "insufficient_scope", "missing": ["write"]}
    ]


def test_a_deleted_row_of_external_credentials(site: Site) -> None:
    row = seeds.insert_external(site.conn, "ext_why_deleted", 7, deleted=True)
    told = site.why("ext_why_deleted")
    assert (told["verdict"], told["source"], told["key_id"]) == ("deleted", "plain", str(row))
    assert conditions(told) == ["deleted"] and told["rows"][0]["digest"] == "SHA-256"
    # A table without scopes grants none.
    seeds.insert_external(site.conn, "ext_why_good", 8)
    assert conditions(site.why("ext_why_good", scopes=["read"])) == ["insufficient_scope"]


def test_tokens_of_auth_api_key(site: Site) -> None:
    user = seeds.insert_auth_user(site.conn, "why@example.com")
    good = seeds.insert_auth_key(site.conn, user)
    told = site.why(good.token)
    assert told["verdict"] == "valid" and told["key"]["form"] == "jwt"
    assert told["rows"][0]["sub"] == str(user)
    site.sql("SELECT public.revoke_api_key(%s)", good.jti)
    assert conditions(site.why(good.token)) == ["revoked"]
    site.sql(
        "UPDATE auth.api_key SET expires_at = now() - interval '1 day' WHERE id = %s", good.id
    )
    assert conditions(site.why(good.token)) == ["revoked", "expired"]
    assert "looks like a JWT" in site.words(good.token)


def test_a_key_that_is_not_valid_yet(cluster: PrivateCluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new())
    there.sql(
        "CREATE TABLE t (id int PRIMARY KEY, key text, starts timestamptz);"
        "INSERT INTO t VALUES (1, 'early_key', now() + interval '3 hours')"
    )
    there.source("t", table="public.t", id="id", key="key", not_before="starts")
    with there.serve():
        (told,) = there.cli.why("early_key").json_lines()
        assert told["verdict"] == "not_yet_valid" and conditions(told) == ["not_yet_valid"]
        (condition,) = told["rows"][0]["failing"]
        assert 10_000 < condition["in_s"] <= 10_800
        assert condition["at"] == told["rows"][0]["nbf"]
    there.close()


# ---- several rows


def test_two_good_rows_with_one_key_are_named(
    cluster: PrivateCluster, databases: Databases
) -> None:
    there = Installation(cluster, databases.new())
    there.sql(
        "CREATE TABLE t (id text PRIMARY KEY, key text, revoked_at timestamptz);"
        "INSERT INTO t VALUES ('first', 'twice_key', NULL), ('second one', 'twice_key', NULL)"
    )
    there.source("t", table="public.t", id="id", key="key", revoked_at="revoked_at")
    with there.serve():
        (told,) = there.cli.why("twice_key").json_lines()
        assert told["verdict"] == "disabled"
        (condition,) = told["rows"][0]["failing"]
        assert condition["condition"] == "ambiguous"
        assert sorted(condition["key_ids"]) == ["first", "second one"]
        asked = there.cli.run("--socket", str(there.socket), "why", stdin=b"twice_key\n")
        words = " ".join(asked.stdout.split())
        assert '"second one"' in words and "a key that several hold is refused" in words
        # The answer of verify is unchanged.
        (answer,) = there.cli.verify("twice_key")
        assert answer["verdict"] == "disabled" and answer["key_id"] == "first"
        assert not {"sub", "metadata"} & answer.keys()
        there.sql("UPDATE t SET revoked_at = now() WHERE id = 'first'")
        there.cli.sync("30s")
        (told,) = there.cli.why("twice_key").json_lines()
        assert told["verdict"] == "revoked" and told["key_id"] == "first"
    there.close()


def test_one_key_under_two_peppers_is_nobodys(site: Site) -> None:
    rows = [str(site.issue("sk_why_both", pepper)) for pepper in (site.old, site.new)]
    told = site.why("sk_why_both")
    assert told["verdict"] == "disabled" and told["speaks_because"] == "ambiguous"
    for row in told["rows"]:
        (condition,) = row["failing"]
        assert condition["condition"] == "ambiguous" and sorted(condition["key_ids"]) == rows


def test_a_refusal_in_another_source_goes_first(site: Site) -> None:
    good = site.issue("sk_why_moved")
    gone = seeds.insert_external(site.conn, "sk_why_moved", 1, deleted=True)
    told = site.why("sk_why_moved")
    assert (told["verdict"], told["source"], told["speaks_because"]) == (
        "deleted",
        "plain",
        "refuses",
    )
    assert [row["key_id"] for row in told["rows"]] == [str(gone), str(good)]
    assert told["rows"][1]["failing"] == [
        {"condition": "other_row_refuses", "source": "plain", "key_id": str(gone)}
    ]
    # Each source alone gives its own verdict.
    assert site.why("sk_why_moved", source="hashed")["verdict"] == "valid"
    assert "refuses this key, and a refusal goes first" in site.words("sk_why_moved")


# ---- no row


def test_an_unknown_key_was_looked_for_everywhere(site: Site) -> None:
    told = site.why("sk_why_never")
    assert told["verdict"] == "unknown" and told["rows"] == []
    assert not any(way["found"] for source in told["sources"] for way in source["tried"])
    words = site.words("sk_why_never")
    assert words.startswith("unknown: no row of the sources asked holds this key")
    assert f"looked for under pepper {site.new.version}, {site.old.version}" in words
    assert "`latchkey sync`" in words


@pytest.mark.parametrize(
    ("copied", "odd"),
    [
        (b"sk_why_copied ", ["trailing_space", "white_space"]),
        (b"\tsk_why_copied", ["leading_space", "white_space"]),
        (b'"sk_why_copied"', None),
        (b"Bearer sk_why_copied", ["white_space"]),
    ],
)
def test_what_was_copied_with_a_key_is_pointed_out(
    site: Site, copied: bytes, odd: list[str] | None
) -> None:
    if site.why("sk_why_copied")["verdict"] == "unknown":
        site.issue("sk_why_copied")
    told = site.why(copied)
    assert told["verdict"] == "unknown" and told["stripped_verdict"] == "valid"
    assert told["key"].get("odd") == odd
    assert "the key is known (valid): these were copied with it" in site.words(copied)


def test_a_minted_key_with_a_slip(site: Site) -> None:
    (minted,) = site.cli.mint("acme")
    key = minted["key"]
    assert site.why(key)["key"] == {"bytes": len(key), "form": "minted", "checksum": "right"}
    slip = key[:-1] + ("a" if key[-1] != "a" else "b")
    assert site.why(slip)["key"]["checksum"] == "wrong"
    assert "a character is missing or mistyped" in site.words(slip)
    assert "mistyped" not in site.words(key)


@pytest.mark.parametrize(
    ("key", "because"), [(b"", "empty"), (b"x" * 4097, "too_long"), (b"a\0b", "zero_byte")]
)
def test_what_can_be_no_key(site: Site, key: bytes, because: str) -> None:
    told = site.why(key)
    assert (told["verdict"], told["malformed"]) == ("malformed", because)
    assert all(source["tried"] == [] for source in told["sources"])
    assert site.words(key).startswith("malformed: ")


# ---- permitted callers


def test_a_caller_without_reasons_is_refused_and_counted(site: Site) -> None:
    site.issue("sk_why_secret", status="revoked")
    site.cli.sync("30s")
    before = site.cli.status()
    for key in ("sk_why_secret", "sk_why_never"):
        done = site.cli.why(key, uid=UNTOLD, expect=3)
        assert done.stdout == "" and "reasons = true" in done.stderr
        assert "(no_reasons)" in done.stderr and key not in done.stderr
    after = site.cli.status()
    assert after["refused_no_reasons"] == before["refused_no_reasons"] + 2
    assert after["explained"] == before["explained"]
    assert after["protocol_errors"] == before["protocol_errors"]
    with Raw(site.socket) as raw:  # the connection stays open
        assert raw.ask(wire.verify([b"k"], flags=0, type_=wire.WHY)).type == wire.WHY_REPLY
        assert raw.ask(wire.frame(wire.PING)).type == wire.PONG


def test_to_ask_why_is_counted_and_is_no_use_of_a_key(site: Site) -> None:
    site.issue("sk_why_counted")
    site.cli.sync("30s")
    before = site.cli.status()
    site.cli.why("sk_why_counted", uid=ALL)
    after = site.cli.status()
    assert after["explained"] == before["explained"] + 1
    assert after["verdicts"] == before["verdicts"]
    assert [source["accepted"] for source in after["sources"]] == [
        source["accepted"] for source in before["sources"]
    ]


def test_a_restricted_caller_is_told_of_its_sources_and_no_others(site: Site) -> None:
    site.issue("sk_why_hidden", status="revoked")
    row = seeds.insert_external(site.conn, "sk_why_hidden", 9)
    site.cli.sync("30s")
    (told,) = site.cli.why("sk_why_hidden", uid=RESTRICTED, expect=0).json_lines()
    assert told["verdict"] == "valid" and told["key_id"] == str(row)
    assert [source["name"] for source in told["sources"]] == ["plain"]
    assert len(told["rows"]) == 1 and "hashed" not in json.dumps(told)
    for name in ("hashed", "nowhere"):
        (told,) = site.cli.why("sk_why_hidden", source=name, uid=RESTRICTED).json_lines()
        assert told["verdict"] == "forbidden" and told["sources"] == told["rows"] == []


def test_no_key_gets_into_the_log(cluster: PrivateCluster, databases: Databases) -> None:
    planted = secrets.token_hex(16)
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    there.more = '[log]\nlevel = "debug"\n'
    seeds.insert_external(there.conn, f"sk_{planted}", 1, deleted=True)
    with there.serve() as daemon:
        said = ""
        for key in (f"sk_{planted}", f" sk_{planted}", f"x{planted}", planted * 200):
            done = there.cli.why(key)
            said += done.stdout + done.stderr
            said += there.cli.run("--socket", str(there.socket), "why", stdin=key.encode()).stdout
        said += json.dumps(there.cli.status())
    assert planted not in said and planted not in daemon.log()
    there.close()


# ---- usage


@pytest.mark.parametrize(
    "stdin",
    [b"", b"sk_one\nsk_two\n", b"sk_one\n\n", b"sk_one\n" + b"x" * 200_000 + b"\n"],
    ids=["none", "two", "an empty one", "a very long one"],
)
def test_anything_but_one_key_is_a_usage_error(site: Site, stdin: bytes) -> None:
    done = site.cli.run("--socket", str(site.socket), "why", stdin=stdin).expect(2)
    assert done.stdout == "" and "standard input" in done.stderr
    assert "sk_one" not in done.stderr and "xxx" not in done.stderr


@pytest.mark.parametrize("stdin", [b"sk_why_crlf\r\n", b"sk_why_crlf"])
def test_line_ends_are_no_part_of_a_key(site: Site, stdin: bytes) -> None:
    done = site.cli.run("--socket", str(site.socket), "--json", "why", stdin=stdin).expect(1)
    assert done.json_lines()[0]["key"] == {"bytes": 11, "form": "other"}


@pytest.mark.parametrize(
    "arguments",
    [("--source", "nowhere"), ("--scope", "a b"), ("--max-age", "soon"), ("--metadata",)],
)
def test_terms_that_cannot_be_are_usage_errors(site: Site, arguments: tuple[str, ...]) -> None:
    done = site.cli.run("--socket", str(site.socket), "why", *arguments, stdin=b"sk_key\n")
    assert done.exit_code == 2 and done.stdout == "" and "sk_key" not in done.stderr


def test_without_a_daemon_there_is_no_answer() -> None:
    temporary = TemporaryFolder()
    done = Cli(temporary.path / "latchkey.sock").why("sk_key", expect=3)
    assert done.stdout == "" and "Is latchkeyd running" in done.stderr
    temporary.close()
