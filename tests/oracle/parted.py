"""A table with partitions that are detached, changed, attached, replaced and truncated."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import ClassVar

from installation import Installation
from psycopg2.extensions import cursor as Cursor

from .shifting import Kind, Shifting


class Parted(Shifting):
    """Three partitions of a hundred ids; the last one has two partitions itself."""

    source = "parted"
    table = "public.parted"
    # Partition -> its parent, and the range of its ids. Parents first.
    _PARTS: ClassVar[dict[str, tuple[str, int, int]]] = {
        "parted_0": ("parted", 0, 100),
        "parted_1": ("parted", 100, 200),
        "parted_2": ("parted", 200, 300),
        "parted_20": ("parted_2", 200, 250),
        "parted_25": ("parted_2", 250, 300),
    }

    def create(self, site: Installation) -> None:
        columns = "(n int NOT NULL, id int PRIMARY KEY, key text NOT NULL, who text, revoked_at timestamptz)"
        site.sql(f"CREATE TABLE public.parted {columns} PARTITION BY RANGE (id)")
        for name in self._PARTS:
            site.sql(self._create_part(name))

    def _create_part(self, name: str) -> str:
        parent, low, high = self._PARTS[name]
        more = " PARTITION BY RANGE (id)" if name == "parted_2" else ""
        return f"CREATE TABLE public.{name} PARTITION OF public.{parent} FOR VALUES FROM ({low}) TO ({high}){more}"

    def _attached(self, cursor: Cursor) -> dict[str, bool]:
        """Whether each partition is attached to its parent."""
        cursor.execute("SELECT relname, relispartition FROM pg_class WHERE relname = ANY (%s)", (list(self._PARTS),))
        return dict(cursor.fetchall())

    def numbers(self, cursor: Cursor) -> Sequence[int]:
        attached = self._attached(cursor)
        leaves = [name for name in self._PARTS if name != "parted_2" and self._in_table(name, attached)]
        return [n for name in leaves for n in range(self._PARTS[name][1], self._PARTS[name][1] + 12)]

    def _in_table(self, name: str, attached: Mapping[str, bool]) -> bool:
        return name == "parted" or (attached[name] and self._in_table(self._PARTS[name][0], attached))

    def _toggle(self, cursor: Cursor, name: str) -> bool:
        """Detach the partition, or attach it again."""
        parent, low, high = self._PARTS[name]
        if self._attached(cursor)[name]:
            return self.sql(cursor, f"ALTER TABLE public.{parent} DETACH PARTITION public.{name}")
        # Keys inserted elsewhere meanwhile must not stand in it, too.
        cursor.execute(f"DELETE FROM public.{name} WHERE key IN (SELECT key FROM public.parted)")
        bounds = f"FOR VALUES FROM ({low}) TO ({high})"
        return self.sql(cursor, f"ALTER TABLE public.{parent} ATTACH PARTITION public.{name} {bounds}")

    def _detach_or_attach(self, cursor: Cursor, dice: random.Random) -> bool:
        detached = [name for name, attached in self._attached(cursor).items() if not attached]
        # Most of the time all partitions are attached.
        return self._toggle(cursor, dice.choice(sorted(detached) if detached else list(self._PARTS)))

    def _change_apart(self, cursor: Cursor, dice: random.Random) -> bool:
        """Detach, change, attach: afterwards the partitions are the same."""
        name = dice.choice(list(self._PARTS))
        if not self._in_table(name, self._attached(cursor)):
            return False
        self._toggle(cursor, name)
        value = dice.choice(["now()", "now()", "NULL"])
        cursor.execute(f"UPDATE public.{name} SET revoked_at = {value} WHERE n % 2 = {dice.randrange(2)}")
        return self._toggle(cursor, name)

    def _truncate(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, f"TRUNCATE public.{dice.choice(list(self._PARTS))}")

    def _replace(self, cursor: Cursor, dice: random.Random) -> bool:
        """Replace a partition by a new table with other rows or none."""
        name = dice.choice([name for name in self._PARTS if name != "parted_2"])
        if not self._attached(cursor)[name]:
            return False
        some = f"n % 3 <> {dice.randrange(4)}"
        cursor.execute(f"CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM public.{name} WHERE {some}")
        parent = self._PARTS[name][0]
        cursor.execute(f"DROP TABLE public.{name}; {self._create_part(name)}")
        cursor.execute(f"ALTER TABLE public.{parent} DETACH PARTITION public.{name}")
        cursor.execute(f"INSERT INTO public.{name} SELECT n, id, key, who, now() FROM kept")
        return self._toggle(cursor, name)

    kinds = {
        "detached or attached": Kind(_detach_or_attach),
        "detached, changed, attached": Kind(_change_apart),
        "partition truncated": Kind(_truncate),
        "partition replaced": Kind(_replace),
        "column rewritten": Kind(Shifting.rewrite),
    }
