"""A table with a column for the last use, and the values written there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from harness.postgres import PrivateCluster
from harness.wait import until
from installation import Databases, Installation

SOON = '[last_used]\nflush = "1s"\n'
LATE = '[last_used]\nflush = "10m"\n'  # later than the daemon's end


@contextlib.contextmanager
def writing_soon(cluster: PrivateCluster, databases: Databases) -> Iterator[Installation]:
    """An installation that writes uses back within a second or so."""
    with contextlib.closing(Installation(cluster, databases.new())) as there:
        there.more = SOON
        yield there


def table(
    site: Installation, column: str = "timestamptz", id_type: str = "int", **settings: Any
) -> None:
    """Create a table with a column for the last use, mapped unless `last_used_at` is false."""
    site.sql(
        f"CREATE TABLE t (id {id_type} PRIMARY KEY, key text, off timestamptz, used {column})"
    )
    mapped = {"last_used_at": "used"} | settings
    if mapped["last_used_at"] is False:
        del mapped["last_used_at"]
    site.source("t", table="public.t", id="id", key="key", revoked_at="off", **mapped)


def rows(site: Installation, *numbers: int) -> None:
    for number in numbers:
        site.sql("INSERT INTO t VALUES (%s, %s)", number, f"key {number}")


def used(site: Installation, row_id: int | str = 1) -> Any:
    return site.value("SELECT used FROM t WHERE id = %s", row_id)


def last_used(site: Installation) -> dict[str, int]:
    return site.source_status("t")["last_used"]


def wait_used(site: Installation, *row_ids: int | str) -> None:
    def all_written() -> bool:
        return all(used(site, row_id) is not None for row_id in row_ids)

    until(all_written, 30, f"the last use of {row_ids} is written")
