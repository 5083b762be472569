"""Faults of the connections to the database: no fresh yes for a revoked key."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

import pytest
from faulty import BOUND_S, Faulty, Proxied, Witness
from harness import child
from harness.postgres import PrivateCluster
from harness.programs import Daemon
from harness.proxy import Direction, Facts, Notification
from harness.wait import until
from installation import Databases

HEARTBEATS = "latchkey_heartbeat_*"
CHANGES = "latchkey"


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Proxied]:
    made = Proxied(cluster, databases.new("api_keys"))
    yield made
    made.close()


def listens(facts: Facts) -> bool:
    return facts.listens


def stop_idle_listener(site: Faulty) -> int:
    """Stop the daemon's listening backend at a moment when it holds no lock; returns its process id."""

    def stopped() -> int | None:
        # Only the listening session runs the query that each heartbeat compares.
        busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%json_agg(v.version%'"
        busy += " AND application_name = 'latchkeyd' AND datname = current_database()"
        for (pid,) in site.sql(busy):
            child.send(pid, signal.SIGSTOP)
            until(lambda: child.state(pid) == "T", 5, "the backend stands still")  # noqa: B023
            idle = "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = %s"
            if site.value(idle, pid):
                return int(pid)
            child.send(pid, signal.SIGCONT)
        return None

    pid = until(stopped, 10, "the listening backend is stopped between two heartbeats")
    assert pid is not None
    return pid


def test_a_stopped_listener_backend_is_left_behind(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Fault 4: the connection stays open and silent; only the heartbeat detects it."""
    site = Faulty(cluster, databases.new("api_keys"))
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        failures = site.database_status()["failures"]
        pid = stop_idle_listener(site)
        try:
            witness.revoke(tokens[0])
            witness.wait_stale(5 * BOUND_S)
            until(lambda: site.database_status()["failures"] > failures, 10, "it is noticed")
            assert "heartbeat" in site.database_status()["last_error"]
            witness.wait_in_force()  # on a new connection
        finally:
            child.send(pid, signal.SIGCONT)
        witness.revoke(tokens[1])
    site.close()


@pytest.mark.parametrize(
    "direction", [Direction.BOTH, Direction.TO_CLIENT], ids=["both ways", "from the server"]
)
def test_a_silent_network_makes_answers_stale(site: Proxied, direction: Direction) -> None:
    """Fault 5, fault 6: half-open connections; new ones get no answer either."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        site.proxy.blackhole(direction)
        witness.revoke(tokens[0])
        witness.wait_stale(5 * BOUND_S)
        until(lambda: site.state() == "lost", 10, "the silence is noticed")
        witness.wait_past_bound()
        assert witness.verdict(steady[0]) == "valid", "answers go on, with their age"
        site.proxy.heal()
        witness.wait_in_force()
        witness.revoke(tokens[1])


def test_notifications_that_still_come_prove_nothing(site: Proxied) -> None:
    """Fault 7: the daemon's requests do not reach the server, but notifications still arrive."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        notifications = site.database_status()["notifications"]
        site.proxy.blackhole(Direction.TO_SERVER)
        witness.revoke(tokens[0])
        until(
            lambda: site.database_status()["notifications"] > notifications, 10, "it is notified"
        )
        witness.wait_stale(5 * BOUND_S)
        witness.wait_past_bound()
        site.proxy.heal()
        witness.wait_in_force()
        witness.revoke(tokens[1])


def test_the_audit_finds_what_a_lost_notification_told_of(site: Proxied) -> None:
    """Fault 8: heartbeats pass, so answers claim to be fresh; the next audit bounds the delay."""
    site.freshness |= {"audit": "1s", "bound": "10s"}
    tokens = site.several("sk_revoked", 1)
    with site.serve():
        site.wait_fresh(tokens[0])
        before, loads = site.database_status(), site.source_status("api_keys")["loads"]
        site.proxy.swallow_notifications(1, channel=CHANGES)
        site.revoke(*tokens)
        site.wait_fresh(tokens[0], "revoked", 5)
        assert site.proxy.counters.notifications_swallowed == 1
        after = site.database_status()
        for counter in ("notifications", "failures", "connects"):
            assert after[counter] == before[counter], counter
        assert site.source_status("api_keys")["loads"] > loads


def test_the_witness_sees_a_revocation_that_is_not_in_force(site: Proxied) -> None:
    """A test of the witness: without audits, fault 8 breaks the promise."""
    site.freshness["audit"] = "0s"
    tokens = site.several("sk_revoked", 1)
    with site.serve(), pytest.raises(AssertionError, match="fresh and valid 1.* after its revoc"):
        with Witness(site, tokens) as witness:
            site.wait_fresh(tokens[0])
            site.proxy.swallow_notifications(1, channel=CHANGES)
            witness.revoke(*tokens)
            witness.wait_past_bound()
            site.reload("public.api_keys")


def test_without_heartbeat_there_is_no_start(site: Proxied) -> None:
    """Fault 9, at the start: a pooler in transaction mode accepts the LISTEN, and no notification arrives."""
    site.freshness["start_timeout"] = "3s"
    site.issue("sk_1")
    site.install()
    site.proxy.swallow_notifications()
    with Daemon(site.config, wait=False) as daemon:
        assert daemon.wait_exit() != 0
        assert "READY=1" not in daemon.notifications
    assert site.proxy.counters.notifications_swallowed > 0
    assert "heartbeat" in daemon.log()


@pytest.mark.parametrize("how", ["UNLISTEN *", "swallowed"])
def test_a_registration_that_is_gone_is_made_anew(site: Proxied, how: str) -> None:
    """Fault 9, running: the session continues, but its LISTEN is gone."""
    tokens, steady = site.several("sk_revoked", 2), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        connects, old = site.database_status()["connects"], site.listener()
        if how == "swallowed":
            site.proxy.swallow_notifications(where=lambda facts: facts.number == old)
        else:
            site.proxy.say(old, how)
            until(lambda: site.proxy.counters.injected_answered > 0, 10, "it listens no more")
        witness.revoke(tokens[0])
        witness.wait_in_force()
        assert site.database_status()["connects"] > connects
        assert site.listener() != old
        witness.revoke(tokens[1])


CONNECTS = 40
REVOCATIONS = 8  # revocations during each connect


def test_no_revocation_falls_between_the_listen_and_the_load(
    site: Proxied, request: pytest.FixtureRequest
) -> None:
    """Fault 10: keys are revoked at random moments of many connection attempts."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{request.node.name}: seed {seed}")
    rng = random.Random(seed)
    tokens, steady = site.several("sk_revoked", CONNECTS * REVOCATIONS), site.several("sk_on", 5)
    left = iter(tokens)
    with site.serve(), Witness(site, tokens, steady) as witness:
        connects = site.database_status()["connects"]
        for _ in range(CONNECTS):
            # The delay stretches each step of a connect from fractions of a millisecond to some milliseconds.
            site.proxy.delay(rng.uniform(0, 0.004))
            site.proxy.cut(rng.choice([listens, lambda facts: not facts.listens, lambda _: True]))
            for _ in range(REVOCATIONS):
                site.sql("SELECT pg_sleep(%s)", rng.uniform(0, 0.02))
                witness.revoke(next(left))
            site.cli.sync("30s")
            assert site.database_status()["pending_ids"] == 0
        assert site.database_status()["connects"] >= connects + CONNECTS
        site.proxy.heal()
        assert set(site.cli.verify(tokens).names) == {"revoked"}
        assert set(site.cli.verify(steady).names) == {"valid"}


@pytest.mark.parametrize("slow", ["300 ms later", "5 kB/s"])
def test_a_slow_network_yields_late_answers_and_no_false_ones(site: Proxied, slow: str) -> None:
    """Fault 26: the network is slow in both directions."""
    site.freshness["bound"] = "2s"
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady, bound_s=2.0) as witness:
        site.wait_fresh(steady[0])
        if slow == "5 kB/s":
            site.proxy.throttle(5_000)
        else:
            site.proxy.delay(0.3)
        for token in tokens:
            witness.revoke(token)
            witness.wait_in_force()
        site.wait_fresh(steady[0])  # two heartbeats of 0.6 s each fit into the bound


def test_an_old_heartbeat_proves_nothing(site: Proxied) -> None:
    """Fault 63: a forged server replays heartbeats with old nonces."""
    tokens, steady = site.several("sk_revoked", 1), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        listener = site.listener()

        def heartbeats() -> list[Notification]:
            heard = site.proxy.notifications
            return [old for old in heard if old.channel != CHANGES and old.connection == listener]

        until(lambda: len(heartbeats()) >= 5, 10, "there are heartbeats to repeat")
        old = heartbeats()
        assert len(set(old)) == len(old), "no nonce comes twice"
        failures = site.database_status()["failures"]
        site.proxy.swallow_notifications()
        witness.revoke(tokens[0])

        def noticed() -> bool:
            for notification in old:
                site.proxy.inject(notification)
            return bool(site.database_status()["failures"] > failures)

        until(noticed, 10, "the true heartbeat is missed")
        assert site.proxy.counters.notifications_injected > len(old)
        witness.wait_stale()
        witness.wait_past_bound()
        site.proxy.heal()
        witness.wait_in_force()
