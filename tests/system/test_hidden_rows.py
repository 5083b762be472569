"""Row-level security: hidden rows never look like a table without keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from harness.programs import Daemon, check_config
from installation import Databases, Installation

READER = "plain_reader"  # a role that may read everything granted to it, and has no BYPASSRLS


@pytest.fixture
def hidden(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """A table full of keys. Row-level security hides all of them from a plain role, without an error."""
    site = Installation(cluster, databases.new("auth_api_key"), user=READER)
    site.source("auth", preset="auth_api_key")
    cluster.create_role(READER)
    site.sql(f"GRANT USAGE ON SCHEMA auth TO {READER}; GRANT SELECT ON auth.api_key TO {READER}")
    site.cluster.psql(site.cli.sql("install", site.config), site.dbname)
    seeds.fill_auth(site.conn, 10)
    assert site.cluster.sql("SELECT * FROM auth.api_key", dbname=site.dbname, user=READER) == []
    yield site
    site.close()


def hide_from_owner(site: Installation) -> None:
    """The owner is exempt from row-level security, unless it is forced."""
    site.sql(f"ALTER TABLE auth.api_key OWNER TO {READER}")
    site.sql("ALTER TABLE auth.api_key FORCE ROW LEVEL SECURITY")


@pytest.mark.parametrize("prepare", [lambda site: None, hide_from_owner], ids=["role", "owner"])
def test_hidden_rows_stop_the_start_with_cause_and_remedy(
    hidden: Installation, prepare: Callable[[Installation], None]
) -> None:
    prepare(hidden)
    checked = check_config(hidden.config).expect(1)
    with Daemon(hidden.config, wait=False) as daemon:
        assert daemon.wait_exit() == 1
        assert daemon.notifications.count("READY=1") == 0
    for text in (checked.stdout, daemon.log()):
        assert "row level security hides rows of auth.api_key" in text
        assert "latchkey sql grant" in text and "makes a policy" in text


def test_what_grant_prints_makes_hidden_rows_visible(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new("auth_api_key"), user="rls_granted")
    site.source("auth", preset="auth_api_key")
    seeds.fill_auth(site.conn, 10)
    site.install()
    assert "10 rows read, 10 keys" in site.check()
    site.close()


def test_row_level_security_switched_on_later_never_looks_like_no_keys(
    cluster: PrivateCluster, databases: Databases
) -> None:
    site = Installation(cluster, databases.new("external_credentials"), user="rls_later")
    site.source("external", preset="external_credentials")
    seeds.insert_external(site.conn, "ext_1", 1)
    row = seeds.insert_external(site.conn, "ext_2", 2)
    with site.serve():
        site.sql("ALTER TABLE public.external_credentials ENABLE ROW LEVEL SECURITY")
        site.sql("UPDATE public.external_credentials SET deleted_at = now() WHERE id = %s", row)
        site.cli.sync("500ms", expect=3)
        assert site.cli.verify("ext_1").names == ["valid"]
        site.wait_source("external", suspended=True)
        assert "row level security" in site.source_status("external")["problems"][0]
        site.sql("ALTER TABLE public.external_credentials DISABLE ROW LEVEL SECURITY")
        assert site.ask("ext_1", "ext_2").names == ["valid", "deleted"]
    site.close()
