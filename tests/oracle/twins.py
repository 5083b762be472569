"""Two tables that swap names, by their schemas or by their own."""

from __future__ import annotations

import random

from installation import Installation
from psycopg2.extensions import cursor as Cursor

from .shifting import READER, Kind, Shifting


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
