"""PostgreSQL's error messages may contain a row, and so a key: the daemon repeats none of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from harness.postgres import PrivateCluster
from harness.programs import check_config
from harness.wait import until
from installation import Databases, Installation

SECRET = "sk_live_do_not_repeat_me"
ESCAPE = "\x1b[2J"


@pytest.fixture
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    made = Installation(cluster, databases.new())
    made.sql("CREATE TABLE k (id int PRIMARY KEY, key text, note text, used timestamptz)")
    made.sql("INSERT INTO k VALUES (1, %s, %s)", SECRET, ESCAPE)
    made.source("k", table="public.k", id="id", key="key", last_used_at="used")
    made.more = '[last_used]\nflush = "1s"\n'
    yield made
    made.close()


FAILURES = {
    "check": ("ALTER TABLE k ADD CONSTRAINT never_used CHECK (used IS NULL)", "23514", "never_used"),
    "raised": (
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'row is %', NEW USING DETAIL = NEW.key, HINT = NEW.note; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION no()""",
        "P0001",
        "its own log",
    ),
    "raised as a lock": (
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'row is %', NEW USING ERRCODE = '55P03'; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION no()""",
        "55P03",
        "its own log",
    ),
    "constraint that is a key": (
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '23514', CONSTRAINT = NEW.key; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION no()""",
        "23514",
        "its own log",
    ),
    "name that is a key": (
        "ALTER TABLE k ADD CHECK (has_table_privilege(key || note, 'SELECT')) NOT VALID",
        "42P01",
        "its own log",
    ),
    "setting that is a key": (
        "ALTER TABLE k ADD CHECK (current_setting(key) IS NULL) NOT VALID",
        "42704",
        "its own log",
    ),
    "value": (
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.id := NEW.key::int; RETURN NEW; END $$;
        CREATE TRIGGER t BEFORE UPDATE ON k FOR EACH ROW EXECUTE FUNCTION no()""",
        "22P02",
        "its own log",
    ),
    "unique": (
        """CREATE UNIQUE INDEX once ON k ((used IS NOT NULL), note); INSERT INTO k VALUES (2, 'x', E'\\x1b[2J', now())""",
        "23505",
        "once",
    ),
}


@pytest.mark.parametrize(("harm", "sqlstate", "words"), FAILURES.values(), ids=FAILURES.keys())
def test_no_row_is_repeated_when_a_use_cannot_be_written(
    site: Installation, harm: str, sqlstate: str, words: str
) -> None:
    with site.serve() as daemon:
        site.sql(harm)
        assert site.ask(SECRET).names == ["valid"]
        until(lambda: "cannot be written" in daemon.log(), 20, "the failure is logged")
        told = daemon.log() + json.dumps(site.cli.status())
        assert sqlstate in told and words in told
        for unwanted in (SECRET, "\x1b", "Failing row", "DETAIL", "HINT", "CONTEXT"):
            assert unwanted not in told


def test_no_row_is_repeated_when_a_table_cannot_be_read(site: Installation) -> None:
    """While PostgreSQL plans the query, the function of an index fails for a row."""
    site.install()
    site.sql(
        """CREATE FUNCTION no(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN IF current_user = 'latchkey' THEN
            RAISE EXCEPTION 'row is sk_live_do_not_repeat_me' USING DETAIL = 'sk_live_do_not_repeat_me';
        END IF; RETURN 1; END $$;
        CREATE INDEX ON k ((no(1) + id))"""
    )
    done = check_config(site.config)
    assert done.exit_code == 1
    assert "P0001" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
