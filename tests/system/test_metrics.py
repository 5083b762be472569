"""Metrics and health over HTTP, requested as a monitoring system does."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import seeds, wire
from harness.programs import REPOSITORY, Daemon, check_config
from harness.ptrace import StoppedThread, thread_id
from harness.scrape import UnixHttp, get, scrape
from harness.wait import scaled, until
from harness.wire import Raw
from installation import Databases, Installation

KEY, DELETED = "sk_good_0123456789abcdef", "sk_gone_0123456789abcdef"


class Monitored(Installation):
    """An installation with two keys, one of them deleted, and metrics on a Unix socket."""

    def __init__(self, cluster: Any, databases: Databases) -> None:
        super().__init__(cluster, databases.new("external_credentials"))
        self.metrics = self.folder / "metrics.sock"
        self.more = f'[metrics]\nlisten = "{self.metrics}"'
        self.source("main", preset="external_credentials")
        seeds.insert_external(self.conn, KEY, 42)
        seeds.insert_external(self.conn, DELETED, 43, deleted=True)


@pytest.fixture
def there(cluster: Any, databases: Databases) -> Iterator[Monitored]:
    made = Monitored(cluster, databases)
    made.install()
    yield made
    made.close()


def promtool(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(REPOSITORY / "scripts" / "promtool"), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )


# ---- metrics


def test_counts_what_was_answered(there: Monitored) -> None:
    with there.serve(), Raw(there.socket) as raw:
        before = scrape(there.metrics)
        raw.ask(wire.verify([KEY.encode()] * 3 + [DELETED.encode(), b"sk_nobodys_0123456789"]))
        raw.ask(wire.frame(wire.PING))

        def gained(name: str, **labels: str) -> float:
            return scrape(there.metrics).sum(name, **labels) - before.sum(name, **labels)

        until(lambda: gained("requests_total") == 2, 10, "two requests are counted")
        assert gained("verdicts_total", source="main", verdict="valid") == 3
        assert gained("verdicts_total", source="main", verdict="deleted") == 1
        assert gained("verdicts_total", source="", verdict="unknown") == 1
        until(lambda: gained("answer_duration_seconds_count") == 2, 10, "each is timed")
        assert 0 < gained("answer_duration_seconds_sum") < scaled(1)
        until(lambda: gained("caller_unknown_keys_total", uid="0") == 1, 10, "a guess is counted")
        now = scrape(there.metrics)
        assert now.get("connections") == 1
        assert now.sum("build_info") == 1
        assert now.get("workers") == 1
        assert now.get("keys", source="main") == 2
        assert now.sum("memory_bytes", source="main") > 1000
        assert now.get("process_resident_memory_bytes") > 1 << 20
        assert 5 < now.get("process_open_fds") < now.get("process_max_fds")
        assert abs(now.get("process_start_time_seconds") - time.time()) < scaled(60)


def test_tells_how_fresh_and_how_fast(there: Monitored) -> None:
    with there.serve():
        before = scrape(there.metrics)
        assert 0 <= before.get("freshness_age_seconds", source="main") < scaled(2)
        assert before.get("freshness_bound_seconds") == 10
        assert before.get("max_stale_seconds") == 3600
        assert before.get("source_state", source="main", state="fresh") == 1
        assert before.sum("source_state", source="main") == 1
        assert before.get("loads_total", source="main", reason="connected") == 1
        assert before.get("database_up", database="main") == 1
        there.sql("UPDATE external_credentials SET deleted_at = now() WHERE copper_id = 42")
        until(
            lambda: scrape(there.metrics).get("change_delay_seconds_count", source="main") == 1,
            10,
            "a change is timed",
        )
        there.sql("TRUNCATE external_credentials")
        until(
            lambda: scrape(there.metrics).get("loads_total", source="main", reason="table_changed") == 1,
            10,
            "a load is counted, with its reason",
        )
        there.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{there.dbname}' AND pid <> pg_backend_pid()"
        )
        until(
            lambda: scrape(there.metrics).get("loads_total", source="main", reason="connected") == 2,
            20,
            "it has connected again",
        )
        assert scrape(there.metrics).get("database_failures_total", database="main") >= 1


def test_promtool_finds_no_fault(there: Monitored) -> None:
    """Prometheus' own linter checks names, units, help and format."""
    with there.serve(), Raw(there.socket) as raw:
        raw.ask(wire.verify([KEY.encode()]))
        response = get(there.metrics, "/metrics")
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        done = promtool("check", "metrics", stdin=response.body)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert KEY not in response.body and "geheim" not in response.body


# ---- health


def test_alive_while_every_thread_turns(there: Monitored) -> None:
    with there.serve() as daemon:
        assert (get(there.metrics, "/livez").status, get(there.metrics, "/livez").body) == (
            200,
            "ok\n",
        )
        with StoppedThread(thread_id(daemon.pid, "worker 0")):
            until(lambda: get(there.metrics, "/livez").status == 503, 20, "it is told")
            assert get(there.metrics, "/livez").body == "worker 0\n"
        until(lambda: get(there.metrics, "/livez").status == 200, 20, "it goes on")


def test_ready_while_every_source_is_answered_for(there: Monitored) -> None:
    there.freshness |= {"bound": "1s", "max_stale": "2s"}
    with there.serve():
        assert get(there.metrics, "/readyz").status == 200
        there.cluster.sql(f"ALTER DATABASE {there.dbname} ALLOW_CONNECTIONS false")
        there.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{there.dbname}' AND pid <> pg_backend_pid()"
        )
        until(lambda: get(there.metrics, "/readyz").status == 503, 20, "it is told")
        assert re.fullmatch(r"main unavailable for \d+ s\n", get(there.metrics, "/readyz").body)
        assert get(there.metrics, "/livez").status == 200, "a restart would not help"
        there.cluster.sql(f"ALTER DATABASE {there.dbname} ALLOW_CONNECTIONS true")
        until(lambda: get(there.metrics, "/readyz").status == 200, 30, "it is in step again")


# ---- HTTP


def test_speaks_http_as_expected(there: Monitored) -> None:
    with there.serve():
        connection = UnixHttp(there.metrics)
        assert connection.ask("/metrics?x=1").status == 200
        assert connection.ask("/nothing").status == 404
        head = connection.ask("/livez", "HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, "", "3")
        post = connection.ask("/metrics", "POST")
        assert (post.status, post.headers["Allow"]) == (405, "GET, HEAD")
        connection.close()


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 64,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nx",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
    ids=["zeros", "no target", "no version", "long header", "long body", "long chunk"],
)
def test_rubbish_costs_its_own_connection(there: Monitored, rubbish: bytes) -> None:
    with there.serve() as daemon:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(scaled(20))
            caller.connect(str(there.metrics))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                caller.sendall(rubbish)
                reply = caller.makefile("rb").read()
                assert reply == b"" or reply.startswith(b"HTTP/1.1 400 "), reply
        assert get(there.metrics, "/livez").status == 200


@pytest.mark.parametrize("cut", range(-5, 0))
@pytest.mark.parametrize(
    "body",
    [
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        b"Content-Length: 5\r\n\r\nabcde",
    ],
    ids=["last chunk", "a chunk", "length"],
)
def test_a_body_ends_its_connection_wherever_it_is_cut(
    there: Monitored, body: bytes, cut: int
) -> None:
    """The HTTP parser must accept a last chunk in two pieces; an assertion in Boost.Beast would end the daemon."""
    head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
    with there.serve() as daemon:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(scaled(20))
            caller.connect(str(there.metrics))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                caller.sendall(head + body[:cut])
                assert caller.recv(64).startswith(b"HTTP/1.1 400 ")
                for i in range(cut, 0):
                    caller.sendall(body[i : i + 1 or None])
        assert get(there.metrics, "/livez").status == 200
        assert daemon.exit_code is None


def test_probes_are_answered_while_a_thousand_say_nothing(there: Monitored) -> None:
    with there.serve(), contextlib.ExitStack() as stack:
        for round_ in range(10):
            for _ in range(100):
                silent = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                silent.settimeout(scaled(5))
                silent.connect(str(there.metrics))
            for path in ("/livez", "/readyz", "/metrics"):
                began = time.monotonic()
                assert get(there.metrics, path).status == 200, round_
                assert time.monotonic() - began < scaled(1)


def test_which_host_and_which_target(cluster: Any, databases: Databases) -> None:
    """RFC 9112 section 3.2; and a web page must not read the metrics under a host name of its own."""
    there = Monitored(cluster, databases)
    there.more = '[metrics]\nlisten = "127.0.0.1:0"'
    there.install()

    def status(request: str) -> int:
        with socket.create_connection(("127.0.0.1", port), scaled(5)) as raw:
            raw.sendall(request.encode())
            return int(raw.recv(64).split()[1])

    with there.serve() as daemon:
        port = int(re.findall(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", daemon.log())[0])
        for host, expected in {
            "127.0.0.1": 200,
            f"127.0.0.1:{port}": 200,
            "localhost": 200,
            "LOCALHOST:1": 200,
            "[::1]:9": 200,
            "127.3.2.1": 200,
            "evil.example": 421,
            "127.0.0.1.evil.example": 421,
            "localhost.evil.example": 421,
            "10.0.0.1": 421,
            "[::2]": 421,
            "[::1": 421,
        }.items():
            assert status(f"GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n") == expected, host
        one = "Host: localhost\r\n"
        assert status("GET /livez HTTP/1.1\r\n\r\n") == 400, "no Host"
        assert status("GET /livez HTTP/1.1\r\nHost:\r\n\r\n") == 421, "empty"
        assert status(f"GET /livez HTTP/1.1\r\n{one}{one}\r\n") == 400, "two"
        assert status("GET /livez HTTP/1.0\r\n\r\n") == 200
        assert status(f"GET http://localhost/livez HTTP/1.1\r\n{one}\r\n") == 200
        assert status(f"GET HTTP://127.0.0.1:1/livez?x HTTP/1.1\r\n{one}\r\n") == 200
        assert status(f"GET http://evil.example/livez HTTP/1.1\r\n{one}\r\n") == 421
        assert status(f"GET http://localhost HTTP/1.1\r\n{one}\r\n") == 404
    there.close()


def test_the_start_is_one_moment(there: Monitored) -> None:
    with there.serve():
        starts = {scrape(there.metrics).get("process_start_time_seconds") for _ in range(20)}
        assert len(starts) == 1 and abs(starts.pop() - time.time()) < scaled(60)


def test_those_who_say_nothing_are_let_go(there: Monitored) -> None:
    """Idle callers hold all places; the one that has waited longest makes room."""
    with there.serve() as daemon, contextlib.ExitStack() as stack:
        open_before = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        for _ in range(100):
            idle = stack.enter_context(socket.socket(socket.AF_UNIX))
            idle.settimeout(scaled(10))
            idle.connect(str(there.metrics))
        until(
            lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) >= open_before + 64, 10, "all taken"
        )
        # (A database's third connection may have been opened meanwhile.)
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) <= open_before + 64 + 4
        connection = UnixHttp(there.metrics)
        assert connection.ask("/livez").status == 200
        connection.close()
        with Raw(there.socket) as raw:
            assert raw.ask(wire.verify([KEY.encode()])).verdicts == ["valid"]


# ---- addresses


def test_on_a_loopback_port(there: Monitored) -> None:
    for address, url in [("127.0.0.1:0", r"http://127\.0\.0\.1:(\d+)/metrics"),
                         ("[::1]:0", r"http://\[::1\]:(\d+)/metrics")]:
        if address.startswith("[") and not Path("/proc/net/if_inet6").exists():
            continue
        there.more = f'[metrics]\nlisten = "{address}"'
        with there.serve() as daemon:
            told = re.search(f"metrics on {url}", daemon.log())
            assert told, daemon.log()
            host = address.rsplit(":", 1)[0].strip("[]")
            with socket.create_connection((host, int(told[1])), timeout=scaled(10)) as caller:
                caller.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
                assert caller.makefile("rb").read().endswith(b"\r\n\r\nok\n")


def test_a_socket_is_its_owners(there: Monitored) -> None:
    there.more += '\nmode = "0600"'
    with there.serve():
        assert there.metrics.stat().st_mode & 0o777 == 0o600
    assert not there.metrics.exists()


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        ("0.0.0.0:9464", "must be a loopback address"),
        ("192.0.2.1:9464", "must be a loopback address"),
        ("localhost:9464", 'such as "127.0.0.1:9464"'),
        ("127.0.0.1", 'such as "127.0.0.1:9464"'),
        ("127.0.0.1:65536", 'such as "127.0.0.1:9464"'),
        ("127.0.0.1:", 'such as "127.0.0.1:9464"'),
        ("relative.sock", 'such as "127.0.0.1:9464"'),
    ],
)
def test_other_places_are_refused(there: Monitored, listen: str, complaint: str) -> None:
    there.more = f'[metrics]\nlisten = "{listen}"'
    done = check_config(there.config)
    assert done.exit_code == 2 and complaint in done.stderr, done


def test_a_port_that_is_taken_is_told(there: Monitored) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        there.more = f'[metrics]\nlisten = "127.0.0.1:{port}"'
        with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1:{port} for metrics"):
            Daemon(there.config).__enter__()


def test_both_sockets_at_one_path_are_refused(there: Monitored) -> None:
    there.more = f'[metrics]\nlisten = "{there.socket}"'
    assert "the path that callers use, too" in check_config(there.config).stderr
