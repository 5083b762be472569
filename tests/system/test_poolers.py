"""Poolers between the daemon and PostgreSQL: some keep a session, others do not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from faulty import Faulty, Witness, socket_of
from harness.pgbouncer import PgBouncer
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.proxy import ChaosProxy
from harness.wait import until
from installation import PASSWORD, Databases


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Faulty]:
    made = Faulty(cluster, databases.new("api_keys"))
    made.freshness |= {"heartbeat": "200ms", "bound": "2s"}
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "delay_ms", "heartbeat"),
    [
        *itertools.product(["transaction"], [0, 5, 30, 100], ["200ms"]),
        ("transaction", 30, "1s"),
        *itertools.product(["statement"], [0, 100], ["200ms"]),
    ],
)
def test_a_pooler_that_does_not_keep_our_session_never_gets_us_started(
    site: Faulty, mode: str, delay_ms: int, heartbeat: str
) -> None:
    """Fault 9, with round trips of any length.

    The pooler forwards server messages during a query, so a notification that arrives then proves
    nothing. Its arrival is chance, and more likely on a slow server.
    """
    patience = f"{4500 + 40 * delay_ms}ms"
    site.freshness |= {"heartbeat": heartbeat, "bound": "2s", "start_timeout": patience}
    site.issue("sk_1")
    site.install()
    for _ in range(2):
        with (
            ChaosProxy(site.cluster.socket_dir / socket_of(site.cluster)) as slow,
            PgBouncer(site.cluster, PASSWORD, mode=mode, server_folder=slow.folder) as pooler,
        ):
            site.database["conninfo"] = pooler.conninfo(site.dbname)
            slow.delay(delay_ms / 1000)
            with Daemon(site.config, wait=False) as daemon:
                ready = "READY=1"
                until(lambda: daemon.exit_code is not None or ready in daemon.notifications,  # noqa: B023
                      30, "it ends, or is ready")  # fmt: skip
                assert ready not in daemon.notifications
                assert daemon.wait_exit() != 0
            assert "pooler in transaction or statement mode" in daemon.log()


@pytest.mark.parametrize("delay_ms", [0, 30])
def test_a_pooler_in_session_mode_will_do(site: Faulty, delay_ms: int) -> None:
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)
    site.source("api_keys", preset="api_keys", peppers=str(site.peppers), last_used_at="last_used_at")
    site.freshness["audit"] = "500ms"
    site.more = '[last_used]\nflush = "1s"\n'
    site.install()
    with (
        ChaosProxy(site.cluster.socket_dir / socket_of(site.cluster)) as slow,
        PgBouncer(
            site.cluster, PASSWORD, mode="session", size=3, server_folder=slow.folder
        ) as pooler,
        ChaosProxy(pooler.socket) as proxy,
    ):
        slow.delay(delay_ms / 1000)
        site.database["conninfo"] = pooler.conninfo(site.dbname, proxy.folder)
        proxy.delay(delay_ms / 1000)
        with Daemon(site.config), Witness(site, tokens, steady, bound_s=2.0) as witness:
            for token in tokens:
                witness.revoke(token)
                witness.wait_in_force()
            used = "SELECT last_used_at IS NOT NULL FROM api_keys WHERE name = %s"
            until(lambda: site.value(used, steady[0]), 10, "the last use is written")
            until(lambda: site.source_status("api_keys")["audits"] > 0, 10, "an audit is made")
            assert site.database_status()["failures"] == 0


@pytest.mark.parametrize("delay_ms", [0, 30])
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_that_ceases_to_keep_our_session_is_noticed(
    site: Faulty, mode: str, delay_ms: int
) -> None:
    """Fault 9, running: the pooler's mode changes. The session continues and receives no more notifications."""
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)
    site.install()
    with (
        ChaosProxy(site.cluster.socket_dir / socket_of(site.cluster)) as slow,
        PgBouncer(site.cluster, PASSWORD, mode="session", server_folder=slow.folder) as pooler,
        ChaosProxy(pooler.socket) as proxy,
    ):
        slow.delay(delay_ms / 1000)
        site.database["conninfo"] = pooler.conninfo(site.dbname, proxy.folder)
        proxy.delay(delay_ms / 1000)
        with Daemon(site.config), Witness(site, tokens, steady, bound_s=2.0) as witness:
            site.wait_fresh(steady[0])
            witness.revoke(tokens[0])
            witness.wait_in_force()
            pooler.switch(mode)
            witness.revoke(tokens[1])
            witness.wait_stale()
            until(lambda: site.state() == "lost", 10, "it is noticed")
            witness.wait_past_bound()
            witness.revoke(tokens[2])
            witness.wait_past_bound()
            site.wait_told("pooler in transaction or statement mode")
            assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
            pooler.switch("session")
            witness.wait_in_force()
