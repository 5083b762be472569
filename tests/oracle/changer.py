"""A worker that changes rows of a table with a fixed definition."""

from __future__ import annotations

import contextlib
import time

import psycopg2.errors
from installation import changed_for_a_while
from psycopg2.extensions import cursor as Cursor

from .history import ABSENT, UNKNOWN, Version
from .tables import Key, Table
from .workers import Worker


class Changer(Worker):
    """Changes rows of a table with a fixed definition."""

    _table: Table

    def fill(self) -> None:
        while not self.counts.commits:
            self._change({key: self._wish() for key in self._now})

    def _before(self, cursor: Cursor) -> None:
        """Sometimes force a reload of the table, while others change it."""
        if self._dice.random() >= 0.03:
            return
        change = changed_for_a_while(self._table.table)
        with contextlib.suppress(psycopg2.errors.LockNotAvailable):
            cursor.execute(f"SET lock_timeout = '1s'; {change}")
        cursor.execute("RESET lock_timeout")

    def _step(self) -> None:
        dice = self._dice
        keys = list(self._now)
        count = dice.choices([1, dice.randint(2, 8), dice.randint(20, 50)], [70, 27, 3])[0]
        chosen = dice.sample(keys, min(count, len(keys)))
        whole = len(keys) == len(self._table.keys)
        if whole and dice.random() < 0.04:
            self._change({key: self._wish() for key in keys}, truncate=True)
        elif dice.random() < 0.05:
            self._rotate()
        elif dice.random() < 0.1:
            self._change(dict.fromkeys(chosen, self._wish()))  # the same state for all of them
        else:
            self._change({key: self._wish() for key in chosen})

    def _wish(self) -> Version:
        return self._table.wish(self._dice, _real_us())

    def _rotate(self) -> None:
        there = [key for key, version in self._now.items() if version.row]
        absent = [key for key, version in self._now.items() if not version.row]
        if not there or not absent:
            return
        old, new = self._dice.choice(there), self._dice.choice(absent)
        version = self._now[old]

        def rotate(cursor: Cursor) -> dict[Key, Version]:
            if self._table.rotate(cursor, version.row, new):
                return {old: ABSENT, new: version}
            return {}

        self._transact(rotate)

    def _change(self, wishes: dict[Key, Version], *, truncate: bool = False) -> None:
        stays_empty = self._dice.random() < 0.4
        in_vain = self._dice.random() < 0.1

        def change(cursor: Cursor) -> dict[Key, Version]:
            if in_vain:
                self._try_in_vain(cursor, list(wishes))
            become: dict[Key, Version] = {}
            if truncate and self._table.truncate(cursor):
                become = dict.fromkeys(wishes, ABSENT)
                if stays_empty:
                    return become
            elif len(wishes) > 1 and len(set(wishes.values())) == 1:
                return self._bring_together(cursor, wishes)
            for key, wish in wishes.items():
                old = become.get(key, self._now[key])
                become[key] = self._table.bring(cursor, key, old, wish)
            return become

        self._transact(change)

    def _bring_together(self, cursor: Cursor, wishes: dict[Key, Version]) -> dict[Key, Version]:
        """One statement for all existing rows."""
        (wish,) = set(wishes.values())
        there = {key: self._now[key].row for key in wishes if self._now[key].row}
        rows = list(there.values())
        if wish.verdict == UNKNOWN:
            self._table.delete(cursor, rows)
            return dict.fromkeys(there, ABSENT)
        self._table.update(cursor, rows, wish)
        return {key: wish._replace(row=row) for key, row in there.items()}

    def _try_in_vain(self, cursor: Cursor, keys: list[Key]) -> None:
        """A part of a transaction that is rolled back, and must never be seen."""
        cursor.execute("SAVEPOINT in_vain")
        for key in keys[:5]:
            self._table.bring(cursor, key, self._now[key], self._wish())
        cursor.execute("ROLLBACK TO SAVEPOINT in_vain")


def _real_us() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME) // 1000
