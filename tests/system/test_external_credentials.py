"""public.external_credentials: keys in plain text, soft-deleted, without expiry or scopes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Installation

NO_ONE = 61234  # a uid that no rule allows
LIMITED = 61235  # a uid that may ask the other source only


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    site = Installation(cluster, databases.new("external_credentials"))
    site.source("external_credentials", preset="external_credentials")
    site.source(
        "other", table="public.other", id="id", key="key", scheme="plain", metadata="about"
    )
    site.sql("CREATE TABLE public.other (id int PRIMARY KEY, key text, about json)")
    site.sql("INSERT INTO public.other VALUES (1, 'other_key', '{\"plan\": \"gold\"}')")
    site.listen["mode"] = "0666"
    site.more = f"""
        [[allow]]
        uid = {LIMITED}
        sources = ["other"]
    """
    with site.serve():
        yield site
    site.close()


@pytest.fixture(scope="module")
def live_id(site: Installation) -> int:
    return seeds.insert_external(site.conn, "ext_live", 77, {"plan": "gold"})


def test_a_live_key_is_valid_with_the_claims_of_its_row(site: Installation, live_id: int) -> None:
    before = site.source_status("external_credentials")["accepted"]
    answers = site.ask("ext_live")
    assert answers.exit_code == 0
    (answer,) = answers
    assert 0 <= answer.pop("age_ms") < 10_000
    assert answer == {
        "active": True,
        "verdict": "valid",
        "source": "external_credentials",
        "key_id": str(live_id),
        "sub": "77",
        "fresh": True,
    }
    assert site.source_status("external_credentials")["accepted"] == before + 1


def test_a_key_that_no_row_holds_is_unknown(site: Installation) -> None:
    answers = site.ask("ext_nobody_has_this")
    assert answers.exit_code == 1
    assert answers[0].keys() == {"active", "verdict", "fresh", "age_ms"}
    assert answers.names == ["unknown"]
    assert answers[0]["active"] is False and answers[0]["fresh"] is True


@pytest.mark.parametrize(
    "key", [b"", b"x" * 4097, b"x" * 100_000, b"ext\0live"], ids=["empty", "long", "huge", "NUL"]
)
def test_what_cannot_be_a_key_is_malformed(site: Installation, key: bytes) -> None:
    answers = site.ask(key)
    assert answers.exit_code == 1
    assert answers == [{"active": False, "verdict": "malformed", "fresh": True, "age_ms": 0}]


@pytest.mark.parametrize(
    "near",
    ["ext_liv", "ext_live ", " ext_live", "EXT_LIVE", "ext_live\t", "ext_live%", "ext_lıve"],
)
def test_only_the_exact_key_matches(site: Installation, live_id: int, near: str) -> None:
    assert live_id and site.verdict(near) == "unknown"


@pytest.mark.parametrize(
    "key", ["ключ-🔑", "a", "k" * 255, "'; DROP TABLE x; --", "back\\slash", 'quo"te', "%s {} $1"]
)
def test_any_text_may_be_a_key(site: Installation, key: str) -> None:
    seeds.insert_external(site.conn, key, 1)
    assert site.verdict(key) == "valid"


def test_bytes_that_are_no_text_are_just_unknown(site: Installation) -> None:
    assert site.verdict(b"\xff\xfe\x80") == "unknown"


def test_a_soft_deleted_key_is_deleted_and_says_whose_it_was(site: Installation) -> None:
    row = seeds.insert_external(site.conn, "ext_gone", 78, deleted=True)
    answers = site.ask("ext_gone")
    assert answers.exit_code == 1
    assert site.claims("ext_gone") == {
        "active": False,
        "verdict": "deleted",
        "source": "external_credentials",
        "key_id": str(row),
        "sub": "78",
        "fresh": True,
    }


def test_a_deleted_row_leaves_nothing(site: Installation) -> None:
    row = seeds.insert_external(site.conn, "ext_removed", 79)
    assert site.verdict("ext_removed") == "valid"
    site.sql("DELETE FROM public.external_credentials WHERE id = %s", row)
    assert site.claims("ext_removed") == {"active": False, "verdict": "unknown", "fresh": True}


@pytest.mark.parametrize("terms", [{"scopes": ["read"]}, {"any_scopes": ["read", "write"]}])
def test_a_key_without_scopes_never_has_enough(
    site: Installation, live_id: int, terms: dict[str, list[str]]
) -> None:
    answers = site.ask("ext_live", **terms)
    assert answers.names == ["insufficient_scope"] and answers.exit_code == 1
    assert answers[0]["key_id"] == str(live_id) and "scope" not in answers[0]


def test_the_source_asked_for_is_the_only_one_that_speaks(site: Installation, live_id: int) -> None:
    assert live_id and site.verdict("ext_live", source="other") == "unknown"
    assert site.verdict("other_key", source="external_credentials") == "unknown"
    assert site.verdict("other_key", source="other") == "valid"


def test_a_source_that_does_not_exist_is_a_usage_error(site: Installation) -> None:
    done = site.cli.run(
        "--socket", str(site.socket), "verify", "--source", "nonsense", stdin=b"ext_live\n"
    )
    assert done.exit_code == 2 and done.stdout == "" and "source" in done.stderr


def test_a_caller_without_the_right_to_a_source_is_forbidden(site: Installation) -> None:
    answers = site.ask("other_key")
    assert answers.names == ["valid"]
    answers = site.cli.verify("ext_live", source="external_credentials", uid=LIMITED)
    assert answers.names == ["forbidden"] and answers.exit_code == 1
    assert "key_id" not in answers[0]
    assert site.cli.verify("ext_live", uid=LIMITED).names == ["unknown"]
    assert site.cli.verify("other_key", uid=LIMITED).names == ["valid"]


def test_a_caller_whom_no_rule_allows_gets_no_answer(site: Installation) -> None:
    before = site.cli.status()["connections"]["refused_not_allowed"]
    answers = site.cli.verify("ext_live", uid=NO_ONE)
    assert answers == [] and answers.exit_code == 3
    assert site.cli.status()["connections"]["refused_not_allowed"] == before + 1


def test_metadata_come_only_where_mapped_allowed_and_asked_for(site: Installation) -> None:
    def metadata(key: bytes, *options: str, uid: int | None = None) -> str | None:
        command = ["--socket", str(site.socket), "--json", "verify", *options]
        done = site.cli.run(*command, stdin=key + b"\n", uid=uid).expect(0)
        return done.json_lines()[0].get("metadata")

    assert metadata(b"other_key", "--metadata") == '{"plan": "gold"}'
    assert metadata(b"other_key") is None
    assert metadata(b"other_key", "--metadata", uid=LIMITED) is None
    assert metadata(b"ext_live", "--metadata") is None


def test_many_keys_are_answered_in_order_and_counted(site: Installation, live_id: int) -> None:
    seeds.fill_external(site.conn, 500, "batch")
    keys = [seeds.key_text("batch", i) for i in range(1, 501)]
    mixed = [key if i % 3 else key + "x" for i, key in enumerate(keys)]
    site.cli.sync("30s")
    before = site.cli.status()["verdicts"]
    answers = site.cli.verify(mixed)
    assert answers.names == ["valid" if i % 3 else "unknown" for i in range(500)]
    after = site.cli.status()["verdicts"]
    counted = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert counted == {"valid": 333, "unknown": 167} and live_id
