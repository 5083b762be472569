"""public.api_keys: HMACs under versioned peppers, with tenants, scopes, states and expiry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Keys


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    site = Keys(cluster, databases.new("api_keys"))
    with site.serve():
        yield site
    site.close()


def test_a_live_key_is_valid_with_the_claims_of_its_row(site: Keys) -> None:
    expiry = datetime.now(timezone.utc) + timedelta(days=1)
    row = site.issue("sk_live", scopes=["read", "write"], expires_at=expiry)
    answers = site.ask("sk_live")
    assert answers.exit_code == 0
    assert site.claims("sk_live") == {
        "active": True,
        "verdict": "valid",
        "source": "api_keys",
        "key_id": str(row),
        "sub": str(site.user),
        "tenant": str(site.tenant),
        "scope": "read write",
        "exp": int(expiry.timestamp()),
        "fresh": True,
    }


def test_facts_that_are_null_are_absent(site: Keys) -> None:
    """The key belongs to the tenant and to no user, and never expires."""
    row = seeds.insert_api_key(
        site.conn, site.tenant, None, "nobody's", "sk_nobody", site.pepper, scopes=["read"]
    )
    assert site.claims("sk_nobody") == {
        "active": True,
        "verdict": "valid",
        "source": "api_keys",
        "key_id": str(row),
        "tenant": str(site.tenant),
        "scope": "read",
        "fresh": True,
    }


@pytest.mark.parametrize(
    ("status", "verdict"), [("active", "valid"), ("revoked", "revoked"), ("disabled", "disabled")]
)
@pytest.mark.parametrize("expired", [False, True], ids=["unexpired", "expired"])
def test_the_status_decides_before_the_expiry_does(
    site: Keys, status: str, verdict: str, expired: bool
) -> None:
    token = f"sk_{status}_{expired}"
    row = site.issue(token, status=status, expires_at=timedelta(days=-1 if expired else 1))
    expected = "expired" if verdict == "valid" and expired else verdict
    answers = site.ask(token)
    assert answers.names == [expected]
    assert answers.exit_code == (0 if expected == "valid" else 1)
    assert answers[0]["key_id"] == str(row) and answers[0]["tenant"] == str(site.tenant)
    assert answers[0]["active"] is (expected == "valid")


def test_unknown_and_malformed_keys(site: Keys) -> None:
    answers = site.ask("sk_never_issued", "", "x" * 4097)
    assert answers.names == ["unknown", "malformed", "malformed"] and answers.exit_code == 1
    # A digest is not a key: a stolen copy of the table gives no access.
    site.issue("sk_stolen")
    digest = site.pepper.digest("sk_stolen")
    assert set(site.ask(digest.hex(), digest.hex().upper()).names) == {"unknown"}


@pytest.mark.parametrize(
    ("scopes", "terms", "verdict"),
    [
        (["read", "write"], {"scopes": ["read"]}, "valid"),
        (["read", "write"], {"scopes": ["write", "read"]}, "valid"),
        (["read", "write"], {"scopes": ["read", "admin"]}, "insufficient_scope"),
        (["read", "write"], {"any_scopes": ["admin", "write"]}, "valid"),
        (["read", "write"], {"any_scopes": ["admin", "root"]}, "insufficient_scope"),
        (["read", "write"], {"scopes": ["read"], "any_scopes": ["write"]}, "valid"),
        (["read", "write"], {"scopes": ["read"], "any_scopes": ["x"]}, "insufficient_scope"),
        (["read", "write"], {"scopes": ["x"], "any_scopes": ["read"]}, "insufficient_scope"),
        (["read"], {"scopes": ["rea"]}, "insufficient_scope"),
        (["read"], {"scopes": ["READ"]}, "insufficient_scope"),
        (["read:*"], {"scopes": ["read:all"]}, "insufficient_scope"),
        ([], {"scopes": ["read"]}, "insufficient_scope"),
        ([], {}, "valid"),
        (["lesen/ü", "a,b"], {"scopes": ["lesen/ü", "a,b"]}, "valid"),
        (["s" * 255], {"scopes": ["s" * 255]}, "valid"),
    ],
)
def test_scopes_are_checked_in_the_same_call(
    site: Keys, scopes: list[str], terms: dict[str, list[str]], verdict: str
) -> None:
    token = "sk_" + json.dumps([scopes, terms, verdict])[:100]
    site.sql("DELETE FROM public.api_keys WHERE name = %s", token)
    site.issue(token, scopes=scopes)
    answers = site.ask(token, **terms)
    assert answers.names == [verdict]
    assert answers[0]["scope"] == " ".join(scopes)
    assert answers.exit_code == (0 if verdict == "valid" else 1)


@pytest.mark.parametrize("scope", ["read ", "read write", "\t", "s" * 256])
def test_a_scope_that_cannot_be_one_is_a_usage_error(site: Keys, scope: str) -> None:
    """If the client split or cut the text, it would ask for a scope that the caller did not mean."""
    command = ["--socket", str(site.socket), "verify", "--scope", scope]
    done = site.cli.run(*command, stdin=b"sk_whatever\n")
    assert done.exit_code == 2 and done.stdout == "" and "scope" in done.stderr


def test_a_bad_key_is_not_called_short_of_scopes(site: Keys) -> None:
    site.issue("sk_bad", status="revoked", scopes=[])
    assert site.verdict("sk_bad", scopes=["read"]) == "revoked"


def test_a_caller_without_the_right_to_reasons_learns_nothing_of_bad_keys(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.listen["mode"] = "0666"
    site.more = """
        [[allow]]
        uid = 61301
        [[allow]]
        uid = 61302
        reasons = true
    """
    site.issue("sk_on")
    site.issue("sk_off", status="revoked")
    site.issue("sk_disabled", status="disabled")
    site.issue("sk_old", expires_at=timedelta(seconds=-1))
    with site.serve():
        keys = ["sk_on", "sk_off", "sk_disabled", "sk_old"]
        told = site.cli.verify(keys, uid=61302)
        assert told.names == ["valid", "revoked", "disabled", "expired"]
        untold = site.cli.verify(keys, uid=61301)
        assert untold.names == ["valid", "unknown", "unknown", "unknown"]
        assert untold[0]["tenant"] == str(site.tenant)
        for answer in untold[1:]:
            assert answer.keys() == {"active", "verdict", "fresh", "age_ms"}
    site.close()


def test_answers_are_counted_by_verdict_source_and_pepper(site: Keys) -> None:
    site.issue("sk_counted", scopes=["read"])
    site.issue("sk_counted_off", status="disabled")
    site.cli.sync("30s")
    before = site.cli.status()
    site.cli.verify(["sk_counted", "sk_counted", "sk_counted_off", "sk_nowhere", ""])
    site.cli.verify(["sk_counted"], scopes=["write"])
    after = site.cli.status()

    def more(*path: str | int) -> int:
        found = [before, after]
        for name in path:
            found = [report[name] for report in found]  # type: ignore[index]
        return int(found[1]) - int(found[0])  # type: ignore[call-overload]

    assert more("verdicts", "valid") == 2 and more("verdicts", "insufficient_scope") == 1
    assert more("verdicts", "disabled") == more("verdicts", "unknown") == 1
    assert more("verdicts", "malformed") == 1
    # Two of verify, and one or more of status: the client repeats it until the figures are new.
    assert 3 <= more("requests") < 50
    assert more("sources", 0, "accepted") == 2
    assert more("sources", 0, "accepted_by_pepper", site.pepper.version) == 2


def test_a_minted_key_works_once_its_digest_is_stored(site: Keys) -> None:
    command = ["--json", "mint", "--prefix", "acme", "--source", "api_keys", "--config"]
    config = site.folder / "mint.toml"
    config.write_text(site.config)
    (minted,) = site.cli.run(*command, str(config)).expect(0).json_lines()
    assert minted["key_version"] == site.pepper.version
    site.sql(
        """INSERT INTO public.api_keys (tenant_id, name, token_hash, token_hash_key_version)
           VALUES (%s, 'minted', %s::bytea, %s)""",
        site.tenant,
        minted["store"],
        minted["key_version"],
    )
    assert site.verdict(minted["key"]) == "valid"
