"""The harness's proxy disturbs connections exactly as requested."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Iterator

import psycopg2
import pytest
from harness.postgres import PrivateCluster
from harness.proxy import ChaosProxy, Direction, Notification
from harness.wait import scaled, until
from psycopg2.extensions import connection as Connection

# The most bytes that a text of this size adds to its own on the way to a client.
OVERHEAD_BYTES = 1000


def target(cluster: PrivateCluster) -> ChaosProxy:
    return ChaosProxy(cluster.socket_dir / f".s.PGSQL.{cluster.port}", tcp=True)


@pytest.fixture
def proxy(cluster: PrivateCluster) -> Iterator[ChaosProxy]:
    with target(cluster) as made:
        yield made


def connect(cluster: PrivateCluster, proxy: ChaosProxy, *, tcp: bool = False) -> Connection:
    place = (
        {"host": "127.0.0.1", "port": str(proxy.tcp_port)} if tcp else {"host": str(proxy.folder)}
    )
    conn = psycopg2.connect(cluster.conninfo(connect_timeout="20", **place))
    conn.autocommit = True
    return conn


@pytest.fixture(params=[False, True], ids=["unix", "tcp"])
def conn(
    request: pytest.FixtureRequest, cluster: PrivateCluster, proxy: ChaosProxy
) -> Iterator[Connection]:
    with contextlib.closing(connect(cluster, proxy, tcp=request.param)) as made:
        yield made


def value(conn: Connection, sql: str) -> object:
    with conn.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def execute(conn: Connection, sql: str) -> None:
    with conn.cursor() as cursor:
        cursor.execute(sql)


def answers_within(conn: Connection, seconds: float) -> bool:
    """Whether the server's next byte arrives in time."""
    return bool(select.select([conn], [], [], seconds)[0])


def heard(conn: Connection) -> list[tuple[str, str]]:
    """Notifications received so far; the connection forgets them."""
    conn.poll()
    found = [(notify.channel, notify.payload) for notify in conn.notifies]
    conn.notifies.clear()
    return found


def test_what_is_well_passes_unchanged(conn: Connection, proxy: ChaosProxy) -> None:
    assert value(conn, "SELECT repeat('x', 3000000)") == "x" * 3_000_000
    assert value(conn, f"SELECT length('{'y' * 1_000_000}')") == 1_000_000
    (facts,) = proxy.connections
    assert facts.to_client > 3_000_000 and facts.to_server > 1_000_000
    assert not facts.listens and not facts.loads
    conn.close()
    until(lambda: not proxy.connections, 5, "its end is passed on")
    assert [ended.number for ended in proxy.ended] == [1]
    counters = proxy.counters
    assert (counters.accepted, counters.cut, counters.bytes_swallowed) == (1, 0, 0)


def test_it_tells_what_a_connection_does(cluster: PrivateCluster, proxy: ChaosProxy) -> None:
    with (
        contextlib.closing(connect(cluster, proxy)) as one,
        contextlib.closing(connect(cluster, proxy)) as two,
    ):
        execute(one, "SET search_path = ''; LISTEN a")
        before = proxy.connections[1].to_client
        with two.cursor() as cursor, open("/dev/null", "w") as nowhere:
            cursor.copy_expert("COPY (SELECT repeat('x', 990)) TO STDOUT", nowhere)
        listener, loader = proxy.connections
        assert (listener.listens, listener.loads) == (True, False)
        assert (loader.listens, loader.loads) == (False, True)
        # CopyOutResponse 10, CopyData 5 and the row, CopyDone 5; then "COPY 1" and ready.
        copy = loader.copy_begins, loader.copy_ends
        assert copy == (before, before + 10 + 5 + 991 + 5)
        assert loader.to_client == before + 10 + 5 + 991 + 5 + 12 + 6


def test_delay(conn: Connection, proxy: ChaosProxy) -> None:
    proxy.delay(0.2)
    started = time.monotonic()
    assert value(conn, "SELECT 1") == 1
    assert time.monotonic() - started >= 0.4  # one delay for each direction
    proxy.heal()
    started = time.monotonic()
    assert value(conn, "SELECT 1") == 1
    assert time.monotonic() - started < scaled(0.2)


def test_throttle(conn: Connection, proxy: ChaosProxy) -> None:
    proxy.throttle(100_000)
    started = time.monotonic()
    value(conn, "SELECT repeat('x', 50000)")
    assert 0.4 <= time.monotonic() - started < 0.4 + scaled(0.6)


@pytest.mark.parametrize("n_bytes", [0, 1, 500, 10_000, 100_000])
def test_cut_after_so_many_bytes(
    cluster: PrivateCluster, proxy: ChaosProxy, n_bytes: int
) -> None:
    proxy.cut_after(n_bytes)
    with pytest.raises(psycopg2.OperationalError):
        conn = connect(cluster, proxy, tcp=n_bytes % 1000 == 0)
        value(conn, f"SELECT repeat('x', {n_bytes + OVERHEAD_BYTES})")
    until(lambda: proxy.ended, 5, "the connection has ended")
    assert [ended.to_client for ended in proxy.ended] == [n_bytes]
    assert proxy.counters.cut == 1
    proxy.heal()
    connect(cluster, proxy).close()


def test_cut_to_the_server(conn: Connection, proxy: ChaosProxy) -> None:
    (facts,) = proxy.connections
    proxy.cut_after(facts.to_server + 10, Direction.TO_SERVER)
    with pytest.raises(psycopg2.OperationalError):
        value(conn, "SELECT 'more than ten bytes'")
    assert proxy.ended[0].to_server == facts.to_server + 10


def test_flip(conn: Connection, proxy: ChaosProxy) -> None:
    (facts,) = proxy.connections
    proxy.flip(facts.to_client + 500)
    conn.set_client_encoding("LATIN1")  # every byte is a character in LATIN1
    text = str(value(conn, "SELECT repeat('x', 5000)"))
    assert text.count("x") == 4999 and text.count(chr(ord("x") ^ 0xFF)) == 1
    assert proxy.counters.flipped == 1


def test_cut_now(conn: Connection, proxy: ChaosProxy) -> None:
    assert proxy.cut(lambda facts: facts.listens) == 0
    assert proxy.cut() == 1
    with pytest.raises(psycopg2.OperationalError):
        value(conn, "SELECT 1")
    assert proxy.cut() == 0


@pytest.mark.parametrize("direction", [Direction.TO_CLIENT, Direction.TO_SERVER, Direction.BOTH])
def test_a_blackhole_keeps_what_goes_in(
    conn: Connection, proxy: ChaosProxy, direction: Direction
) -> None:
    with contextlib.closing(psycopg2.connect(conn.dsn, async_=1)) as silent:
        until(lambda: silent.poll() == 0, 5, "a second connection")
        proxy.blackhole(direction)
        silent.cursor().execute("SELECT 1")
        assert not answers_within(silent, 0.3)
        assert len(proxy.connections) == 2
        proxy.heal()
        assert answers_within(silent, scaled(5))
        assert proxy.counters.bytes_swallowed == 0


def test_a_blackhole_that_loses_leaves_nothing_usable(conn: Connection, proxy: ChaosProxy) -> None:
    with contextlib.closing(psycopg2.connect(conn.dsn, async_=1)) as silent:
        until(lambda: silent.poll() == 0, 5, "a second connection")
        proxy.blackhole(Direction.TO_CLIENT, lose=True)
        silent.cursor().execute("SELECT 1")
        until(lambda: proxy.counters.bytes_swallowed > 0, 5, "the answer is swallowed")
        proxy.heal()
        assert not answers_within(silent, 0.3)
        assert value(conn, "SELECT 1") == 1, "the other one has lost nothing"


def test_one_direction_is_deaf_while_the_other_speaks(
    cluster: PrivateCluster, conn: Connection, proxy: ChaosProxy
) -> None:
    execute(conn, "LISTEN news")
    proxy.blackhole(Direction.TO_SERVER)
    cluster.sql("NOTIFY news, 'still here'")
    assert answers_within(conn, scaled(5))
    assert heard(conn) == [("news", "still here")]


def test_notifications_get_lost_one_by_one(
    cluster: PrivateCluster, conn: Connection, proxy: ChaosProxy
) -> None:
    execute(conn, "LISTEN news; LISTEN beat_1")
    proxy.swallow_notifications(2, channel="news")
    for number in range(4):
        cluster.sql(f"NOTIFY news, '{number}'; NOTIFY beat_1, '{number}'")
    until(lambda: proxy.counters.notifications == 8, 5, "all have come")
    assert value(conn, "SELECT 1") == 1  # everything sent earlier has arrived too
    expected = [("beat_1", "0"), ("beat_1", "1")]
    expected += [(channel, number) for number in "23" for channel in ("news", "beat_1")]
    assert heard(conn) == expected
    proxy.swallow_notifications(channel="beat_*")
    for number in range(4):
        cluster.sql(f"NOTIFY news, '{number}'; NOTIFY beat_1, '{number}'")
    until(lambda: proxy.counters.notifications == 16, 5, "all have come")
    assert value(conn, "SELECT 1") == 1
    assert heard(conn) == [("news", number) for number in "0123"]
    assert proxy.counters.notifications_swallowed == 6


def test_a_notification_can_be_repeated_and_forged(
    cluster: PrivateCluster, conn: Connection, proxy: ChaosProxy
) -> None:
    execute(conn, "LISTEN news")
    cluster.sql("NOTIFY news, 'once'")
    until(lambda: proxy.notifications, 5, "it has come")
    (old,) = proxy.notifications
    assert old == Notification(1, "news", "once")
    proxy.inject(old)
    proxy.inject(Notification(1, "elsewhere", "forged"))
    assert value(conn, "SELECT 1") == 1
    assert heard(conn) == [("news", "once"), ("news", "once"), ("elsewhere", "forged")]
    assert value(conn, "SELECT 2") == 2
    assert (proxy.counters.notifications, proxy.counters.notifications_injected) == (1, 2)


def test_it_speaks_in_the_clients_name(
    cluster: PrivateCluster, conn: Connection, proxy: ChaosProxy
) -> None:
    execute(conn, "LISTEN news")
    assert value(conn, "SELECT count(*) FROM pg_listening_channels()") == 1
    proxy.say(1, "SELECT 'unheard' FROM generate_series(1, 1000)")
    proxy.say(1, "UNLISTEN *")
    assert value(conn, "SELECT count(*) FROM pg_listening_channels()") == 0
    cluster.sql("NOTIFY news, 'nobody hears'")
    assert value(conn, "SELECT 3") == 3
    assert heard(conn) == []
    assert (proxy.counters.statements_injected, proxy.counters.injected_answered) == (2, 2)
    proxy.say(1, "SELECT 1/0")
    assert value(conn, "SELECT 4") == 4


def test_refused_and_unreachable(cluster: PrivateCluster, proxy: ChaosProxy) -> None:
    proxy.refuse()
    with pytest.raises(psycopg2.OperationalError):
        connect(cluster, proxy)
    proxy.heal()
    proxy.retarget(proxy.folder / "nobody")
    with pytest.raises(psycopg2.OperationalError):
        connect(cluster, proxy)
    counters = proxy.counters
    assert (counters.accepted, counters.refused, counters.unreachable) == (2, 1, 1)


def test_a_fault_may_hit_some_connections_only(
    cluster: PrivateCluster, conn: Connection, proxy: ChaosProxy
) -> None:
    with contextlib.closing(connect(cluster, proxy)) as listener:
        execute(listener, "LISTEN news")
        proxy.blackhole(where=lambda facts: facts.listens)
        assert value(conn, "SELECT 1") == 1
        cluster.sql("NOTIFY news")
        assert not answers_within(listener, 0.2)


def test_its_end_ends_everything(cluster: PrivateCluster) -> None:
    with target(cluster) as proxy:
        folder, conn = proxy.folder, connect(cluster, proxy)
        proxy.blackhole()
    assert not folder.exists()
    with pytest.raises(psycopg2.OperationalError):
        value(conn, "SELECT 1")
    with pytest.raises(AssertionError):
        proxy.heal()
