"""Findings of docs/lint.md: the sections of the document, the findings of a check, and changes that cause errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from harness.postgres import SUPERUSER
from harness.programs import REPOSITORY
from installation import Installation, Setting

# Every planted key, and every text that could be mistaken for one, contains this.
SECRET = "sk_planted"
LONG = f"{SECRET}_long_enough_to_pass_"

DOCUMENT = (REPOSITORY / "docs/lint.md").read_text()
# Number -> (severity, name, text of the section)
SECTIONS = {
    number: (severity, name, text)
    for number, severity, name, text in re.findall(
        r"^## (L\d+) (\w+): (\w+)\n(.*?)(?=^#|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL
    )
}


def findings_of(checked: str) -> dict[str, Counter[str]]:
    """Source or database -> the numbers of its findings, each with its count of rows or 0."""
    found: dict[str, Counter[str]] = {}
    lines = re.findall(r'^(\d+)\. (L\d+) (\w+): (?:source|database) "(\w+)": (.*)$', checked, re.M)
    assert [int(place) for place, *_ in lines] == list(range(1, len(lines) + 1)), "numbered"
    for _, number, severity, about, text in lines:
        assert severity == SECTIONS[number][0]
        counts = found.setdefault(about, Counter())
        assert number not in counts, f"{number} twice for {about}"
        rows = re.match(r"(\d+) ", text)
        counts[number] = int(rows[1]) if rows else 0
    return found


def change(text: str) -> Callable[[Installation], None]:
    return lambda site: site.sql(text) and None


def remap(**settings: Setting) -> Callable[[Installation], None]:
    """Map a column to another one, and install the triggers for it."""

    def prepare(site: Installation) -> None:
        site.source("t", **{**BASE, **settings})
        site.install()

    return prepare


def hide(site: Installation) -> None:
    site.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER ROLE latchkey NOBYPASSRLS")


def connect_as_superuser(site: Installation) -> None:
    site.database["conninfo"] = site.cluster.conninfo(site.dbname, SUPERUSER)


def map_a_composite(site: Installation) -> None:
    site.sql("CREATE TYPE odd AS (a text); ALTER TABLE t ADD odd odd; GRANT SELECT ON t TO latchkey")
    site.source("t", **BASE, tenant="odd")
    site.install()


def index_by_code_of_eve(site: Installation) -> None:
    site.sql(
        """CREATE FUNCTION f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
        ALTER FUNCTION f(int) OWNER TO eve; CREATE INDEX ON t ((f(1) + id))"""
    )


def name_another_password(site: Installation) -> None:
    site.password_file.write_text("wrong\n")
    site.freshness["start_timeout"] = "2s"  # the daemon retries for this long


BASE: dict[str, Setting] = {"table": "public.t", "id": "id", "key": "key", "status": "status"}
# Number -> a change that causes it, and a part of the advice.
ERRORS: dict[str, tuple[Callable[[Installation], None], str]] = {
    "L001": (name_another_password, "`password_file`"),
    "L101": (change("DROP TABLE t"), "Set `table`"),
    "L102": (change("ALTER TABLE t RENAME TO r; CREATE VIEW t AS TABLE r"), "behind it"),
    "L103": (change("REVOKE USAGE ON SCHEMA public FROM PUBLIC, latchkey"), "latchkey sql grant"),
    "L104": (change("ALTER TABLE t DROP COLUMN status"), "Its columns are: flag, id, key"),
    "L105": (change("REVOKE SELECT (status) ON t FROM latchkey"), "latchkey sql grant"),
    "L106": (change("ALTER TABLE t DROP CONSTRAINT t_pkey"), "primary key"),
    "L107": (change("ALTER TABLE t ALTER COLUMN key TYPE bytea USING NULL"), "set `scheme`"),
    "L108": (remap(enabled="flag"), "use `status`"),
    "L109": (remap(expires_at="flag"), "must be a timestamp"),
    "L110": (hide, "makes a policy"),
    "L111": (change("DROP TRIGGER latchkey_delete ON t"), "latchkey sql install"),
    "L112": (
        change("DROP TRIGGER latchkey_delete ON t; CREATE TRIGGER latchkey_delete AFTER DELETE"
               " ON t EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
        "latchkey sql install",
    ),
    "L113": (change("ALTER TABLE t DISABLE TRIGGER latchkey_update"), "latchkey sql install"),
    "L002": (connect_as_superuser, "allow_superuser = true"),
    "L117": (map_a_composite, "change its type"),
    "L118": (index_by_code_of_eve, "a role of its own"),
    "L119": (change("ALTER SCHEMA latchkey OWNER TO eve"), "latchkey sql install"),
}
