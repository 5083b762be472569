"""Tables that are locked, unreadable, of a changed shape, or without their triggers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from faulty import BOUND_S, Faulty, Witness
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.wait import scaled, until
from installation import Databases


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Faulty]:
    made = Faulty(cluster, databases.new("api_keys"))
    yield made
    made.close()


def waits_for_lock(site: Faulty, text: str) -> bool:
    """Whether a statement with this text waits for a lock.

    Inside a transaction, the statistics views repeat their first result (PostgreSQL 15, 28.2.2),
    unless the snapshot is cleared.
    """
    site.sql("SELECT pg_stat_clear_snapshot()")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return bool(site.value(f"{waiting} AND datname = current_database() AND query LIKE %s", text))


def test_a_locked_table_makes_answers_stale_and_forgets_nothing(site: Faulty) -> None:
    """Fault 19: ACCESS EXCLUSIVE, for longer than the daemon's lock timeout."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with (
        site.serve(),
        Witness(site, tokens, steady) as witness,
        contextlib.closing(site.cluster.connect(site.dbname)) as conn,
    ):
        site.wait_fresh(steady[0])
        # The lock is requested before the revocation commits, so it precedes the daemon's re-read.
        site.sql("BEGIN")
        site.revoke(tokens[0])
        # The timeout matters if this test fails: `conn` cannot be closed while the other thread waits.
        lock = f"""BEGIN; SET LOCAL lock_timeout = '{scaled(20):g}s';
            LOCK TABLE public.api_keys IN ACCESS EXCLUSIVE MODE"""
        locker = threading.Thread(target=conn.cursor().execute, args=(lock,))
        locker.start()
        until(lambda: waits_for_lock(site, "%LOCK TABLE%"), 10, "the lock is asked for")
        site.sql("COMMIT")
        witness.revoked(tokens[0])
        locker.join()
        witness.wait_stale(5 * BOUND_S)
        witness.wait_past_bound()
        assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
        site.wait_told("lock", 20)
        assert witness.verdict(tokens[0]) == "valid", "nobody could read that it is revoked"
        conn.cursor().execute("ROLLBACK")
        witness.wait_in_force()
        witness.revoke(tokens[1])


WAYS = {
    "SELECT revoked": (
        f"REVOKE SELECT ON public.api_keys FROM {PASSWORD_ROLE}",
        "",  # the output of `grant`
        "may not read",
    ),
    "column renamed": (
        "ALTER TABLE public.api_keys RENAME COLUMN status TO state",
        "ALTER TABLE public.api_keys RENAME COLUMN state TO status",
        "status",
    ),
    "table renamed": (
        "ALTER TABLE public.api_keys RENAME TO keys_of_old",
        "ALTER TABLE public.keys_of_old RENAME TO api_keys",
        "public.api_keys",
    ),
}


@pytest.mark.parametrize(("harm", "mend", "reason"), WAYS.values(), ids=WAYS.keys())
def test_a_table_that_cannot_be_read_is_not_an_empty_one(
    site: Faulty, harm: str, mend: str, reason: str
) -> None:
    """Fault 24: known keys stay, and age. (Row-level security: see test_hidden_rows.py.)"""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 3)
    with site.serve() as daemon, Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        site.sql(harm)
        site.reload("public.api_keys")
        witness.wait_stale(5 * BOUND_S)
        site.wait_told(reason)
        witness.wait_past_bound()
        assert site.cli.verify(steady).names == ["valid"] * 3
        assert site.source_status("api_keys")["rows"] == 5
        assert daemon.exit_code is None
        site.sql(mend) if mend else site.grant()
        site.cli.sync("30s")
        assert site.cli.verify([*tokens, *steady]).names == ["valid"] * 5
        witness.revoke(tokens[0])
        witness.wait_in_force()
        witness.revoke(tokens[1])


@pytest.mark.parametrize(
    "harm",
    [
        "ALTER TABLE public.api_keys DISABLE TRIGGER USER",
        "DROP TRIGGER latchkey_update ON public.api_keys",
        "ALTER TABLE public.api_keys ENABLE TRIGGER latchkey_update",
    ],
    ids=["disabled", "dropped", "not always"],
)
def test_without_triggers_nothing_is_fresh(site: Faulty, harm: str) -> None:
    """Fault 16: no trigger would report a change, so no answer may claim to be up to date.

    test_changes.py shows the findings of the audit, test_external_credentials_traps.py shows TRUNCATE.
    """
    site.freshness["audit"] = "0s"
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve():
        site.wait_fresh(steady[0])
        with Witness(site, tokens, steady) as witness:
            site.sql(harm)
            witness.wait_stale(3 * BOUND_S)
            site.sql("SET session_replication_role = replica")
            witness.revoke(tokens[0])
            site.sql("RESET session_replication_role")
            witness.wait_past_bound()
            assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
            site.wait_told("trigger")
            site.install()
            witness.wait_in_force()
            witness.revoke(tokens[1])
