"""Pitfalls of the three schemas and of plain SQL when keys are served from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

import psycopg2
import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import Databases, Installation, Keys

# ---- row-level security

READER = "plain_reader"  # a role that may read everything granted to it, and has no BYPASSRLS


@pytest.fixture
def hidden(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table full of keys. Row-level security hides all of them from a plain role, without an error."""
    site = Installation(cluster, databases.new("auth_api_key"), user=READER)
    site.source("auth", preset="auth_api_key")
    site.sql(
        f"DO $$ BEGIN CREATE ROLE {READER} LOGIN;"
        " EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    site.sql(f"GRANT USAGE ON SCHEMA auth TO {READER}; GRANT SELECT ON auth.api_key TO {READER}")
    site.cluster.psql(site.cli.sql("install", site.config), site.dbname)
    seeds.fill_auth(site.conn, 10)
    assert site.cluster.sql("SELECT * FROM auth.api_key", dbname=site.dbname, user=READER) == []
    yield site
    site.close()


def hide_from_owner(site: Installation) -> None:
    """The owner is exempt from row-level security, unless it is forced."""
    site.sql(f"ALTER TABLE auth.api_key OWNER TO {READER}")
    site.sql("ALTER TABLE auth.api_key FORCE ROW LEVEL SECURITY")


@pytest.mark.parametrize("prepare", [lambda site: None, hide_from_owner], ids=["role", "owner"])
def test_hidden_rows_stop_the_start_with_cause_and_remedy(
    hidden: Installation, prepare: Callable[[Installation], None]
) -> None:
    prepare(hidden)
    checked = check_config(hidden.config).expect(1)
    with Daemon(hidden.config, wait=False) as daemon:
        assert daemon.wait_exit() == 1
        assert daemon.notifications.count("READY=1") == 0
    for text in (checked.stdout, daemon.log()):
        assert "row level security hides rows of auth.api_key" in text
        assert "latchkey sql grant" in text and "makes a policy" in text


def test_what_grant_prints_makes_hidden_rows_visible(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new("auth_api_key"), user="rls_granted")
    site.source("auth", preset="auth_api_key")
    seeds.fill_auth(site.conn, 10)
    site.install()
    assert "10 rows read, 10 keys" in site.check()
    site.close()


def test_row_level_security_switched_on_later_never_looks_like_no_keys(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new("external_credentials"), user="rls_later")
    site.source("external", preset="external_credentials")
    seeds.insert_external(site.conn, "ext_1", 1)
    row = seeds.insert_external(site.conn, "ext_2", 2)
    with site.serve():
        site.sql("ALTER TABLE public.external_credentials ENABLE ROW LEVEL SECURITY")
        site.sql("UPDATE public.external_credentials SET deleted_at = now() WHERE id = %s", row)
        site.cli.sync("500ms", expect=3)
        assert site.cli.verify("ext_1").names == ["valid"]
        site.wait_source("external", suspended=True)
        assert "row level security" in site.source_status("external")["problems"][0]
        site.sql("ALTER TABLE public.external_credentials DISABLE ROW LEVEL SECURITY")
        assert site.ask("ext_1", "ext_2").names == ["valid", "deleted"]
    site.close()


# ---- auth.api_key


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


# ---- external_credentials


@pytest.fixture(scope="module")
def external(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials", metadata="data")
    with site.serve():
        yield site
    site.close()


def test_a_soft_deleted_key_can_only_come_back_by_being_restored(external: Installation) -> None:
    row = seeds.insert_external(external.conn, "ext_phoenix", 1)
    mark = "UPDATE public.external_credentials SET deleted_at = {} WHERE id = %s"
    assert external.verdict("ext_phoenix") == "valid"
    external.sql(mark.format("now()"), row)
    assert external.verdict("ext_phoenix") == "deleted"
    with pytest.raises(psycopg2.IntegrityError):
        seeds.insert_external(external.conn, "ext_phoenix", 2)
    assert external.verdict("ext_phoenix") == "deleted"
    external.sql(mark.format("NULL"), row)
    assert external.claims("ext_phoenix")["key_id"] == str(row)
    assert external.verdict("ext_phoenix") == "valid"


def test_truncate_removes_every_key_at_once(cluster: PrivateCluster, databases: Databases) -> None:
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials")
    seeds.fill_external(site.conn, 50)
    with site.serve():
        keys = [seeds.key_text("seed", i) for i in range(1, 51)]
        assert set(site.ask(*keys).names) == {"valid"}
        site.sql("TRUNCATE public.external_credentials")
        assert set(site.ask(*keys).names) == {"unknown"}
        site.wait_source("external", keys=0, rows=0)
        seeds.fill_external(site.conn, 5)
        assert site.ask(*keys).names == ["valid"] * 5 + ["unknown"] * 45
    site.close()


def test_truncate_that_is_rolled_back_removes_nothing(external: Installation) -> None:
    seeds.insert_external(external.conn, "ext_survivor", 1)
    external.sql("BEGIN; TRUNCATE public.external_credentials; ROLLBACK")
    assert external.verdict("ext_survivor") == "valid"


@pytest.mark.parametrize(("size", "shown"), [(10, True), (3500, True), (4100, False)])
def test_metadata_too_long_for_an_answer_are_left_out(
    external: Installation, size: int, shown: bool
) -> None:
    key = f"ext_meta_{size}"
    row = seeds.insert_external(external.conn, key, 5, {"note": "n" * size})
    external.cli.sync("30s")
    command = ["--socket", str(external.socket), "--json", "verify", "--metadata"]
    (answer,) = external.cli.run(*command, stdin=key.encode() + b"\n").expect(0).json_lines()
    assert answer["key_id"] == str(row) and ("metadata" in answer) == shown
    if shown:
        assert json.loads(answer["metadata"]) == {"note": "n" * size}


def test_changed_metadata_arrive(external: Installation) -> None:
    row = seeds.insert_external(external.conn, "ext_plan", 5, {"plan": "gold"})
    external.cli.sync("30s")
    external.sql(
        "UPDATE public.external_credentials SET data = %s WHERE id = %s", '{"plan": "tin"}', row
    )
    external.cli.sync("30s")
    command = ["--socket", str(external.socket), "--json", "verify", "--metadata"]
    (answer,) = external.cli.run(*command, stdin=b"ext_plan\n").expect(0).json_lines()
    assert answer["metadata"] == '{"plan": "tin"}'


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


# ---- one key in several rows


@pytest.fixture(scope="module")
def shared(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """Two tables without a constraint against storing a key twice."""
    site = Installation(cluster, databases.new())
    for name in ("first", "second"):
        site.sql(
            f"""CREATE TABLE public.{name} (id int PRIMARY KEY, key text, owner text,
                                            status text DEFAULT 'active')"""
        )
        site.source(
            name, table=f"public.{name}", id="id", key="key", subject="owner", status="status"
        )
    with site.serve():
        yield site
    site.close()


def add_rows(site: Installation, table: str, *rows: tuple[int, str, str]) -> None:
    for row_id, key, status in rows:
        owner = f"owner {row_id}"
        site.sql(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", row_id, key, owner, status)


def test_a_key_in_two_rows_is_nobodys_until_one_row_is_left(shared: Installation) -> None:
    before = shared.source_status("first")["keys_in_several_rows"]
    add_rows(shared, "first", (1, "twin", "active"))
    assert shared.claims("twin")["sub"] == "owner 1"
    add_rows(shared, "first", (2, "twin", "active"), (3, "twin", "active"))
    answer = shared.claims("twin")
    assert answer["verdict"] == "disabled" and "sub" not in answer
    shared.wait_source("first", keys_in_several_rows=before + 1)
    shared.sql("DELETE FROM first WHERE id = 1")
    assert shared.verdict("twin") == "disabled"
    shared.sql("UPDATE first SET key = 'twin no more' WHERE id = 2")
    assert shared.claims("twin")["sub"] == "owner 3" and shared.verdict("twin") == "valid"
    assert shared.claims("twin no more")["sub"] == "owner 2"
    shared.wait_source("first", keys_in_several_rows=before)


@pytest.mark.parametrize("refusing_first", [True, False])
@pytest.mark.parametrize("refusing", ["revoked", "disabled"])
def test_a_refusing_row_speaks_before_an_active_one(
    shared: Installation, refusing: str, refusing_first: bool
) -> None:
    key = f"contested {refusing} {refusing_first}"
    base = {"revoked": 100, "disabled": 200}[refusing] + 10 * refusing_first
    states = [refusing, "active"] if refusing_first else ["active", refusing]
    rows = [(base + i, key, state) for i, state in enumerate(states)]
    add_rows(shared, "first", *rows)
    assert shared.verdict(key) == refusing
    refusing_id = next(row_id for row_id, _, state in rows if state == refusing)
    shared.sql("DELETE FROM first WHERE id = %s", refusing_id)
    assert shared.verdict(key) == "valid"


def test_a_key_in_two_sources_is_refused_if_either_refuses(shared: Installation) -> None:
    add_rows(shared, "first", (50, "both", "active"))
    add_rows(shared, "second", (51, "both", "active"))
    assert shared.claims("both")["source"] == "first", "the source configured first speaks"
    shared.sql("UPDATE second SET status = 'revoked' WHERE id = 51")
    answer = shared.claims("both")
    assert (answer["verdict"], answer["source"]) == ("revoked", "second")
    assert shared.verdict("both", source="first") == "valid"
    assert shared.verdict("both", source="second") == "revoked"
    shared.sql("DELETE FROM second WHERE id = 51")
    assert shared.verdict("both") == "valid"


def test_keys_in_several_rows_are_reported_by_check(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE public.twins (id int PRIMARY KEY, key text)")
    site.sql("INSERT INTO twins SELECT i, 'key ' || i / 2 FROM generate_series(2, 7) AS i")
    site.source("twins", table="public.twins", id="id", key="key")
    site.install()
    assert '"twins": 3 keys stand in several rows each' in site.check()
    site.close()
