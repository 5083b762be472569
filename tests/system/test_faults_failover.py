"""Several servers, and other servers at the same address: silent hosts, restored servers, a promoted standby."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import psycopg2
import pytest
from faulty import (
    BOUND_S,
    Faulty,
    Proxied,
    Witness,
    faulty_on,
    mortal_cluster,
    socket_of,
    two_hosts,
)
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import Daemon
from harness.proxy import ChaosProxy
from harness.wait import until
from installation import Databases
from psycopg2.extensions import connection as Connection


@pytest.fixture(scope="module")
def mortal() -> Iterator[PrivateCluster]:
    """A server that tests may change. The last test kills it."""
    with mortal_cluster() as server:
        yield server


@pytest.fixture(scope="module")
def mortal_databases(mortal: PrivateCluster) -> Databases:
    return Databases(mortal)


@pytest.fixture
def site(mortal: PrivateCluster, mortal_databases: Databases) -> Iterator[Faulty]:
    with faulty_on(mortal, mortal_databases) as made:
        yield made


# ---- several servers


def test_a_host_that_never_answers_does_not_hide_the_next(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Fault 22: one of several hosts accepts connections and never answers; the daemon tries the others."""
    site = Faulty(cluster, databases.new("api_keys"))
    tokens = site.several("sk_revoked", 2)
    with ChaosProxy(cluster.socket_dir / socket_of(cluster)) as hole:
        hole.blackhole()
        site.database["conninfo"] = two_hosts(site, hole.folder, cluster.socket_dir)
        site.freshness["start_timeout"] = "10s"
        site.install()
        with Daemon(site.config) as daemon, Witness(site, tokens) as witness:
            site.wait_fresh(tokens[0])
            witness.revoke(tokens[0])
            witness.wait_in_force()
            site.cut_backends()
            witness.revoke(tokens[1])
            witness.wait_in_force()
            assert daemon.exit_code is None
        hole.heal()
    site.close()


def test_an_address_that_never_answers_does_not_hide_the_next(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Fault 22: one host name has two addresses. Each gets its own attempt with its own deadline."""
    site = Faulty(cluster, databases.new("api_keys"))
    tokens = site.several("sk_revoked", 2)
    with (
        ChaosProxy(cluster.socket_dir / socket_of(cluster), tcp=True) as way,
        # The kernel accepts connections here, and no process ever answers.
        socket.create_server(("127.0.0.2", way.tcp_port)),
    ):
        site.database["conninfo"] = (
            f"host=two.addresses port={way.tcp_port} dbname={site.dbname} user={PASSWORD_ROLE}"
            " connect_timeout=2"
        )
        site.install()
        # The resolver decides the order of the addresses.
        for addresses in (["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]):
            hosts = "".join(f"{address} two.addresses\n" for address in addresses)
            with Daemon(site.config, hosts=hosts), Witness(site, tokens) as witness:
                site.wait_fresh(tokens[1])
                assert site.database_status()["host"] == f"two.addresses (127.0.0.1):{way.tcp_port}"
                way.cut()
                witness.revoke(tokens[0])
                witness.wait_in_force()
    site.close()


def test_another_server_at_the_same_address_is_believed_anew(
    cluster: PrivateCluster, mortal: PrivateCluster
) -> None:
    """Fault 23: the address leads to another server that has a database of the same name."""
    name = "of_two_servers"
    for server in (cluster, mortal):
        server.sql(f"CREATE DATABASE {name} TEMPLATE template_api_keys")
    site, other = Proxied(cluster, name), Faulty(mortal, name)
    tokens = site.several("sk_here", 3)
    site.revoke(tokens[1])
    other.pepper = site.pepper
    other.issue(tokens[1])
    other.issue(tokens[2], status="revoked")
    there = other.several("sk_there", 1)
    other.install()
    with site.serve() as daemon:
        site.wait_fresh(tokens[0])
        assert site.ask(*tokens, *there).names == ["valid", "revoked", "valid", "unknown"]
        site.proxy.retarget(mortal.socket_dir / socket_of(mortal))
        site.proxy.cut()
        site.cli.sync("30s")
        # The data are complete as of the other server, without a trace of the first.
        answers = site.cli.verify([*tokens, *there]).names
        assert answers == ["unknown", "valid", "revoked", "valid"]
        site.wait_source("api_keys", rows=3, keys=3)
        other.revoke(*there)
        site.wait_fresh(there[0], "revoked")
        assert site.database_status()["identity_changes"] == 1
        assert "ALARM" in daemon.log()
    other.close()
    site.close()


def test_a_database_set_back_to_the_past_is_read_anew(
    mortal: PrivateCluster, mortal_databases: Databases
) -> None:
    """Fault 23: the database is dropped and restored from an old backup. Its present content counts."""
    name = mortal_databases.new("api_keys")
    site = Faulty(mortal, name)
    tokens, steady = site.several("sk_revoked", 1), site.several("sk_steady", 1)
    site.install()
    site.conn.close()
    mortal.sql(f"CREATE DATABASE {name}_backup TEMPLATE {name}")
    site.reconnect()
    with Daemon(site.config):
        late = site.several("sk_late", 1)
        site.revoke(*tokens)
        assert site.ask(*tokens, *late).names == ["revoked", "valid"]
        site.conn.close()
        mortal.sql(f"DROP DATABASE {name} WITH (FORCE)")
        site.wait_told("does not exist")
        assert site.cli.verify([*tokens, *late]).names == ["revoked", "valid"], "as it was known"
        mortal.sql(f"ALTER DATABASE {name}_backup RENAME TO {name}")
        site.reconnect()
        site.cli.sync("30s")
        assert site.cli.verify([*tokens, *late, *steady]).names == ["valid", "unknown", "valid"]
        with Witness(site, tokens, steady) as witness:
            witness.revoke(*tokens)
    site.close()


@pytest.mark.parametrize("since", ["little", "much"])
@pytest.mark.parametrize("how", ["cold", "running"])
def test_a_snapshot_restored_over_the_same_server_is_an_alarm(how: str, since: str) -> None:
    """Fault 23: the same system and timeline, restored to an earlier state.

    `since`: before the daemon reconnects, the server has written less WAL than was lost, or much
    more.
    """
    with mortal_cluster() as server:
        site = Faulty(server, Databases(server).new("api_keys"))
        tokens, steady = site.several("sk_revoked", 1), site.several("sk_steady", 1)
        site.install()
        site.sql("CREATE TABLE other (text text)")
        if how == "cold":
            server.stop()
        snapshot = server.snapshot()
        server.start()
        site.reconnect()
        with Daemon(site.config) as daemon:
            site.revoke(*tokens)
            assert site.ask(*tokens).names == ["revoked"]
            site.cli.sync("30s")  # ensures one more heartbeat
            daemon.freeze()
            server.stop("immediate" if how == "running" else "fast")
            server.restore(snapshot)
            server.start()
            site.reconnect()
            if since == "much":
                site.sql("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
            daemon.thaw()
            until(lambda: site.database_status()["identity_changes"] == 1, 20, "it is noticed")
            site.cli.sync("30s")
            assert site.cli.verify([*tokens, *steady]).names == ["valid", "valid"], "as it is now"
            assert "ALARM" in daemon.log() and " on timeline 1)" in daemon.log()
            # The daemon now follows this server.
            for mode in ("fast", "immediate"):
                server.restart(mode)
                site.reconnect()
                site.revoke(*tokens)
                assert site.ask(*tokens).names == ["revoked"]
            assert site.database_status()["identity_changes"] == 1
        site.close()


def test_a_server_that_crashes_while_it_writes_is_no_alarm() -> None:
    """WAL that was not flushed is lost, and so is the flushed part of its last record."""
    with mortal_cluster(wal_writer_delay="10ms") as server:
        site = Faulty(server, Databases(server).new("api_keys"))
        steady = site.several("sk_steady", 1)
        site.sql("CREATE TABLE other (text text)")
        with site.serve():
            for _ in range(6):
                site.wait_fresh(steady[0])
                writers = [server.connect(site.dbname) for _ in range(2)]
                ended: list[threading.Thread] = []
                for conn in writers:

                    def write(conn: Connection = conn) -> None:
                        with contextlib.suppress(psycopg2.Error), conn.cursor() as cursor:
                            cursor.execute("SET synchronous_commit = off")
                            while True:
                                cursor.execute("SELECT pg_logical_emit_message(false, 'x',"
                                               " repeat('x', (random() * 1e6)::int))")

                    ended.append(threading.Thread(target=write))
                    ended[-1].start()
                heartbeats = site.database_status()["heartbeats"]
                until(lambda: site.database_status()["heartbeats"] > heartbeats + 3,  # noqa: B023
                      20, "heartbeats see it")  # fmt: skip
                server.kill9()
                for thread, conn in zip(ended, writers, strict=True):
                    thread.join()
                    conn.close()
                server.start()
                site.reconnect()
            site.wait_fresh(steady[0])
            assert site.database_status()["identity_changes"] == 0
        site.close()


# ---- a standby; the mortal server does not survive these tests


@pytest.fixture(scope="module")
def standby(mortal: PrivateCluster) -> Iterator[PrivateCluster]:
    """A standby of the mortal server, until a test promotes it."""
    server = mortal.standby()
    try:
        yield server.start()
    finally:
        server.close()


def caught_up(primary: PrivateCluster, standby: PrivateCluster) -> None:
    """Return once the standby has replayed all WAL of the primary."""
    ((lsn,),) = primary.sql("SELECT pg_current_wal_flush_lsn()")
    replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
    until(lambda: standby.sql(replayed, (lsn,))[0][0], 20, "the standby has caught up")


def test_a_standby_alone_is_never_answered_from(site: Faulty, standby: PrivateCluster) -> None:
    """Fault 22, at the start: a standby does not support LISTEN, so nothing from it is fresh."""
    site.freshness["start_timeout"] = "2s"
    site.issue("sk_1")
    site.install()
    caught_up(site.cluster, standby)
    site.database["conninfo"] = two_hosts(site, standby.socket_dir)
    with Daemon(site.config, wait=False) as daemon:
        assert daemon.wait_exit() != 0
        assert "READY=1" not in daemon.notifications
    assert "hot standby" in daemon.log()


def test_an_empty_element_of_a_list_is_the_default(site: Faulty) -> None:
    """libpq ignores an empty value: the whole list would take its place, and match no single host."""
    named = two_hosts(site, "/nonexistent", site.cluster.socket_dir)
    site.database["conninfo"] = named.replace(f"port={site.cluster.port}", "port=1,")
    assert "port=1," in site.database["conninfo"]
    site.issue("sk_1")
    with site.serve():
        site.wait_fresh("sk_1")


def test_the_new_primary_is_followed(site: Faulty, standby: PrivateCluster) -> None:
    """Fault 22, running: the primary dies, and the standby is promoted."""
    primary = site.cluster
    site.database["conninfo"] = two_hosts(site, standby.socket_dir, primary.socket_dir)
    tokens, steady = site.several("sk_revoked", 3), site.several("sk_steady", 1)
    with site.serve(), Witness(site, tokens, steady) as witness:
        site.wait_fresh(steady[0])
        loads = site.source_status("api_keys")["loads"]
        witness.revoke(tokens[0])
        witness.wait_in_force()
        caught_up(primary, standby)
        primary.kill9()
        witness.wait_stale(5 * BOUND_S)
        until(lambda: site.state() == "lost", 10, "the loss is noticed")
        # The standby can be read, and does not make answers fresh.
        witness.wait_past_bound()
        assert not site.cli.verify(steady[0])[0]["fresh"]
        standby.promote()
        site.cluster = standby
        site.reconnect()
        witness.revoke(tokens[1])
        witness.wait_in_force()
        site.wait_fresh(steady[0])
        assert site.source_status("api_keys")["loads"] > loads, "all is read anew"
        assert site.database_status()["promotions"] == 1
        assert site.database_status()["identity_changes"] == 0
        witness.revoke(tokens[2])
