"""A table with columns of many types that move, come and go, and change their type, label or collation."""

from __future__ import annotations

import random
from typing import ClassVar

from harness import seeds
from installation import Installation
from psycopg2.extensions import cursor as Cursor

from .shifting import GOOD, READER, Kind, Shifting

_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")


class Mixed(Shifting):
    """Columns of many types that move, come and go; labels of an enum; ids whose text depends on settings;
    keys and ids that a collation or a type treats as equal.

    The keys come in pairs that differ only in case.
    """

    source = "mixed"
    table = "public.mixed"
    places = ("public.mixed_away",)
    has_status = True
    _IDS: ClassVar[dict[str, str]] = {
        "integer": "n",
        "smallint": "n",
        "bigint": "n + 10000000000",
        "character varying": "'v' || n",
        "uuid": "lpad(to_hex(n), 32, '0')::uuid",
        "public.number": "n",
        "bytea": "decode(lpad(to_hex(n + 65280), 8, '0'), 'hex')",
        "date": "date '2024-02-01' + n",
        "timestamp without time zone": "timestamp '2024-02-01' + n * interval '90 minutes'",
        "timestamp with time zone": "timestamptz '2024-02-01 00:00+00' + n * interval '90 minutes'",
        "interval": "n * interval '1 hour'",
        "double precision": "n / 7.0",
        "real": "n / 7.0",
        "numeric": "n::numeric(10, 1)",
        "character": "'c' || n",
        "date[]": "ARRAY[date '2024-02-01' + n]",
        "text": "'k' || n",
    }
    _TYPES: ClassVar[dict[str, str]] = {"character": "char(8)", "text": "text COLLATE public.any_case"}
    # Another value that the type treats as equal.
    _EQUALS: ClassVar[dict[str, str]] = {
        "text": "CASE WHEN {} THEN upper(id) ELSE lower(id) END",
        "numeric": "CASE WHEN {} THEN round(id, 3) ELSE round(id, 1) END",
        "interval": "CASE WHEN {} THEN justify_hours(id) ELSE n * interval '1 hour' END",
    }
    _WHO = ("integer", "bigint", "smallint", "real", "text", "character varying", "numeric")
    _STATUS = ("public.mood", "public.feeling", "public.deep", "text")

    def texts(self, seed: str, count: int) -> list[str]:
        small = [seeds.key_text(seed, i) for i in range(count // 2)]
        return small + [text.upper() for text in small]

    def create(self, site: Installation) -> None:
        site.sql(
            """CREATE COLLATION public.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            CREATE DOMAIN public.number AS int; CREATE TYPE public.mood AS ENUM ('good', 'better', 'blocked');
            CREATE DOMAIN public.feeling AS public.mood; CREATE DOMAIN public.deep AS public.feeling;
            CREATE TABLE public.mixed (n int NOT NULL UNIQUE, id int PRIMARY KEY,
                key text COLLATE public.any_case NOT NULL, who int, revoked_at timestamptz, other timestamptz,
                status public.mood)"""
        )

    def configure(self, site: Installation) -> None:
        roles = {name: name for name in ("id", "key", "revoked_at", "status")} | {"subject": "who"}
        site.source(self.source, table=self.table, status_active=list(GOOD), **roles)

    def id_of(self, kind: str) -> str:
        return self._IDS[kind if kind in self._IDS else "public.number"]

    # ---- types

    def _id_type(self, cursor: Cursor, dice: random.Random) -> bool:
        before = self.columns(cursor)["id"]
        return self._make_id(cursor, dice.choice([kind for kind in self._IDS if kind != before]))

    def _make_id(self, cursor: Cursor, kind: str) -> bool:
        return self.change_type(cursor, "id", self._TYPES.get(kind, kind), self._IDS[kind])

    def _equal_id(self, cursor: Cursor, dice: random.Random) -> bool:
        kind = self.columns(cursor)["id"]
        if kind not in self._EQUALS:
            kind = dice.choice(list(self._EQUALS))
            self._make_id(cursor, kind)
        value = self._EQUALS[kind].format(f"n % 2 = {dice.randrange(2)}")
        return self.sql(cursor, f"UPDATE public.mixed SET id = {value}")

    def _subject_type(self, cursor: Cursor, dice: random.Random) -> bool:
        before = self.columns(cursor)["who"]
        kind = dice.choice([kind for kind in self._WHO if kind != before])
        self.change_type(cursor, "who", kind, f"who::text::{kind}")
        if dice.random() < 0.5:
            cursor.execute(f"UPDATE {self.table} SET who = '{dice.randint(1000, 9999)}' WHERE n % 2 = 0")
        return True

    def _refusal_type(self, cursor: Cursor, dice: random.Random) -> bool:
        before = self.columns(cursor)["revoked_at"]
        kind = dice.choice([kind for kind in ("boolean", *_TIMES) if kind != before])
        if kind == "boolean":
            return self.change_type(cursor, "revoked_at", kind, "revoked_at IS NOT NULL")
        if before == "boolean":
            refused = "CASE WHEN revoked_at IS NOT FALSE THEN now() END"
            return self.change_type(cursor, "revoked_at", kind, refused)
        return self.change_type(cursor, "revoked_at", kind, f"revoked_at::{kind}")

    def _status_type(self, cursor: Cursor, dice: random.Random) -> bool:
        before = self.columns(cursor)["status"]
        kind = dice.choice([kind for kind in self._STATUS if kind.split(".")[-1] != before])
        return self.change_type(cursor, "status", kind, f"status::text::{kind}")

    def _collation(self, cursor: Cursor, dice: random.Random) -> bool:
        collation = dice.choice(["public.any_case", '"C"', '"default"'])
        return self.change_type(cursor, "key", f"text COLLATE {collation}", "key")

    # ---- values

    def _case(self, cursor: Cursor, dice: random.Random) -> bool:
        """Change the case of some keys without their counterpart in the table."""
        return self.sql(
            cursor,
            f"""UPDATE public.mixed s
            SET key = CASE WHEN key = upper(key) COLLATE "C" THEN lower(key) ELSE upper(key) END
            WHERE n % 2 = {dice.randrange(2)} AND NOT EXISTS (SELECT FROM public.mixed o
                WHERE lower(o.key) = lower(s.key) COLLATE "C" AND o.n <> s.n)""",
        )

    def _rename_label(self, cursor: Cursor, dice: random.Random) -> bool:
        # A text column would keep the old label, which would no longer be one.
        if self.columns(cursor)["status"] == "text":
            self.change_type(cursor, "status", "public.mood", "status::public.mood")
        before, after = ("good", "bad") if "good" in self.labels(cursor) else ("bad", "good")
        return self.sql(cursor, f"ALTER TYPE public.mood RENAME VALUE '{before}' TO '{after}'")

    def _swap_labels(self, cursor: Cursor, dice: random.Random) -> bool:
        if self.columns(cursor)["status"] == "text":
            self.change_type(cursor, "status", "public.deep", "status::public.deep")
        return self.sql(
            cursor,
            """ALTER TYPE public.mood RENAME VALUE 'better' TO 'x';
            ALTER TYPE public.mood RENAME VALUE 'blocked' TO 'better';
            ALTER TYPE public.mood RENAME VALUE 'x' TO 'blocked'""",
        )

    # ---- columns

    def _swap(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(
            cursor,
            """ALTER TABLE public.mixed RENAME revoked_at TO x; ALTER TABLE public.mixed RENAME other TO revoked_at;
            ALTER TABLE public.mixed RENAME x TO other""",
        )

    def _swap_for_a_while(self, cursor: Cursor, dice: random.Random) -> bool:
        self._swap(cursor, dice)
        self.write(cursor, dice)
        return self._swap(cursor, dice)

    def _drop_and_add(self, cursor: Cursor, dice: random.Random) -> bool:
        default = dice.choice(["timestamptz DEFAULT now()", "timestamptz", "boolean DEFAULT false"])
        return self.sql(
            cursor,
            f"""ALTER TABLE public.mixed DROP revoked_at; ALTER TABLE public.mixed ADD revoked_at {default};
            ALTER TABLE public.mixed ALTER revoked_at DROP DEFAULT""",
        )

    def _rename_for_a_while(self, cursor: Cursor, dice: random.Random) -> bool:
        self._rename(cursor, dice)
        self.write(cursor, dice)
        return self.sql(cursor, "ALTER TABLE public.mixed RENAME elsewhere TO revoked_at")

    def _rename(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, "ALTER TABLE public.mixed RENAME revoked_at TO elsewhere")

    def _drop(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, "ALTER TABLE public.mixed DROP revoked_at")

    def _revoke(self, cursor: Cursor, dice: random.Random) -> bool:
        columns = "id, key, who, revoked_at, status" if dice.random() < 0.5 else "revoked_at"
        return self.sql(
            cursor,
            f"""REVOKE SELECT ON public.mixed FROM {READER}; REVOKE SELECT ({columns}) ON public.mixed FROM {READER}""",
        )

    def _hide(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, "ALTER TABLE public.mixed ENABLE ROW LEVEL SECURITY")

    def _rename_table(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, "ALTER TABLE public.mixed RENAME TO mixed_away")

    kinds = {
        "id type": Kind(_id_type),
        "id to its equal": Kind(_equal_id),
        "subject type": Kind(_subject_type),
        "refusal type": Kind(_refusal_type),
        "refusal rewritten": Kind(Shifting.rewrite),
        "status type": Kind(_status_type),
        "collation of keys": Kind(_collation),
        "case of keys": Kind(_case),
        "label renamed": Kind(_rename_label),
        "labels swapped": Kind(_swap_labels),
        "columns swapped": Kind(_swap),
        "columns swapped and back": Kind(_swap_for_a_while),
        "column dropped and added": Kind(_drop_and_add),
        "column renamed and back": Kind(_rename_for_a_while),
        "without triggers": Kind(Shifting.silently),
        "column renamed": Kind(_rename, breaks=True),
        "column dropped": Kind(_drop, breaks=True),
        "right revoked": Kind(_revoke, breaks=True),
        "rows hidden": Kind(_hide, breaks=True),
        "table renamed": Kind(_rename_table, breaks=True),
    }
