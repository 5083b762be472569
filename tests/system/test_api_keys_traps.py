"""Pitfalls of api_keys: peppers, digests, states, scopes, times, transactions, odd rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Keys

# ---- api_keys: peppers and digests


@pytest.fixture(scope="module")
def keys(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    """The table without its constraint, with values left by an older version of the application."""
    site = Keys(cluster, databases.new("api_keys"))
    site.sql("ALTER TABLE public.api_keys DROP CONSTRAINT chk_api_keys_status")
    with site.serve():
        yield site
    site.close()


def set_column(site: Keys, row: int, column: str, value: Any) -> None:
    site.sql(f"UPDATE public.api_keys SET {column} = %s WHERE id = %s", value, row)


def issue_under(site: Keys, pepper: seeds.Pepper, token: str) -> int:
    return seeds.insert_api_key(site.conn, site.tenant, site.user, token, token, pepper)


Form = Literal["key", "hex", "b64"]


def test_all_pepper_versions_are_alive_at_once_and_a_new_one_comes_by_reload(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    forms: list[Form] = ["hex", "b64", "key"]
    older = []
    for number, form in enumerate(forms, 2):
        pepper = seeds.Pepper.random(f"db_hmac_api_keys_token_hash_v{number}")
        pepper.write_to(site.peppers, form)
        older.append(pepper)
    all_old = [site.pepper, *older]
    for pepper in all_old:
        issue_under(site, pepper, f"sk_{pepper.name}")
    tokens = [f"sk_{pepper.name}" for pepper in all_old]
    with site.serve() as daemon:
        assert site.ask(*tokens).names == ["valid"] * 4
        newest = seeds.Pepper.random("db_hmac_api_keys_token_hash_v10")
        newest.write_to(site.peppers, "hex")
        issue_under(site, newest, "sk_newest")
        assert site.ask("sk_newest").names == ["unknown"]
        daemon.sighup()
        daemon.wait_notified("READY=1", 2)
        # Workers switch to the new peppers between two requests.
        until(lambda: site.verdict("sk_newest") == "valid", 10, "the new pepper is in use")
        assert site.ask(*tokens).names == ["valid"] * 4
        hits = site.source_status("api_keys")["accepted_by_pepper"]
        assert list(hits)[0] == newest.version, "the newest is tried first"
        assert all(hits[pepper.version] >= 1 for pepper in [*all_old, newest])
        # Removing a pepper removes its keys; the others stay.
        (site.peppers / f"{older[0].name}.hex").unlink()
        daemon.sighup()
        daemon.wait_notified("READY=1", 3)
        until(lambda: site.verdict(tokens[1]) == "unknown", 10, "the old pepper is out of use")
        assert site.ask(tokens[0], *tokens[2:], "sk_newest").names == ["valid"] * 4
    site.close()


def test_a_reload_with_a_broken_pepper_changes_nothing(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.issue("sk_steady")
    with site.serve() as daemon:
        broken = site.peppers / "db_hmac_api_keys_token_hash_v2.hex"
        broken.touch(mode=0o600)
        broken.write_text("this is not hex")
        daemon.sighup()
        daemon.wait_notified("READY=1", 2)
        assert site.verdict("sk_steady") == "valid"
        until(lambda: "reload failed" in daemon.log(), 10, "it is said")
        assert str(broken) in daemon.log()
        assert "this is not hex" not in daemon.log()
    site.close()


def test_a_digest_of_64_bytes_never_matches(keys: Keys) -> None:
    row = keys.issue("sk_sha3")
    good = keys.pepper.digest("sk_sha3")
    assert keys.verdict("sk_sha3") == "valid"
    for odd in (good + good, good + bytes(32), good[:31], good + b"\0", b""):
        set_column(keys, row, "token_hash", odd)
        assert keys.verdict("sk_sha3") == "unknown"
    set_column(keys, row, "token_hash", good)
    assert keys.verdict("sk_sha3") == "valid"


def test_a_rotated_digest_ends_the_old_key_and_starts_the_new_one(keys: Keys) -> None:
    row = keys.issue("sk_before")
    assert keys.ask("sk_before", "sk_after").names == ["valid", "unknown"]
    set_column(keys, row, "token_hash", keys.pepper.digest("sk_after"))
    assert keys.ask("sk_before", "sk_after").names == ["unknown", "valid"]
    assert keys.claims("sk_after")["key_id"] == str(row)


def test_keys_that_change_places_belong_to_the_other_row(keys: Keys) -> None:
    first, second = keys.issue("sk_here"), keys.issue("sk_there")
    keys.cli.sync("30s")
    here, there = keys.pepper.digest("sk_here"), keys.pepper.digest("sk_there")
    swap = "UPDATE public.api_keys SET token_hash = %s WHERE id = %s"
    with keys.conn.cursor() as cursor:
        cursor.execute(
            f"BEGIN; {swap}; {swap}; {swap}; COMMIT",
            (bytes(32), first, here, second, there, first),
        )
    answers = keys.ask("sk_here", "sk_there")
    assert answers.names == ["valid", "valid"]
    assert [answer["key_id"] for answer in answers] == [str(second), str(first)]


def test_a_row_that_changes_its_id_keeps_its_key(keys: Keys) -> None:
    row = keys.issue("sk_moved")
    assert keys.claims("sk_moved")["key_id"] == str(row)
    set_column(keys, row, "id", row + 1_000_000)
    assert keys.claims("sk_moved")["key_id"] == str(row + 1_000_000)
    set_column(keys, row + 1_000_000, "status", "revoked")
    assert keys.verdict("sk_moved") == "revoked"


# ---- api_keys: states, scopes, times


def test_a_status_set_back_lets_the_key_in_again(keys: Keys) -> None:
    row = keys.issue("sk_status")
    for status in ("revoked", "active", "disabled", "active", "revoked"):
        set_column(keys, row, "status", status)
        assert keys.verdict("sk_status") == ("valid" if status == "active" else status)


@pytest.mark.parametrize("status", ["suspended", "", "ACTIVE", " active", "active ", "aktiv"])
def test_a_status_that_nobody_declared_disables(keys: Keys, status: str) -> None:
    token = f"sk_status_{status}"
    row = keys.issue(token, status=status)
    assert keys.verdict(token) == "disabled"
    set_column(keys, row, "status", "active")
    assert keys.verdict(token) == "valid"


@pytest.mark.parametrize(
    ("scopes", "verdict", "scope"),
    [
        ("null", "valid", ""),
        ("[]", "valid", ""),
        ('["read", "read"]', "valid", "read read"),
        ('["read", ""]', "valid", "read"),
        ('["read", "two words"]', "valid", "read"),
        (json.dumps(["read", "x" * 256]), "valid", "read"),
        ('"read"', "disabled", None),
        ("1", "disabled", None),
        ("true", "disabled", None),
        ('{"read": true}', "disabled", None),
        ('["read", 1]', "disabled", None),
        ('["read", null]', "disabled", None),
        ('["read", ["write"]]', "disabled", None),
        (json.dumps([f"scope-{i}" for i in range(1000)]), "disabled", None),
    ],
)
def test_scopes_that_are_no_list_of_words_disable(
    keys: Keys, scopes: str, verdict: str, scope: str | None
) -> None:
    token = f"sk_scopes_{scopes[:40]}"
    row = keys.issue(token)
    set_column(keys, row, "scopes", scopes)
    answer = keys.claims(token)
    assert answer["verdict"] == verdict and answer["key_id"] == str(row)
    assert answer.get("scope") == scope
    set_column(keys, row, "scopes", '["read"]')
    assert keys.verdict(token, scopes=["read"]) == "valid"


def test_an_odd_list_of_scopes_changes_the_meaning_of_no_other(keys: Keys) -> None:
    """Rows share scope lists. A list whose words look like another list must stay a different one."""
    odd = keys.issue("sk_odd_scopes")
    set_column(keys, odd, "scopes", json.dumps(['["audit",', '"billing"]', ""]))
    assert keys.verdict("sk_odd_scopes") == "valid"
    other = keys.issue("sk_even_scopes")
    set_column(keys, other, "scopes", '["audit", "billing"]')
    assert keys.claims("sk_even_scopes", scopes=["audit", "billing"])["verdict"] == "valid"


@pytest.mark.parametrize("scalar", ["7", "true", "null", '"admin"'])
def test_an_odd_list_of_scopes_makes_no_list_of_a_scalar(keys: Keys, scalar: str) -> None:
    odd = keys.issue(f"sk_words_{scalar}")
    set_column(keys, odd, "scopes", json.dumps([scalar, ""]))
    assert keys.verdict(f"sk_words_{scalar}") == "valid"
    other = keys.issue(f"sk_scalar_{scalar}")
    set_column(keys, other, "scopes", scalar)
    assert keys.verdict(f"sk_scalar_{scalar}", scopes=[scalar]) != "valid"


@pytest.mark.parametrize(
    ("expires_at", "verdict"),
    [
        (None, "valid"),
        ("infinity", "valid"),
        ("-infinity", "expired"),
        ("294276-12-31 23:59:59+00", "valid"),
        ("4713-01-01 00:00:00+00 BC", "expired"),
        ("1969-12-31 23:59:59.5+00", "expired"),
    ],
)
def test_the_far_ends_of_time(keys: Keys, expires_at: str | None, verdict: str) -> None:
    token = f"sk_until_{expires_at}"
    row = keys.issue(token)
    set_column(keys, row, "expires_at", expires_at)
    answer = keys.claims(token)
    assert answer["verdict"] == verdict
    if expires_at in (None, "infinity"):
        assert "exp" not in answer
    set_column(keys, row, "expires_at", "2100-01-01 00:00:00+00")
    assert keys.claims(token) | {"verdict": "valid", "exp": 4_102_444_800} == keys.claims(token)


# ---- api_keys: transactions, owners, notifications


def test_a_revocation_rolled_back_never_happened(keys: Keys) -> None:
    row = keys.issue("sk_rolled_back")
    keys.cli.sync("30s")
    before = keys.database_status()["notifications"]
    keys.sql(f"BEGIN; UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}; ROLLBACK")
    assert keys.verdict("sk_rolled_back") == "valid"
    assert keys.database_status()["notifications"] == before


def test_a_revocation_under_way_is_not_in_force_and_delays_nobody(keys: Keys) -> None:
    row = keys.issue("sk_under_way")
    keys.cli.sync("30s")
    conn = keys.cluster.connect(keys.dbname, autocommit=False)
    with conn.cursor() as cursor:
        cursor.execute("UPDATE public.api_keys SET status = 'revoked' WHERE id = %s", (row,))
        assert keys.verdict("sk_under_way") == "valid"
    conn.commit()
    conn.close()
    assert keys.verdict("sk_under_way") == "revoked"


def test_only_what_survives_a_savepoint_counts(keys: Keys) -> None:
    first, second, third = (keys.issue(f"sk_savepoint_{i}") for i in range(3))
    revoke = "UPDATE public.api_keys SET status = 'revoked' WHERE id = "
    keys.sql(
        f"BEGIN; {revoke}{first}; SAVEPOINT a; {revoke}{second}; ROLLBACK TO a; {revoke}{third};"
        " RELEASE a; COMMIT"
    )
    names = keys.ask(*(f"sk_savepoint_{i}" for i in range(3))).names
    assert names == ["revoked", "valid", "revoked"]


def test_a_key_revoked_and_restored_in_one_transaction_stays_valid(keys: Keys) -> None:
    row = keys.issue("sk_flicker")
    keys.sql(
        f"BEGIN; UPDATE public.api_keys SET status = 'revoked' WHERE id = {row};"
        f" UPDATE public.api_keys SET status = 'active' WHERE id = {row}; COMMIT"
    )
    assert keys.verdict("sk_flicker") == "valid"


def test_a_row_deleted_and_inserted_anew_counts_as_it_is_now(keys: Keys) -> None:
    row = keys.issue("sk_reborn", scopes=["read"])
    keys.cli.sync("30s")
    keys.sql(
        f"""
        BEGIN;
        CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM public.api_keys WHERE id = {row};
        DELETE FROM public.api_keys WHERE id = {row};
        INSERT INTO public.api_keys (id, tenant_id, name, token_hash, token_hash_key_version)
        SELECT id, tenant_id, name, token_hash, token_hash_key_version FROM kept;
        COMMIT
        """
    )
    answer = keys.claims("sk_reborn")
    assert answer["verdict"] == "valid" and answer["scope"] == "" and "sub" not in answer


def test_a_key_outlives_its_user_and_loses_its_subject(keys: Keys) -> None:
    user = seeds.insert_user(keys.conn)
    seeds.insert_api_key(keys.conn, keys.tenant, user, "orphan", "sk_orphan", keys.pepper)
    assert keys.claims("sk_orphan")["sub"] == str(user)
    keys.sql("DELETE FROM public.users WHERE id = %s", user)
    answer = keys.claims("sk_orphan")
    assert answer["verdict"] == "valid" and "sub" not in answer


@pytest.mark.parametrize(
    "change",
    [
        "last_used_at = now()",
        "updated_at = now()",
        "name = name || ' renamed'",
        "status = status, scopes = scopes, expires_at = expires_at",
    ],
)
def test_changes_that_do_not_matter_are_not_notified(keys: Keys, change: str) -> None:
    keys.issue(f"sk_quiet {change}"[:100])
    keys.cli.sync("30s")
    before = keys.database_status()["notifications"]
    keys.sql(f"UPDATE public.api_keys SET {change}")
    keys.sql("UPDATE public.api_keys SET status = 'revoked' WHERE false")
    keys.sql("DELETE FROM public.api_keys WHERE false")
    keys.cli.sync("30s")
    assert keys.database_status()["notifications"] == before


def test_a_change_that_matters_is_notified_once(keys: Keys) -> None:
    row = keys.issue("sk_loud")
    keys.cli.sync("30s")
    before, rereads = keys.database_status()["notifications"], keys.source_status("api_keys")
    set_column(keys, row, "status", "revoked")
    assert keys.verdict("sk_loud") == "revoked"
    assert keys.database_status()["notifications"] == before + 1
    keys.wait_source("api_keys", rereads=rereads["rereads"] + 1, loads=rereads["loads"])


# ---- odd rows are counted


def test_odd_rows_are_counted_and_named_by_check_and_status(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.sql("ALTER TABLE public.api_keys DROP CONSTRAINT chk_api_keys_status")
    lost = seeds.Pepper.random("db_hmac_api_keys_token_hash_v99")
    for i in range(5):
        site.issue(f"sk_good_{i}")
    for i in range(4):
        issue_under(site, lost, f"sk_lost_{i}")
    for i in range(3):
        set_column(site, site.issue(f"sk_long_{i}"), "token_hash", bytes([i]) * 64)
    for i in range(2):
        site.issue(f"sk_state_{i}", status="paused")
    set_column(site, site.issue("sk_scopes"), "scopes", '{"a": 1}')
    set_column(site, site.issue("sk_space"), "scopes", '["a b"]')
    set_column(site, site.issue("sk_huge"), "scopes", json.dumps(["s" * 200] * 30))
    expected = {
        "unknown_pepper_version": 4,
        "bad_digest": 3,
        "unknown_status": 2,
        "bad_scopes": 1,
        "unusable_scope": 1,
        "claims_too_long": 1,
    }
    site.install()
    checked = site.check()
    for name, count in expected.items():
        assert f"{count} rows: {name}: " in checked
    with site.serve() as daemon:
        status = site.source_status("api_keys")
        assert status["odd_rows"] == expected
        assert status["load_rows"] == 17 and status["rows"] == status["keys"] == 14
        names = site.cli.verify(["sk_good_0", "sk_lost_0", "sk_long_0", "sk_state_0"]).names
        assert names == ["valid", "unknown", "unknown", "disabled"]
        assert "sk_" not in daemon.log()
    site.close()
