"""Changes by plain SQL, of one row or of many, told by triggers or found by the audit: each is in force in time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation, Keys
from revocations import names, revoke


@pytest.fixture(scope="module")
def keys(cluster: PrivateCluster, databases: Databases) -> Iterator[Keys]:
    with contextlib.closing(Keys(cluster, databases.new("api_keys"))) as site, site.serve():
        yield site


# ---- plain SQL


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ("UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}", "revoked"),
        ("UPDATE public.api_keys SET status = 'disabled' WHERE id = {row}", "disabled"),
        ("UPDATE public.api_keys SET expires_at = now() WHERE id = {row}", "expired"),
        ("UPDATE public.api_keys SET token_hash = '\\x00' WHERE id = {row}", "unknown"),
        ("DELETE FROM public.api_keys WHERE id = {row}", "unknown"),
        (
            "WITH gone AS (UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}"
            " RETURNING id) SELECT count(*) FROM gone",
            "revoked",
        ),
        (
            "DO $$ BEGIN UPDATE public.api_keys SET status = 'revoked' WHERE id = {row}; END $$",
            "revoked",
        ),
        (
            "SET session_replication_role = replica;"
            " UPDATE public.api_keys SET status = 'revoked' WHERE id = {row};"
            " RESET session_replication_role",
            "revoked",
        ),
    ],
    ids=["revoke", "disable", "expire", "rotate", "delete", "WITH", "DO", "replica"],
)
class TestPlainSql:
    def test_is_in_force_after_a_sync(self, keys: Keys, change: str, verdict: str) -> None:
        row = keys.issue("sk_synced")
        assert keys.verdict("sk_synced") == "valid"
        keys.sql(change.format(row=row))
        assert keys.verdict("sk_synced") == verdict
        keys.sql(f"DELETE FROM public.api_keys WHERE id = {row}")

    def test_is_in_force_within_a_second_without_one(
        self, keys: Keys, change: str, verdict: str
    ) -> None:
        row = keys.issue("sk_pushed")
        until(lambda: names(keys, "sk_pushed") == ["valid"], 1, "the new key is known")
        keys.sql(change.format(row=row))
        until(lambda: names(keys, "sk_pushed") == [verdict], 1, f"the key is {verdict}")
        keys.sql(f"DELETE FROM public.api_keys WHERE id = {row}")


def test_merge_updates_deletes_and_inserts_at_once(keys: Keys) -> None:
    changed, gone = keys.issue("sk_merge_changed"), keys.issue("sk_merge_gone")
    tokens = ("sk_merge_changed", "sk_merge_gone", "sk_merge_new")
    assert keys.ask(*tokens).names == ["valid", "valid", "unknown"]
    keys.sql(
        """
        MERGE INTO public.api_keys AS k
        USING (VALUES (%s, 'revoke'), (%s, 'delete'), (-1, '')) AS wish (id, what)
        ON k.id = wish.id
        WHEN MATCHED AND wish.what = 'delete' THEN DELETE
        WHEN MATCHED THEN UPDATE SET status = 'revoked'
        WHEN NOT MATCHED THEN
            INSERT (tenant_id, name, token_hash, token_hash_key_version)
            VALUES (%s, 'merged', %s, %s)
        """,
        changed,
        gone,
        keys.tenant,
        keys.pepper.digest("sk_merge_new"),
        keys.pepper.version,
    )
    assert keys.ask(*tokens).names == ["revoked", "unknown", "valid"]


def test_copied_rows_are_keys_like_others(keys: Keys) -> None:
    lines = [
        f"{keys.tenant}\tcopied {i}\t\\\\x{keys.pepper.digest(f'sk_copied_{i}').hex()}\t"
        f"{keys.pepper.version}\t{'active' if i % 2 else 'revoked'}\n"
        for i in range(1000)
    ]
    into = "public.api_keys (tenant_id, name, token_hash, token_hash_key_version, status)"
    with keys.conn.cursor() as cursor:
        cursor.copy_expert(f"COPY {into} FROM STDIN", io.StringIO("".join(lines)))
    assert keys.ask(*(f"sk_copied_{i}" for i in range(1000))).names == ["revoked", "valid"] * 500


# ---- many rows

ROWS = 20_000


@pytest.fixture(scope="module")
def many(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table of many live keys. Each test restores it."""
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external", preset="external_credentials")
    seeds.fill_external(site.conn, ROWS)
    with site.serve():
        yield site
    site.close()


MARK = "UPDATE public.external_credentials SET deleted_at = {} WHERE {}"
ALL_KEYS = [seeds.key_text("seed", i) for i in range(1, ROWS + 1)]


@pytest.mark.parametrize("statements", [1, 8])
def test_many_rows_changed_in_one_transaction_are_all_in_force(
    many: Installation, statements: int
) -> None:
    def mark(value: str) -> str:
        return ";".join(MARK.format(value, f"id % {statements} = {i}") for i in range(statements))

    many.sql(f"BEGIN; {mark('now()')}; COMMIT")
    assert set(many.ask(*ALL_KEYS).names) == {"deleted"}
    many.sql(f"BEGIN; {mark('NULL')}; {mark('now()')}; {mark('NULL')}; COMMIT")
    assert set(many.ask(*ALL_KEYS).names) == {"valid"}


def test_many_rows_changed_are_in_force_within_a_second_without_a_sync(many: Installation) -> None:
    many.sql(MARK.format("now()", "true"))
    last = seeds.key_text("seed", ROWS)
    until(lambda: names(many, last) == ["deleted"], 1, "the last of many rows is in force")
    many.sql(MARK.format("NULL", "true"))
    many.cli.sync("30s")


def test_a_table_filled_anew_in_one_transaction_is_one_load(
    cluster: PrivateCluster, databases: Databases
) -> None:
    # The ids of the new rows, more than the loader re-reads one by one, come after the TRUNCATE's.
    rows = 400_000
    with contextlib.closing(Installation(cluster, databases.new("external_credentials"))) as site:
        site.source("external", preset="external_credentials")
        seeds.fill_external(site.conn, rows)
        keys = [seeds.key_text("seed", i) for i in range(1, rows + 1, rows // 1000)]
        with site.serve():
            site.sql(
                "BEGIN; CREATE TEMPORARY TABLE old ON COMMIT DROP AS TABLE public.external_credentials;"
                " TRUNCATE public.external_credentials; UPDATE old SET deleted_at = now();"
                " INSERT INTO public.external_credentials TABLE old; COMMIT"
            )
            assert set(site.ask(*keys).names) == {"deleted"}
            # The reason is the condition that the loader notices first.
            reasons = site.source_status("external")["loads_by_reason"]
            assert reasons in [{"connected": 1, why: 1} for why in ("table_changed", "many_ids")]


def test_rows_deleted_and_inserted_anew_by_the_thousand(many: Installation) -> None:
    many.sql("DELETE FROM public.external_credentials")
    assert set(many.ask(*ALL_KEYS).names) == {"unknown"}
    seeds.fill_external(many.conn, ROWS)
    assert set(many.ask(*ALL_KEYS).names) == {"valid"}
    many.wait_source("external", rows=ROWS, keys=ROWS)


def test_an_upsert_counts_as_what_it_does(many: Installation) -> None:
    upsert = """
        INSERT INTO public.external_credentials (copper_id, api_key, data)
        SELECT 1, key, '{{}}' FROM unnest(%s) AS key
        ON CONFLICT (api_key) DO {}
    """
    old, new = ALL_KEYS[:2]
    many.sql(upsert.format("UPDATE SET deleted_at = now()"), [old, "ext_upserted"])
    assert many.ask(old, new, "ext_upserted").names == ["deleted", "valid", "valid"]
    many.sql(upsert.format("NOTHING"), [old, "ext_upserted_too"])
    assert many.ask(old, "ext_upserted_too").names == ["deleted", "valid"]
    many.sql(upsert.format("UPDATE SET deleted_at = NULL"), [old])
    many.sql("DELETE FROM public.external_credentials WHERE api_key LIKE 'ext_%%'")
    assert many.ask(old, "ext_upserted").names == ["valid", "unknown"]


# ---- the age of an answer


@pytest.mark.parametrize(("max_age", "verdict"), [("0s", "unavailable"), ("1h", "valid")])
def test_an_answer_older_than_the_caller_accepts_is_none(
    keys: Keys, max_age: str, verdict: str
) -> None:
    keys.issue(f"sk_max_age_{max_age}")
    keys.cli.sync("30s")
    asked = keys.cli.verify(f"sk_max_age_{max_age}", max_age=max_age)
    assert (asked.names, asked.exit_code) == ([verdict], 0 if verdict == "valid" else 3)


# ---- changes that no trigger reports


@pytest.mark.parametrize("session", [None, "replica"])
def test_the_audit_finds_what_a_disabled_trigger_hid(
    cluster: PrivateCluster, databases: Databases, session: str | None
) -> None:
    site = Keys(cluster, databases.new("api_keys"))
    site.freshness["audit"] = "500ms"
    revoked, gone = site.issue("sk_hidden"), site.issue("sk_hidden_gone")
    tokens = ("sk_hidden", "sk_hidden_gone", "sk_hidden_new")
    with site.serve():
        assert site.ask(*tokens).names == ["valid", "valid", "unknown"]
        if session is None:
            site.sql("ALTER TABLE public.api_keys DISABLE TRIGGER USER")
        else:
            # An ordinary trigger does not fire in a session that replicates.
            for event in ("insert", "update", "delete"):
                site.sql(f"ALTER TABLE public.api_keys ENABLE TRIGGER latchkey_{event}")
            site.sql(f"SET session_replication_role = {session}")
        before = site.database_status()["notifications"]
        revoke(site, revoked)
        site.sql("DELETE FROM public.api_keys WHERE id = %s", gone)
        site.issue("sk_hidden_new")
        expected = ["revoked", "unknown", "valid"]
        until(lambda: names(site, *tokens) == expected, 5, "the audit has found all changes")
        assert site.database_status()["notifications"] == before, "nobody told of them"
    site.close()
