"""Tables whose definition changes during the run: types, columns, labels, partitions, names, ids.

No statement here declares its effect on a key. After each transaction's statements the worker reads the whole
(small) table, inside the transaction, and `Shifting.read` applies the mapping to it: this is the truth for the
judge. So a kind of change is only SQL, made from the catalogue at that moment. Nothing has to be remembered,
and a COMMIT whose outcome was lost leaves no wrong state.

A kind that `breaks` leaves a table that the mapping cannot read. `mend` undoes any of them.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from harness import seeds
from installation import Installation
from psycopg2.extensions import cursor as Cursor

from .history import ABSENT, DISABLED, LOST, REVOKED, VALID, Version
from .tables import Key, Source

GOOD = ("good", "better")  # the values of `status` that admit
READER = "latchkey"  # the daemon's role
# The settings that this module's own reading depends on. (The daemon must pin them, too.)
_PINNED = """SET LOCAL bytea_output = hex; SET LOCAL DateStyle = 'ISO, YMD'; SET LOCAL IntervalStyle = postgres;
    SET LOCAL TimeZone = 'UTC'; SET LOCAL extra_float_digits = 1; SET LOCAL quote_all_identifiers = off"""
_TIMES = ("timestamp with time zone", "timestamp without time zone", "date")
_OUR_TRIGGERS = ("insert", "update", "delete", "truncate")


class Kind(NamedTuple):
    """One way to change a table's definition. `do` returns False if it has nothing to do."""

    do: Callable[[Shifting, Cursor, random.Random], bool]
    breaks: bool = False


class Shifting(Source):
    """A table with a changing definition. Column `n` numbers the rows, and no source maps it."""

    kinds: ClassVar[Mapping[str, Kind]]
    has_status = False  # besides `revoked_at`
    places: tuple[str, ...] = ()  # the table's possible names; the first one is the mapping's

    def __init__(self, site: Installation, seed: str, count: int, first_index: int) -> None:
        super().__init__(self.texts(f"{seed}:{self.source}", count), first_index)
        self._by_text = {key.text.decode(): key for key in self.keys}
        self.places = (self.table, *self.places)
        self.create(site)
        # Granted on the whole table, so that columns added later are readable, too.
        for place in self.places:
            if site.value("SELECT to_regclass(%s)", place) is not None:
                site.sql(f"GRANT SELECT ON {place} TO {READER}")

    def texts(self, seed: str, count: int) -> list[str]:
        """The texts of all keys that may ever stand in the table."""
        return [seeds.key_text(seed, i) for i in range(count)]

    @abstractmethod
    def create(self, site: Installation) -> None:
        """Create the table, empty."""

    def configure(self, site: Installation) -> None:
        roles = {"id": "id", "key": "key", "subject": "who", "revoked_at": "revoked_at"}
        site.source(self.source, table=self.table, **roles)

    def installed(self, site: Installation) -> None:
        """Finish the setup once the triggers exist."""

    # ---- the catalogue

    def place(self, cursor: Cursor) -> str:
        """The table's present name."""
        cursor.execute(
            "SELECT name FROM unnest(%s) WITH ORDINALITY AS p(name, place)"
            " WHERE to_regclass(name) IS NOT NULL ORDER BY place LIMIT 1",
            (list(self.places),),
        )
        ((name,),) = cursor.fetchall()
        return str(name)

    def columns(self, cursor: Cursor) -> dict[str, str]:
        """Each column's type."""
        cursor.execute(
            """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
            WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped""",
            (self.place(cursor),),
        )
        # quote_all_identifiers quotes the type's name.
        return {name: kind.replace('"', "") for name, kind in cursor.fetchall()}

    def can_be_read(self, cursor: Cursor) -> bool:
        """Whether the daemon's role can read the table under the mapping."""
        mapped = ["id", "key", "who", "revoked_at", *(["status"] if self.has_status else [])]
        cursor.execute(
            """SELECT count(*) = %s AND NOT bool_or(c.relrowsecurity)
            FROM pg_class c JOIN pg_attribute ON attrelid = c.oid WHERE c.oid = to_regclass(%s) AND attname = ANY (%s) AND NOT attisdropped
                AND has_column_privilege(%s, c.oid, attnum, 'SELECT')""",
            (len(mapped), self.table, mapped, READER),
        )
        ((whole,),) = cursor.fetchall()
        return bool(whole)

    # ---- the content

    def read(self, cursor: Cursor) -> dict[Key, Version]:
        """Every key under the present mapping."""
        cursor.execute(_PINNED)
        if not self.can_be_read(cursor):
            return dict.fromkeys(self.keys, LOST)
        flag = self.columns(cursor)["revoked_at"] == "boolean"
        status = "status::text" if self.has_status else f"'{GOOD[0]}'"
        found = dict.fromkeys(self.keys, ABSENT)
        cursor.execute(
            f"SELECT rtrim(concat(key)), rtrim(concat(id)), concat(who), revoked_at::text, {status} FROM {self.table}"
        )
        for text, row, subject, revoked, word in cursor.fetchall():
            good = revoked == "false" if flag else revoked is None
            verdict = REVOKED if not good else VALID if word in GOOD else DISABLED
            assert found[self._by_text[text]] is ABSENT, f"{text} stands in two rows of {self.table}"
            found[self._by_text[text]] = Version(verdict, row, subject=subject)
        return found

    def value(self, kind: str, dice: random.Random, *, good: bool) -> str:
        """SQL for a value of `revoked_at`."""
        if kind == "boolean":
            return "false" if good else dice.choice(["true", "NULL::boolean"])
        return f"NULL::{kind}" if good else f"now()::{kind}"

    def word(self, cursor: Cursor, kind: str, dice: random.Random, *, good: bool) -> str:
        """SQL for a value of `status`."""
        return f"'{dice.choice([label for label in self.labels(cursor) if (label in GOOD) == good])}'::{kind}"

    def labels(self, cursor: Cursor) -> list[str]:
        cursor.execute(
            "SELECT enumlabel FROM pg_enum WHERE enumtypid = 'public.mood'::regtype ORDER BY enumsortorder"
        )
        return [label for (label,) in cursor.fetchall()]

    # ---- ordinary statements

    def write(self, cursor: Cursor, dice: random.Random) -> None:
        """Change some rows, as an application does, under the present names of the table and its columns."""
        place, columns = self.place(cursor), self.columns(cursor)
        cursor.execute(f"SELECT n, rtrim(concat(key)) FROM {place}")
        there: dict[int, str] = dict(cursor.fetchall())
        some = dice.sample(sorted(there), min(len(there), dice.choice([1, 1, 2, 5])))
        absent = sorted(set(self._by_text) - set(there.values()))
        what = dice.choices(["state", "insert", "delete", "who", "key", "truncate"], [10, 6, 2, 2, 2, 0.2])[0]
        if what == "insert" and absent:
            free = [n for n in self.numbers(cursor) if n not in there]
            for text, n in zip(dice.sample(absent, min(len(absent), 3)), dice.sample(free, min(len(free), 3))):
                self._insert(cursor, place, columns, n, text, dice)
        elif what == "delete":
            cursor.execute(f"DELETE FROM {place} WHERE n = ANY (%s)", (some,))
        elif what == "who" and "who" in columns:
            who = f"'{dice.randint(1000, 9999)}'::{columns['who']}"
            cursor.execute(f"UPDATE {place} SET who = {who} WHERE n = ANY (%s)", (some,))
        elif what == "key" and some and absent:
            cursor.execute(f"UPDATE {place} SET key = %s WHERE n = %s", (dice.choice(absent), some[0]))
        elif what == "truncate":
            cursor.execute(f"TRUNCATE {place}")
        else:
            self._set_state(cursor, place, columns, some, dice)

    def _set_state(
        self, cursor: Cursor, place: str, columns: Mapping[str, str], rows: Sequence[int], dice: random.Random
    ) -> None:
        if "status" in columns and dice.random() < 0.3:
            column, value = "status", self.word(cursor, columns["status"], dice, good=dice.random() < 0.5)
        else:
            column = "revoked_at" if "revoked_at" in columns else "elsewhere"
            if column not in columns:
                return
            value = self.value(columns[column], dice, good=dice.random() < 0.5)
        cursor.execute(f"UPDATE {place} SET {column} = {value} WHERE n = ANY (%s)", (list(rows),))

    def _insert(
        self, cursor: Cursor, place: str, columns: Mapping[str, str], n: int, text: str, dice: random.Random
    ) -> None:
        values = {"n": "n", "key": "%s"}
        if "id" in columns:
            values["id"] = self.id_of(columns["id"])
        if "who" in columns:
            values["who"] = f"'{dice.randint(1000, 9999)}'::{columns['who']}"
        if "revoked_at" in columns:
            values["revoked_at"] = self.value(columns["revoked_at"], dice, good=dice.random() < 0.8)
        if "status" in columns:
            values["status"] = self.word(cursor, columns["status"], dice, good=dice.random() < 0.8)
        names = ", ".join(values)
        cursor.execute(
            f"INSERT INTO {place} ({names}) SELECT {', '.join(values.values())} FROM (VALUES ({n})) AS v(n)", (text,)
        )

    def numbers(self, cursor: Cursor) -> Sequence[int]:
        """The numbers that rows may have."""
        return range(1, 2 * len(self.keys))

    def id_of(self, kind: str) -> str:
        """SQL for the id of row `n`."""
        return "n"

    # ---- changes of the definition

    def mend(self, cursor: Cursor) -> None:
        """Make the table readable again, after any change."""
        place, columns = self.place(cursor), self.columns(cursor)
        if place != self.table:
            self._bring_back(cursor, place)
        if "elsewhere" in columns:
            cursor.execute(f"ALTER TABLE {self.table} RENAME elsewhere TO revoked_at")
        elif "revoked_at" not in columns:
            cursor.execute(f"ALTER TABLE {self.table} ADD revoked_at timestamptz")
        cursor.execute(f"GRANT SELECT ON {self.table} TO {READER}")
        cursor.execute(f"ALTER TABLE {self.table} DISABLE ROW LEVEL SECURITY")

    def _bring_back(self, cursor: Cursor, place: str) -> None:
        cursor.execute(f"ALTER TABLE {place} RENAME TO {self.table.split('.')[1]}")

    def change_type(self, cursor: Cursor, column: str, kind: str, using: str) -> bool:
        cursor.execute(f"ALTER TABLE {self.table} ALTER {column} TYPE {kind} USING {using}")
        return True

    def rewrite(self, cursor: Cursor, dice: random.Random) -> bool:
        """`revoked_at` keeps its type, and the rewrite changes some rows."""
        kind = self.columns(cursor)["revoked_at"]
        value = self.value(kind, dice, good=dice.random() < 0.3)
        some = f"CASE WHEN n % 3 = {dice.randrange(3)} THEN {value} ELSE revoked_at END"
        return self.change_type(cursor, "revoked_at", kind, some)

    def without_triggers(self, cursor: Cursor, place: str, change: Callable[[], None]) -> bool:
        """No trigger reports the change, and afterwards the table looks as before."""
        cursor.execute(f"ALTER TABLE {place} DISABLE TRIGGER USER")
        change()
        each = ", ".join(f"ENABLE ALWAYS TRIGGER latchkey_{event}" for event in _OUR_TRIGGERS)
        cursor.execute(f"ALTER TABLE {place} {each}")
        return True

    def silently(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.without_triggers(cursor, self.table, lambda: self.write(cursor, dice))

    def sql(self, cursor: Cursor, text: str) -> bool:
        cursor.execute(text)
        return True


# ---- columns and their types


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


# ---- partitions


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


# ---- two tables that swap names


class Twins(Shifting):
    """The mapping names one table, the other one waits; both have triggers."""

    source = "twins"
    table = "app.twin"
    places = ("hidden.twin",)
    _SPARE = "spare.twin"

    def create(self, site: Installation) -> None:
        # The indexes need different names to stand in one schema.
        columns = """(n int NOT NULL CONSTRAINT {0}_n UNIQUE, id int CONSTRAINT {0}_id PRIMARY KEY, key text NOT NULL,
            who text, revoked_at timestamptz)"""
        site.sql(f"CREATE SCHEMA app; CREATE SCHEMA spare; GRANT USAGE ON SCHEMA app, spare TO {READER}")
        site.sql(f"CREATE TABLE {self.table} {columns.format('one')}")
        site.sql(f"CREATE TABLE {self._SPARE} {columns.format('other')}")
        site.sql(f"GRANT SELECT ON {self._SPARE} TO {READER}")

    def installed(self, site: Installation) -> None:
        with site.conn.cursor() as cursor:
            self._exchange(cursor)
            site.install()
            self._exchange(cursor)

    def _exchange(self, cursor: Cursor) -> bool:
        return self.sql(
            cursor,
            "ALTER SCHEMA app RENAME TO x; ALTER SCHEMA spare RENAME TO app; ALTER SCHEMA x RENAME TO spare",
        )

    def _rename(self, cursor: Cursor) -> bool:
        """Swap by renaming the tables, for which both must be in one schema."""
        return self.sql(
            cursor,
            """ALTER TABLE spare.twin RENAME TO green; ALTER TABLE spare.green SET SCHEMA app;
            ALTER TABLE app.twin RENAME TO blue; ALTER TABLE app.green RENAME TO twin;
            ALTER TABLE app.blue SET SCHEMA spare; ALTER TABLE spare.blue RENAME TO twin""",
        )

    def _exchange_schemas(self, cursor: Cursor, dice: random.Random) -> bool:
        return self._exchange(cursor)

    def _exchange_tables(self, cursor: Cursor, dice: random.Random) -> bool:
        return self._rename(cursor)

    def _change_the_other(self, cursor: Cursor, dice: random.Random) -> bool:
        """The other table's triggers report rows that are not those of the mapped table."""
        value = f"CASE WHEN n % 2 = {dice.randrange(2)} THEN now() END"
        return self.sql(
            cursor,
            f"""DELETE FROM {self._SPARE}; INSERT INTO {self._SPARE}
            SELECT n, id, key, '5678', {value} FROM {self.table}""",
        )

    def _exchange_for_a_while(self, cursor: Cursor, dice: random.Random) -> bool:
        """The mapped table changes while it has another name, and no trigger reports it."""
        exchange = dice.choice([self._exchange, self._rename])
        exchange(cursor)

        def change() -> None:
            value = dice.choice(["now()", "now()", "NULL"])
            cursor.execute(f"UPDATE {self._SPARE} SET revoked_at = {value} WHERE n % 2 = {dice.randrange(2)}")

        self.without_triggers(cursor, self._SPARE, change)
        return exchange(cursor)

    def _hide_schema(self, cursor: Cursor, dice: random.Random) -> bool:
        return self.sql(cursor, "ALTER SCHEMA app RENAME TO hidden")

    def _bring_back(self, cursor: Cursor, place: str) -> None:
        cursor.execute("ALTER SCHEMA hidden RENAME TO app")

    kinds = {
        "schemas exchanged": Kind(_exchange_schemas),
        "tables exchanged": Kind(_exchange_tables),
        "exchanged and back": Kind(_exchange_for_a_while),
        "the other table changed": Kind(_change_the_other),
        "schema renamed": Kind(_hide_schema, breaks=True),
    }


_COUNTS: dict[type[Shifting], int] = {Mixed: 40, Parted: 24, Twins: 20}
BREAKING = frozenset(name for table in _COUNTS for name, kind in table.kinds.items() if kind.breaks)
KINDS = tuple(name for table in _COUNTS for name in table.kinds)


def create(site: Installation, seed: str, first_index: int) -> list[Shifting]:
    """All of these tables, empty, in the site's database and configuration."""
    made: list[Shifting] = []
    for kind, count in _COUNTS.items():
        made.append(kind(site, seed, count, first_index + sum(len(table.keys) for table in made)))
        made[-1].configure(site)
    return made
