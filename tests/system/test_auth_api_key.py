"""auth.api_key: whole JWTs in a table with row-level security."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Installation


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new("auth_api_key"))
    site.source("auth", preset="auth_api_key")
    with site.serve():
        yield site
    site.close()


@pytest.fixture(scope="module")
def user(site: Installation) -> int:
    return seeds.insert_auth_user(site.conn, "ada@example.com", "Ada")


def expires_at(site: Installation, key: seeds.AuthKey) -> int:
    text = "SELECT floor(extract(epoch FROM expires_at))::bigint FROM auth.api_key WHERE id = %s"
    return int(site.value(text, key.id))


def claims_of(site: Installation, key: seeds.AuthKey, user: int, verdict: str) -> dict[str, Any]:
    return {
        "active": verdict == "valid",
        "verdict": verdict,
        "source": "auth",
        "key_id": str(key.id),
        "sub": str(user),
        "exp": expires_at(site, key),
        "fresh": True,
    }


def test_a_live_token_is_valid_with_the_claims_of_its_row(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user)
    answers = site.ask(key.token)
    assert answers.exit_code == 0
    assert site.claims(key.token) == claims_of(site, key, user, "valid")


def test_a_revoked_token_is_revoked(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user)
    site.sql("SELECT public.revoke_api_key(%s)", key.jti)
    assert site.ask(key.token).exit_code == 1
    assert site.claims(key.token) == claims_of(site, key, user, "revoked")


def test_what_a_plain_role_does_under_row_level_security_is_in_force(
    site: Installation, user: int
) -> None:
    """The triggers run as the role that changes the table, which has no rights on our schema."""
    mine = seeds.insert_auth_key(site.conn, user)
    stranger = seeds.insert_auth_user(site.conn, "stranger@example.com")
    theirs = seeds.insert_auth_key(site.conn, stranger)
    site.sql("SELECT set_config('request.jwt.claims', %s, false)", json.dumps({"uid": user}))
    site.sql("SET ROLE authenticated")
    try:
        site.sql("UPDATE auth.api_key SET revoked_at = now() WHERE id = %s", mine.id)
        site.sql("UPDATE auth.api_key SET revoked_at = now() WHERE id = %s", theirs.id)
    finally:
        site.sql("RESET ROLE")
    assert site.ask(mine.token, theirs.token).names == ["revoked", "valid"]
    site.sql("SET ROLE authenticated")
    try:
        site.sql("DELETE FROM auth.api_key WHERE id = %s", mine.id)
    finally:
        site.sql("RESET ROLE")
        site.sql("SELECT set_config('request.jwt.claims', '', false)")
    assert site.verdict(mine.token) == "unknown"


def test_an_expired_token_is_expired(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user, timedelta(seconds=-1))
    assert site.ask(key.token).exit_code == 1
    assert site.claims(key.token) == claims_of(site, key, user, "expired")


def test_a_token_expires_by_itself(site: Installation, user: int) -> None:
    """The table does not change: the daemon checks the expiry at each request."""
    expiry = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=2)
    key = seeds.insert_auth_key(site.conn, user, expiry)
    assert site.verdict(key.token) == "valid"
    while True:
        asked = datetime.now(timezone.utc)
        verdict = site.cli.verify(key.token).names[0]
        answered = datetime.now(timezone.utc)
        if verdict == "expired":
            break
        assert verdict == "valid" and asked < expiry
    assert answered >= expiry


def test_revoked_goes_before_expired(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user, timedelta(seconds=-1))
    site.sql("SELECT public.revoke_api_key(%s)", key.jti)
    assert site.verdict(key.token) == "revoked"


@pytest.mark.parametrize(
    "payload",
    ["not base64!", "bm90IGpzb24", "WzEsMl0", "eyJleHAiOiJzb29uIn0", "eyJuYmYiOltdfQ", ""],
    ids=["not base64", "not JSON", "no object", "exp no number", "nbf no number", "empty"],
)
def test_a_token_whose_claims_cannot_be_read_is_disabled(
    site: Installation, user: int, payload: str
) -> None:
    key = seeds.insert_auth_key(site.conn, user)
    token = f"eyJhbGciOiJIUzI1NiJ9.{payload}.c2lnbmF0dXJl{key.id}"
    site.sql("UPDATE auth.api_key SET token = %s WHERE id = %s", token, key.id)
    answers = site.ask(token)
    assert answers.names == ["disabled"] and answers[0]["key_id"] == str(key.id)
    assert answers.exit_code == 1


def test_a_token_that_no_row_holds_is_unknown(site: Installation, user: int) -> None:
    """A token signed with the right secret is unknown too: the table decides, not the signature."""
    key = seeds.insert_auth_key(site.conn, user)
    claims = '{"type": "api_key", "exp": 4102444800}'
    forged = site.value("SELECT public.sign(%s::json, auth.jwt_secret())", claims)
    assert site.ask(forged).names == ["unknown"]
    # The last character of a signature has spare bits, so two texts decode to one signature.
    last = key.token[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = key.token[:-1] + alphabet[alphabet.index(last) ^ 1]
    assert site.ask(key.token, twin, key.token + "=").names == ["valid", "unknown", "unknown"]


@pytest.mark.parametrize("key", ["", "x" * 4097])
def test_what_cannot_be_a_key_is_malformed(site: Installation, key: str) -> None:
    assert site.claims(key) == {"active": False, "verdict": "malformed", "fresh": True}


def test_a_token_has_no_scopes(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user)
    answers = site.ask(key.token, scopes=["read"])
    assert answers.names == ["insufficient_scope"] and answers.exit_code == 1


def test_the_role_sees_all_rows_in_spite_of_row_level_security(
    site: Installation, user: int
) -> None:
    others = [seeds.insert_auth_user(site.conn, f"{name}@example.com") for name in ("bob", "eve")]
    tokens = [seeds.insert_auth_key(site.conn, who).token for who in (user, *others)]
    assert site.ask(*tokens).names == ["valid"] * 3
    rows = site.value("SELECT count(*) FROM auth.api_key")
    site.wait_source("auth", rows=rows)


def test_a_token_of_600_bytes_and_more_works(site: Installation, user: int) -> None:
    key = seeds.insert_auth_key(site.conn, user, description="d" * 1500)
    assert 2000 < len(key.token) <= 4096
    assert site.verdict(key.token) == "valid"
