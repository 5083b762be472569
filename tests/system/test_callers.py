"""Rights of callers: the kernel names the caller's uid, the configuration grants it sources."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import seeds, wire
from harness.wait import until
from harness.wire import Raw
from installation import Databases, Installation
from test_limits import as_uid

ALLOWED, RESTRICTED, CURIOUS, STRANGER, BY_GROUP, CHECKER = 4001, 4002, 4003, 4004, 4005, 4006

RULES = f"""
[[allow]]
uid = {ALLOWED}
[[allow]]
uid = {RESTRICTED}
sources = ["other"]
[[allow]]
uid = {CURIOUS}
reasons = true
metadata = true
[[allow]]
uid = {CHECKER}
operations = ["verify", "sync"]
[[allow]]
gid = 4100
"""


@pytest.fixture(scope="module")
def served(cluster, databases: Databases) -> Iterator[Installation]:
    there = Installation(cluster, databases.new("external_credentials"))
    there.sql(
        "CREATE TABLE other (id int PRIMARY KEY, token text NOT NULL, expires_at timestamptz);"
        "INSERT INTO other VALUES (1, 'other_key', NULL), (2, 'other_old', now() - interval '1 day')"
    )
    there.source("main", preset="external_credentials", metadata="data")
    there.source(
        "other", table="public.other", id="id", key="token", expires_at="expires_at", scheme="plain"
    )
    there.listen["mode"] = "0666"
    there.more = RULES
    seeds.insert_external(there.conn, "sk_good", 42, {"plan": "gold"})
    seeds.insert_external(there.conn, "sk_gone", 43, deleted=True)
    with there.serve():
        yield there
    there.close()


def test_a_caller_without_reasons_learns_only_that_a_key_is_no_good(served: Installation) -> None:
    good, gone, old = served.cli.verify(["sk_good", "sk_gone", "other_old"], uid=ALLOWED)
    assert (good["verdict"], good["sub"]) == ("valid", "42")
    for answer in (gone, old):
        assert set(answer) == {"active", "verdict", "fresh", "age_ms"}
        assert answer["verdict"] == "unknown"


def test_a_caller_asks_only_what_its_rule_allows(served: Installation) -> None:
    before = served.cli.status()["refused_operations"]
    assert served.cli.verify(["sk_good"], uid=CHECKER).names == ["valid"]
    served.cli.sync(uid=CHECKER)
    served.cli.ping(uid=CHECKER)
    for refused in (
        served.cli.why("sk_good", uid=CHECKER, expect=3),
        served.cli._ask("status", uid=CHECKER).expect(3),
    ):
        assert "operation_not_allowed" in refused.stderr
    assert served.cli.status()["refused_operations"] == before + 2


def test_a_caller_with_reasons_is_told_them_and_whose_key_it_was(served: Installation) -> None:
    gone, old = served.cli.verify(["sk_gone", "other_old"], uid=CURIOUS)
    assert (gone["verdict"], gone["sub"]) == ("deleted", "43")
    assert old["verdict"] == "expired"


def test_counters_know_the_true_verdicts_whatever_callers_are_told(served: Installation) -> None:
    before = served.cli.status()["verdicts"]
    served.cli.verify(["sk_gone"], uid=ALLOWED)
    after = served.cli.status()["verdicts"]
    assert after["deleted"] == before["deleted"] + 1
    assert after["unknown"] == before["unknown"]


def test_a_restricted_caller_sees_its_sources_and_no_others(served: Installation) -> None:
    answers = served.cli.verify(["other_key", "sk_good"], uid=RESTRICTED)
    assert answers.names == ["valid", "unknown"]
    assert served.cli.verify(["sk_good"], source="main", uid=RESTRICTED).names == ["forbidden"]
    # The answer must not reveal whether a source exists.
    assert served.cli.verify(["sk_good"], source="nowhere", uid=RESTRICTED).names == ["forbidden"]


def test_metadata_are_for_those_who_may_and_ask(served: Installation) -> None:
    def metadata(uid: int, *options: str) -> object:
        asked = served.cli.run(
            "--socket", str(served.socket), "verify", "--json", *options, stdin=b"sk_good\n", uid=uid
        )
        return asked.expect(0).json_lines()[0].get("metadata")

    assert metadata(CURIOUS, "--metadata") == '{"plan": "gold"}'
    assert metadata(CURIOUS) is None
    assert metadata(ALLOWED, "--metadata") is None


def test_a_group_admits_its_members(served: Installation) -> None:
    assert served.cli.verify(["sk_good"], uid=BY_GROUP, gid=4100).names == ["valid"]


def test_a_stranger_is_refused_explicitly_and_counted(served: Installation) -> None:
    before = served.cli.status()["connections"]["refused_not_allowed"]
    asked = served.cli.run("--socket", str(served.socket), "verify", stdin=b"sk_good\n", uid=STRANGER)
    assert asked.exit_code == 3
    assert asked.stdout == ""
    assert "[[allow]]" in asked.stderr
    assert served.cli.status()["connections"]["refused_not_allowed"] == before + 1


def test_root_may_ask_everything_unless_a_rule_names_it(served: Installation) -> None:
    assert served.cli.verify(["sk_gone"]).names == ["deleted"]


def test_status_tells_no_more_than_verdicts_do(served: Installation) -> None:
    for uid, names in ((ALLOWED, ["main", "other"]), (RESTRICTED, ["other"])):
        status = served.cli.status(uid=uid)
        assert set(status) == {"version", "uptime_s", "sources"}
        assert [source["name"] for source in status["sources"]] == names
        assert all(set(source) == {"name", "state", "age_ms"} for source in status["sources"])
        brief = served.cli.run("--socket", str(served.socket), "status", uid=uid).expect(0)
        assert "fresh" in brief.stdout
    assert "verdicts" in served.cli.status(uid=CURIOUS)


def test_a_reload_changes_who_may_ask(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("main", preset="external_credentials")
    there.source("second", preset="external_credentials")
    there.listen["mode"] = "0666"
    seeds.insert_external(there.conn, "sk_good", 42)
    with there.serve() as daemon:
        assert there.cli.run("--socket", str(there.socket), "ping", uid=STRANGER).exit_code == 3
        there.more = f"[[allow]]\nuid = {STRANGER}\n"
        daemon.write_config(there.config)
        daemon.sighup()
        daemon.wait_notified("READY=1", 2)
        assert there.cli.verify(["sk_good"], uid=STRANGER).names == ["valid"]

        there.more = f"[[allow]]\nuid = {STRANGER}\nsources = [\"main\"]\n"
        with Raw(there.socket) as ours:  # root's connection; no rule names uid 0
            assert ours.ask(wire.verify([b"sk_good"])).verdicts == ["valid"]
            there.more = "[[allow]]\nuid = 0\nsources = [\"second\"]\n" + there.more
            daemon.write_config(there.config)
            daemon.sighup()
            daemon.wait_notified("READY=1", 3)
            # The new rules apply to an open connection too.
            until(
                lambda: ours.ask(wire.verify([b"sk_good"], source=b"main")).verdicts
                == ["forbidden"],
                10,
                "the rules reach open connections",
            )

        daemon.write_config("this is not TOML")
        daemon.sighup()
        daemon.wait_notified("READY=1", 4)
        assert there.cli.verify(["sk_good"], uid=STRANGER).names == ["valid"]
        until(lambda: "everything stays as it was" in daemon.log(), 10, "it is said")
    there.close()


def test_over_the_limit_of_connections_callers_are_told_so(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("main", preset="external_credentials")
    there.listen["mode"] = "0666"
    there.more = f"[limits]\nconnections = 3\n[[allow]]\nuid = {ALLOWED}\n"
    with there.serve(), as_uid(ALLOWED):
        kept = [Raw(there.socket) for _ in range(3)]
        for raw in kept:
            assert raw.ask(wire.frame(wire.PING)).type == wire.PONG
        with Raw(there.socket) as one_too_many:
            (refused,) = one_too_many.all()
            assert (refused.error, refused.request_id) == ("overloaded", 0)
        for raw in kept:
            assert raw.ask(wire.frame(wire.PING)).type == wire.PONG
            raw.socket.close()
    there.close()
