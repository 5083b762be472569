"""Pitfalls of auth.api_key: revocations, users, and the times of row and token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation


@pytest.fixture(scope="module")
def auth(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new("auth_api_key"))
    site.source("auth", preset="auth_api_key")
    with site.serve():
        yield site
    site.close()


@pytest.fixture
def owner(auth: Installation, request: pytest.FixtureRequest) -> int:
    """A new user for each test."""
    return seeds.insert_auth_user(auth.conn, f"{abs(hash(request.node.nodeid))}@example.com")


def test_a_revocation_taken_back_lets_the_key_in_again(auth: Installation, owner: int) -> None:
    key = seeds.insert_auth_key(auth.conn, owner)
    for revoked_at, verdict in (("now()", "revoked"), ("NULL", "valid"), ("now()", "revoked")):
        auth.sql(f"UPDATE auth.api_key SET revoked_at = {revoked_at} WHERE id = {key.id}")
        assert auth.verdict(key.token) == verdict


@pytest.mark.parametrize("when", ["now() + '1 year'", "'infinity'", "'-infinity'", "'epoch'"])
def test_any_revoked_at_counts_as_revoked(auth: Installation, owner: int, when: str) -> None:
    key = seeds.insert_auth_key(auth.conn, owner)
    auth.sql(f"UPDATE auth.api_key SET revoked_at = {when} WHERE id = {key.id}")
    assert auth.verdict(key.token) == "revoked"


def test_keys_go_with_their_user(auth: Installation, owner: int) -> None:
    keys = [seeds.insert_auth_key(auth.conn, owner) for _ in range(3)]
    assert auth.ask(*(key.token for key in keys)).names == ["valid"] * 3
    auth.sql('DELETE FROM auth."user" WHERE id = %s', owner)
    assert auth.ask(*(key.token for key in keys)).names == ["unknown"] * 3


@pytest.mark.parametrize(
    ("row_expires", "verdict"),
    [("-1 minute", "expired"), ("1 hour", "valid"), ("9 years", "valid")],
)
def test_the_earlier_expiry_counts_when_only_the_row_changes(
    auth: Installation, owner: int, row_expires: str, verdict: str
) -> None:
    """The token's own `exp` stays a day ahead, independent of the row."""
    tomorrow = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    key = seeds.insert_auth_key(auth.conn, owner, tomorrow)
    in_token = int(tomorrow.timestamp())
    in_row = auth.value(
        """UPDATE auth.api_key SET expires_at = date_trunc('second', now()) + %s WHERE id = %s
           RETURNING extract(epoch FROM expires_at)::bigint""",
        row_expires,
        key.id,
    )
    answer = auth.claims(key.token)
    assert (answer["verdict"], answer["exp"]) == (verdict, min(in_token, in_row))


def test_an_expired_token_is_not_revived_by_its_row(auth: Installation, owner: int) -> None:
    key = seeds.insert_auth_key(auth.conn, owner, timedelta(minutes=-1))
    auth.sql("UPDATE auth.api_key SET expires_at = now() + '1 year' WHERE id = %s", key.id)
    assert auth.verdict(key.token) == "expired"


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": 1_000_000_000.5}, "expired"),
        ({"exp": -1}, "expired"),
        ({"exp": 4_102_444_800}, "valid"),
        ({"exp": 10**18}, "disabled"),  # not a number of seconds
        ({"exp": 4_102_444_800_000}, "disabled"),
        ({"exp": None}, "valid"),
        ({}, "valid"),
        ({"nbf": 4_102_444_800}, "not_yet_valid"),
        ({"nbf": 1_000_000_000}, "valid"),
        ({"exp": "4102444800"}, "disabled"),
    ],
)
def test_what_a_token_says_of_its_own_time_counts(
    auth: Installation, owner: int, claims: dict[str, Any], verdict: str
) -> None:
    key = seeds.insert_auth_key(auth.conn, owner, timedelta(days=365))
    token = auth.value(
        """UPDATE auth.api_key SET token = public.sign(%s::json, auth.jwt_secret())
           WHERE id = %s RETURNING token""",
        json.dumps(claims | {"jti": key.jti}),
        key.id,
    )
    assert auth.ask(token, key.token).names == [verdict, "unknown"]


def test_a_row_without_token_is_no_key_and_is_counted(auth: Installation, owner: int) -> None:
    key = seeds.insert_auth_key(auth.conn, owner)
    assert auth.verdict(key.token) == "valid"
    auth.sql("UPDATE auth.api_key SET token = NULL WHERE id = %s", key.id)
    assert auth.verdict(key.token) == "unknown"
    auth.reload("auth.api_key")
    until(lambda: auth.source_status("auth")["odd_rows"].get("no_key") == 1, 10, "it is counted")
    auth.sql("UPDATE auth.api_key SET token = %s WHERE id = %s", key.token, key.id)
    assert auth.verdict(key.token) == "valid"
