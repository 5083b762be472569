"""Where the reason is hidden, a refused key looks like one that does not exist: in the reply, and
in everything that any user of the host may read."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import seeds, wire
from harness.scrape import get
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation
from test_limits import as_uid

EVE, TRUSTED = 4001, 4002
GONE, NOBODYS = b"sk_gone_0123456789", b"sk_none_0123456789"
TIMES = 7


class Site(Installation):
    """One source with a deleted key; eve may not see reasons, the trusted uid may."""

    def __init__(self, cluster: Any, databases: Databases) -> None:
        super().__init__(cluster, databases.new("external_credentials"))
        self.metrics = self.folder / "metrics.sock"
        self.more = f"[[allow]]\nuid = {EVE}\n[[allow]]\nuid = {TRUSTED}\nreasons = true\n"
        self.source("main", preset="external_credentials")
        self.listen["mode"] = "0666"
        seeds.insert_external(self.conn, GONE.decode(), 43, deleted=True)

    def with_metrics(self, listen: str, more: str = "") -> Site:
        self.more = f'[metrics]\nlisten = "{listen}"\n{more}\n' + self.more
        return self


@pytest.fixture
def site(cluster: Any, databases: Databases) -> Iterator[Site]:
    made = Site(cluster, databases)
    yield made
    made.close()


def samples(text: str) -> dict[str, float]:
    """All samples but those of the process and of time, which change by themselves."""
    found = re.findall(r"^((?:latchkey)_[a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)
    passing = ("_seconds", "_heartbeats_", "_waiting_", "_memory_")
    return {name: float(value) for name, value in found if not any(p in name for p in passing)}


def gained(read: Callable[[], str], there: Site, key: bytes) -> dict[str, float]:
    """The growth of each sample while eve asked for a key."""
    before = samples(read())
    with as_uid(EVE), Raw(there.socket) as raw:
        assert raw.ask(wire.verify([key] * TIMES)).verdicts == ["unknown"] * TIMES
    # The daemon collects the counters of uids four times a second.
    until(lambda: before.get('latchkey_connections') == samples(read()).get('latchkey_connections'), 10,
          "she has gone")
    until(lambda: any(after != before[name] for name, after in samples(read()).items()
                      if "answers_total" in name), 10, "it is counted")
    after = samples(read())
    return {name: after[name] - before.get(name, 0) for name in after}


def over_tcp(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(10)) as caller:
        caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        return caller.makefile("rb").read().decode()


def test_metrics_that_anybody_may_read_do_not_tell_a_refused_key(site: Site) -> None:
    site.with_metrics("127.0.0.1:0")
    with site.serve() as daemon:
        told = re.search(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", daemon.log())
        assert told and "anybody on this host may read" in daemon.log()
        port = int(told[1])
        refused = gained(lambda: over_tcp(port), site, GONE)
        unknown = gained(lambda: over_tcp(port), site, NOBODYS)
        assert refused == unknown
        assert refused['latchkey_answers_total{outcome="inactive"}'] == TIMES
        for hidden in ("latchkey_verdicts_total", "caller_unknown_keys", "by_secret"):
            assert hidden not in over_tcp(port)


@pytest.mark.parametrize("mode", ["0666", "0662", "0664"])
def test_nor_does_a_socket_that_others_may_open(site: Site, mode: str) -> None:
    site.with_metrics(str(site.metrics), f'mode = "{mode}"')
    with site.serve():
        assert "latchkey_verdicts_total" not in get(site.metrics, "/metrics").body


def test_a_protected_listener_tells_reasons_and_sources(site: Site) -> None:
    site.with_metrics(str(site.metrics))

    def read() -> str:
        return get(site.metrics, "/metrics").body

    with site.serve():
        assert Path(site.metrics).stat().st_mode & 0o007 == 0
        refused, unknown = gained(read, site, GONE), gained(read, site, NOBODYS)
        assert refused['latchkey_verdicts_total{source="main",verdict="deleted"}'] == TIMES
        assert unknown['latchkey_verdicts_total{source="",verdict="unknown"}'] == TIMES
        # For a caller without reasons, both keys count as guesses.
        until(lambda: f'unknown_keys_total{{uid="{EVE}"}} {2 * TIMES}' in read(), 10, "both are counted")
        with as_uid(TRUSTED), Raw(site.socket) as raw:
            assert raw.ask(wire.verify([GONE])).verdicts == ["deleted"]
            assert raw.ask(wire.verify([NOBODYS])).verdicts == ["unknown"]
        until(lambda: f'unknown_keys_total{{uid="{TRUSTED}"}} 1' in read(), 10, "one of two is counted")


def test_a_maximum_age_between_two_sources_tells_nothing(site: Site) -> None:
    """The age of the source with the revoked key is within the maximum; that of the other is not."""
    site.sql("CREATE TABLE slow (id int PRIMARY KEY, token text NOT NULL)")
    site.source("slow", table="public.slow", id="id", key="token", scheme="plain")
    site.freshness |= {"bound": "60s", "max_stale": "600s"}
    site.install()
    with site.serve():
        # A lock suspends this source alone: it ages, while heartbeats keep confirming the other one.
        with contextlib.closing(site.cluster.connect(site.dbname)) as conn:
            conn.cursor().execute("BEGIN; LOCK TABLE slow IN ACCESS EXCLUSIVE MODE")
            # A notification of an id makes the daemon meet the lock. (reload() would wait for this lock itself.)
            site.sql("SELECT pg_notify('latchkey', %s)", '{"t": "public.slow", "ids": ["1"]}')

            def ages() -> tuple[int, int]:
                main, slow = site.cli.status(uid=TRUSTED)["sources"]
                return main["age_ms"], slow["age_ms"]

            until(lambda: ages()[1] > 6000 and ages()[0] < 3000, 60, "one of them is old")
            with as_uid(EVE), Raw(site.socket) as raw:
                for _ in range(20):
                    refused = raw.ask(wire.verify([GONE], max_age_ms=5000))
                    unknown = raw.ask(wire.verify([NOBODYS], max_age_ms=5000))
                    assert refused.verdicts == unknown.verdicts == ["unavailable"]
            with as_uid(TRUSTED), Raw(site.socket) as raw:
                assert raw.ask(wire.verify([GONE], max_age_ms=5000)).verdicts == ["deleted"]
