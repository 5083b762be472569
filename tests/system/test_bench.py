"""latchkey-bench against the real daemon: it counts correctly and detects every wrong answer."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import child
from harness.child import Completed
from harness.generated import store_generated
from harness.programs import program
from harness.wait import scaled, until
from installation import Databases, Installation

ROWS = 2000


@pytest.fixture(scope="module")
def there(cluster: Any, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new())
    store_generated(made.conn, ROWS)
    made.sql("ALTER TABLE bench_key ADD good boolean DEFAULT true")
    made.source(
        "keys", table="public.bench_key", scheme="sha256", id="id", key="digest", enabled="good"
    )
    with made.serve():
        yield made
    made.close()


def bench(there: Installation, *options: str, rows: int = ROWS) -> Completed:
    command = [str(program("latchkey-bench")), "run", "--socket", str(there.socket),
               "--generate", str(rows), *options]  # fmt: skip
    for option, value in (("--duration", "400ms"), ("--warm-up", "100ms")):
        if option not in options:
            command += [option, value]
    return child.run(command, timeout_s=scaled(60))


def report(there: Installation, tmp_path: Path, *options: str) -> dict[str, Any]:
    bench(there, "--json", str(tmp_path / "report.json"), *options).expect(0)
    return dict(json.loads((tmp_path / "report.json").read_text()))


def verified(there: Installation) -> int:
    return sum(there.cli.status()["verdicts"].values())


@pytest.mark.threads
@pytest.mark.parametrize(
    "options",
    [
        ("--connections", "1"),
        ("--connections", "16", "--depth", "16", "--threads", "2"),
        ("--connections", "4", "--depth", "2", "--batch", "256"),
        ("--hits", "0.5", "--distribution", "zipf:0.99", "--depth", "8"),
        ("--no-claims", "--depth", "100"),
    ],
    ids=["one", "many", "batches", "mixed", "no claims"],
)
def test_counts_what_the_daemon_counts(
    there: Installation, tmp_path: Path, options: tuple[str, ...]
) -> None:
    before = verified(there)
    told = report(there, tmp_path, "--warm-up", "0ms", *options)
    asked = verified(there) - before
    in_flight = 16 * 16 + 4 * 2 * 256 + 100 * 16
    assert 0 < told["keys"] <= asked <= told["keys"] * 1.5 + in_flight
    assert told["latency_us"]["p50"] <= told["latency_us"]["p99"] <= told["latency_us"]["max"]
    assert told["latency_us"]["max"] > 0
    assert sum(i["requests_per_s"] for i in told["intervals"]) > 0


def test_a_rate_is_kept(there: Installation, tmp_path: Path) -> None:
    told = report(there, tmp_path, "--rate", "500", "--duration", "2s")
    assert told["settings"]["loop"] == "open"
    assert abs(told["requests"] - 1000) < 100
    assert told["not_sent"] == 0


def test_latency_of_an_open_loop_counts_what_waits(there: Installation, tmp_path: Path) -> None:
    """One connection with one request in flight cannot keep this rate, so the queue and the latency grow."""
    told = report(there, tmp_path, "--rate", "400000", "--connections", "1", "--duration", "1s")
    assert told["not_sent"] > 1000
    assert told["latency_us"]["p99"] > 200_000, "not what an answer takes, but what was waited"


def test_a_wrong_answer_ends_it(there: Installation) -> None:
    there.sql("UPDATE bench_key SET good = false WHERE id = 7")
    there.cli.sync()
    done = bench(there, "--depth", "8").expect(1)
    assert "WRONG: wrong answer for known key lk_bench_" in done.stderr
    assert "disabled" in done.stderr
    there.sql("UPDATE bench_key SET good = true, id = id + 1000000 WHERE id = 7")
    there.cli.sync()
    assert "said to be of row 1000007" in bench(there, "--depth", "8").expect(1).stderr
    bench(there, "--depth", "8", "--no-claims").expect(0)
    there.sql("UPDATE bench_key SET id = 7 WHERE id = 1000007")
    there.cli.sync()
    done = bench(there, "--depth", "8", rows=ROWS + 1).expect(1)
    assert "unknown" in done.stderr, "one key more than there are"
    bench(there, "--depth", "8").expect(0)


def test_keys_of_a_file(there: Installation, tmp_path: Path) -> None:
    keys = child.run([str(program("latchkey-bench")), "keys", "--generate", "10"]).expect(0).stdout
    assert len(set(keys.split())) == 10
    (tmp_path / "keys").write_text(keys)
    command = [str(program("latchkey-bench")), "run", "--socket", str(there.socket),
               "--duration", "200ms", "--warm-up", "0ms", "--keys", str(tmp_path / "keys")]  # fmt: skip
    child.run(command).expect(0)
    (tmp_path / "keys").write_text(keys + "not_a_key_of_anybody\n")
    assert "WRONG" in child.run(command).expect(1).stderr


def test_nobody_answers(there: Installation, tmp_path: Path) -> None:
    command = [str(program("latchkey-bench")), "run", "--generate", "10", "--socket"]
    assert "cannot connect" in child.run([*command, str(tmp_path / "no")]).expect(3).stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--batch", "2", "--protocol", "redis"),
        ("--duration", "1ms"),
        ("--distribution", "zipf:-1"),
        ("--distribution", "normal"),
        ("--keys", "/dev/null"),
        ("--protocol", "mysql"),
        ("--hits", "2"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    there: Installation, options: tuple[str, ...]
) -> None:
    bench(there, *options).expect(2)


def test_the_floor_and_a_page(there: Installation, tmp_path: Path) -> None:
    """Two runs, and the page made from them."""
    socket = tmp_path / "echo.sock"
    echo = subprocess.Popen([str(program("latchkey-bench")), "echo", "--socket", str(socket)])
    try:
        until(socket.exists, 10, "the echo serves")
        done = bench(there, "--json", str(tmp_path / "latchkey.json"), "--depth", "4")
        done.expect(0)
        floor = [str(program("latchkey-bench")), "run", "--socket", str(socket), "--protocol",
                 "echo", "--generate", "100", "--duration", "400ms", "--warm-up", "0ms",
                 "--json", str(tmp_path / "echo.json")]  # fmt: skip
        until(lambda: child.run(floor).exit_code == 0, 10, "the floor is measured")
    finally:
        echo.send_signal(signal.SIGTERM)
        assert echo.wait(scaled(10)) == 0
    assert not socket.exists()
    page = tmp_path / "page.html"
    child.run([str(program("latchkey-bench")), "report", str(tmp_path / "latchkey.json"),
               str(tmp_path / "echo.json"), "--html", str(page)]).expect(0)  # fmt: skip
    assert page.read_text().count("<svg") == 4
    (tmp_path / "echo.json").write_text("{}")
    child.run([str(program("latchkey-bench")), "report", str(tmp_path / "echo.json"),
               "--html", str(page)]).expect(2)  # fmt: skip
