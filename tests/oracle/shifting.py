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
