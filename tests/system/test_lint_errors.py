"""Errors of docs/lint.md: a change that causes each, its number in --check and the log; the findings on the role."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from findings import BASE, ERRORS, LONG, SECRET, findings_of
from harness import seeds
from harness.postgres import SUPERUSER, PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import Databases, Installation


@pytest.fixture
def plain(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """One table of plain keys without findings."""
    site = Installation(cluster, databases.new())
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE, status text, flag text)")
    site.sql(f"INSERT INTO t VALUES (1, '{LONG}1', 'active')")
    site.source("t", **BASE)
    site.install()
    yield site
    site.close()


@pytest.mark.parametrize("number", ERRORS)
def test_errors_are_numbered_by_check_and_in_the_log(plain: Installation, number: str) -> None:
    prepare, advice = ERRORS[number]
    prepare(plain)
    checked = check_config(plain.config).expect(1).stdout
    about = "main" if number == "L001" else "t"
    assert number in findings_of(checked).get(about, {}), checked
    (line,) = (line for line in checked.splitlines() if f". {number} error: " in line)
    assert advice in line
    assert "latchkeyd would not start." in checked and "in order" not in checked
    with Daemon(plain.config, wait=False) as daemon:
        assert daemon.wait_exit() == 1
    assert f"{number}: " in daemon.log() and advice in daemon.log()
    assert SECRET not in checked + daemon.log()


def test_a_trigger_lost_while_running_is_numbered(plain: Installation) -> None:
    with plain.serve() as daemon:
        assert plain.source_status("t")["findings"] == []
        plain.sql("DROP TRIGGER latchkey_insert ON t")
        plain.reload("public.t")
        until(lambda: plain.source_status("t")["findings"], 10, "it is found")
        status = plain.source_status("t")
        (finding,) = status["findings"]
        assert (finding["number"], finding["severity"]) == ("L111", "error")
        assert status["problems"] == [finding["text"]]
        assert f'source "t": L111: {finding["text"]}' in daemon.log()
        human = plain.cli.run("--socket", str(plain.socket), "status").expect(0).stdout
        assert "L111 error: trigger_missing" in human and "PROBLEM: table public.t: " in human
        plain.install()
        plain.reload("public.t")
        until(lambda: not plain.source_status("t")["findings"], 10, "it is mended")
        until(lambda: "L111: trigger_missing is no longer so" in daemon.log(), 10, "said")


def test_a_table_of_which_no_row_can_be_used_fails_the_check_only(plain: Installation) -> None:
    plain.source("t", **BASE, scheme="sha256", encoding="hex")
    plain.install()
    checked = check_config(plain.config).expect(1).stdout
    assert findings_of(checked) == {"t": {"L202": 1, "L211": 0}}
    assert "would start, but" in checked and SECRET not in checked
    with plain.serve() as daemon:
        assert [each["number"] for each in plain.source_status("t")["findings"]] == ["L202", "L211"]
        assert "L211: " in daemon.log() and SECRET not in daemon.log()


def test_a_superuser_is_noted(cluster: PrivateCluster, databases: Databases) -> None:
    site = Installation(cluster, databases.new(), user=SUPERUSER, allow_superuser=True)
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE)")
    site.sql(f"INSERT INTO t VALUES (1, '{LONG}1')")
    site.source("t", table="public.t", id="id", key="key")
    site.install()
    checked = site.check()
    assert findings_of(checked) == {"t": {"L403": 0}}
    assert "latchkey sql grant --source t" in checked
    site.close()


def test_a_role_that_bypasses_policies_is_warned_of(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Earlier versions granted BYPASSRLS. A grant for all sources revokes it."""
    site = Installation(cluster, databases.new(), user="bypasses")
    site.sql("CREATE TABLE t (id int PRIMARY KEY, key text UNIQUE)")
    site.sql(f"INSERT INTO t VALUES (1, '{LONG}1')")
    site.source("t", table="public.t", id="id", key="key")
    site.install()
    site.sql("ALTER ROLE bypasses BYPASSRLS")
    assert findings_of(site.check()) == {"t": {"L407": 0}}
    site.grant()
    assert "in order" in site.check()
    site.close()


def test_a_key_column_taken_for_the_pepper_version_is_not_shown(plain: Installation) -> None:
    """If an operator maps the wrong column, its content must not appear in the log."""
    seeds.Pepper.random("pepper_v2").write_to(plain.peppers)
    plain.sql(f"INSERT INTO t SELECT i, '{LONG}' || i, 'active' FROM generate_series(2, 20) AS i")
    plain.sql("ALTER TABLE t ADD COLUMN digest bytea; UPDATE t SET digest = sha256(key::bytea)")
    plain.source(
        "t",
        table="public.t",
        id="id",
        key="digest",
        key_version="key",
        scheme="hmac-sha256",
        encoding="raw",
        peppers=str(plain.peppers),
    )
    plain.install()
    checked = plain.check()
    assert findings_of(checked)["t"]["L203"] == 20
    assert "`key_version` may name the wrong column" in checked and SECRET not in checked
