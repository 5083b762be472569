"""Four tables of keys, with the statements that change a key from one version to another.

All key texts are fixed from the start, so clients need no news of them. A key is inserted, deleted,
and inserted again in another row.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from harness import seeds
from installation import Installation
from psycopg2.extensions import cursor as Cursor

from .history import ABSENT, DELETED, DISABLED, REVOKED, UNKNOWN, VALID, Version

US_PER_S = 1_000_000
_MOMENT = "timestamptz 'epoch' + %s * interval '1 microsecond'"


@dataclass(frozen=True)
class Key:
    """A key's text. `index` is its place in the list of all keys."""

    index: int
    source: str
    text: bytes


class Source(ABC):
    """One table of keys. `source` names it in the configuration and in error messages."""

    source: str
    table: str

    def __init__(self, texts: Sequence[str], first_index: int) -> None:
        self.keys = [
            Key(first_index + i, self.source, text.encode()) for i, text in enumerate(texts)
        ]

    @abstractmethod
    def configure(self, site: Installation) -> None:
        """Add the [[source]] to the configuration."""


class Table(Source):
    """A table with a fixed definition and changing rows."""

    @abstractmethod
    def wish(self, dice: random.Random, now_us: int) -> Version:
        """A random state for a row of this table, without a row yet."""

    @abstractmethod
    def insert(self, cursor: Cursor, key: Key, wish: Version) -> int:
        """Insert a row; returns its id."""

    @abstractmethod
    def update(self, cursor: Cursor, rows: Sequence[int], wish: Version) -> None:
        """Bring existing rows into this state, in one statement."""

    @abstractmethod
    def delete(self, cursor: Cursor, rows: Sequence[int]) -> None:
        """Delete rows, in one statement."""

    def rotate(self, cursor: Cursor, row: int, key: Key) -> bool:
        """Give a row another key; False if this table does not support it."""
        return False

    def truncate(self, cursor: Cursor) -> bool:
        """Truncate the table; False if this table does not support it."""
        return False

    def bring(self, cursor: Cursor, key: Key, old: Version, wish: Version) -> Version:
        """Change a key from one version to another; returns the new version."""
        if wish.verdict == UNKNOWN:
            if old.row:
                self.delete(cursor, [old.row])
            return ABSENT
        if old.row:
            self.update(cursor, [old.row], wish)
            return wish._replace(row=old.row)
        return wish._replace(row=self.insert(cursor, key, wish))


def _soon(dice: random.Random, now_us: int) -> int:
    """A time that arrives during the run; sometimes it has passed."""
    return now_us + int(dice.uniform(-0.5, 3.0) * US_PER_S)


class ApiKeys(Table):
    """public.api_keys: HMACs, a status, an expiry."""

    source = "api_keys"
    table = "public.api_keys"
    _WORDS = {VALID: "active", REVOKED: "revoked", DISABLED: "disabled"}

    def __init__(self, site: Installation, seed: str, count: int, first_index: int) -> None:
        super().__init__([seeds.key_text(f"{seed}:a", i) for i in range(count)], first_index)
        self._pepper = seeds.Pepper.random()
        self._pepper.write_to(site.peppers)
        seeds.create_schema(site.conn, "api_keys")
        self._tenant = seeds.insert_tenant(site.conn, "Acme")

    def configure(self, site: Installation) -> None:
        site.source(self.source, preset="api_keys", peppers=str(site.peppers))

    def wish(self, dice: random.Random, now_us: int) -> Version:
        verdict = dice.choices([VALID, REVOKED, DISABLED, UNKNOWN], [10, 5, 2, 3])[0]
        expires_us = _soon(dice, now_us) if dice.random() < 0.25 else None
        return Version(verdict, 0, expires_us) if verdict != UNKNOWN else ABSENT

    def insert(self, cursor: Cursor, key: Key, wish: Version) -> int:
        cursor.execute(
            f"""
            INSERT INTO public.api_keys
                (tenant_id, name, token_hash, token_hash_key_version, status, expires_at)
            VALUES (%s, %s, %s, %s, %s, {_MOMENT}) RETURNING id
            """,
            (
                self._tenant,
                key.text.decode(),
                self._pepper.digest(key.text),
                self._pepper.version,
                self._WORDS[wish.verdict],
                wish.expires_us,
            ),
        )
        return _id(cursor)

    def update(self, cursor: Cursor, rows: Sequence[int], wish: Version) -> None:
        cursor.execute(
            f"UPDATE public.api_keys SET status = %s, expires_at = {_MOMENT} WHERE id = ANY (%s)",
            (self._WORDS[wish.verdict], wish.expires_us, list(rows)),
        )

    def delete(self, cursor: Cursor, rows: Sequence[int]) -> None:
        cursor.execute("DELETE FROM public.api_keys WHERE id = ANY (%s)", (list(rows),))

    def rotate(self, cursor: Cursor, row: int, key: Key) -> bool:
        cursor.execute(
            "UPDATE public.api_keys SET name = %s, token_hash = %s WHERE id = %s",
            (key.text.decode(), self._pepper.digest(key.text), row),
        )
        return True


class ExternalCredentials(Table):
    """public.external_credentials: plain texts, deleted softly or by DELETE."""

    source = "external"
    table = "public.external_credentials"

    def __init__(self, site: Installation, seed: str, count: int, first_index: int) -> None:
        super().__init__([seeds.key_text(f"{seed}:e", i) for i in range(count)], first_index)
        seeds.create_schema(site.conn, "external_credentials")

    def configure(self, site: Installation) -> None:
        site.source(self.source, preset="external_credentials")

    def wish(self, dice: random.Random, now_us: int) -> Version:
        return Version(dice.choices([VALID, DELETED, UNKNOWN], [5, 3, 2])[0])

    def insert(self, cursor: Cursor, key: Key, wish: Version) -> int:
        cursor.execute(
            """
            INSERT INTO public.external_credentials (copper_id, api_key, data, deleted_at)
            VALUES (1, %s, '{}', CASE WHEN %s THEN now() AT TIME ZONE 'UTC' END) RETURNING id
            """,
            (key.text.decode(), wish.verdict == DELETED),
        )
        return _id(cursor)

    def update(self, cursor: Cursor, rows: Sequence[int], wish: Version) -> None:
        cursor.execute(
            """
            UPDATE public.external_credentials
            SET deleted_at = CASE WHEN %s THEN now() AT TIME ZONE 'UTC' END WHERE id = ANY (%s)
            """,
            (wish.verdict == DELETED, list(rows)),
        )

    def delete(self, cursor: Cursor, rows: Sequence[int]) -> None:
        text = "DELETE FROM public.external_credentials WHERE id = ANY (%s)"
        cursor.execute(text, (list(rows),))

    def rotate(self, cursor: Cursor, row: int, key: Key) -> bool:
        text = "UPDATE public.external_credentials SET api_key = %s WHERE id = %s"
        cursor.execute(text, (key.text.decode(), row))
        return True


class AuthApiKey(Table):
    """auth.api_key: JWTs made by a trigger of the application. Each key has a separate user."""

    source = "auth"
    table = "auth.api_key"

    def __init__(self, site: Installation, seed: str, count: int, first_index: int) -> None:
        seeds.create_schema(site.conn, "auth_api_key")
        made = []
        for i in range(count):
            user = seeds.insert_auth_user(site.conn, f"{i}@example.com")
            made.append(seeds.insert_auth_key(site.conn, user))
        super().__init__([row.token for row in made], first_index)
        self._jtis = {key: row.jti for key, row in zip(self.keys, made)}
        # Deleted rows return later with the same token.
        site.sql("CREATE TABLE public.was AS SELECT jti, user_id, expires_at, token"
                 " FROM auth.api_key; TRUNCATE auth.api_key")  # fmt: skip

    def configure(self, site: Installation) -> None:
        site.source(self.source, preset="auth_api_key")

    def wish(self, dice: random.Random, now_us: int) -> Version:
        return Version(dice.choices([VALID, REVOKED, UNKNOWN], [5, 3, 2])[0])

    def insert(self, cursor: Cursor, key: Key, wish: Version) -> int:
        # As in a restored dump, the application's trigger is off, but Latchkey's fires.
        cursor.execute(
            """
            SET LOCAL session_replication_role = replica;
            INSERT INTO auth.api_key (jti, user_id, expires_at, token, revoked_at)
            SELECT jti, user_id, expires_at, token, CASE WHEN %s THEN now() END
            FROM public.was WHERE jti = %s RETURNING id
            """,
            (wish.verdict == REVOKED, self._jtis[key]),
        )
        row = _id(cursor)
        cursor.execute("SET LOCAL session_replication_role = origin")
        return row

    def update(self, cursor: Cursor, rows: Sequence[int], wish: Version) -> None:
        cursor.execute(
            "UPDATE auth.api_key SET revoked_at = CASE WHEN %s THEN now() END WHERE id = ANY (%s)",
            (wish.verdict == REVOKED, list(rows)),
        )

    def delete(self, cursor: Cursor, rows: Sequence[int]) -> None:
        cursor.execute("DELETE FROM auth.api_key WHERE id = ANY (%s)", (list(rows),))


class Windows(Table):
    """A small table without a preset, with not-before and expiry times, and an occasional TRUNCATE."""

    source = "windows"
    table = "public.windows"

    def __init__(self, site: Installation, seed: str, count: int, first_index: int) -> None:
        super().__init__([seeds.key_text(f"{seed}:w", i) for i in range(count)], first_index)
        site.sql(
            """
            CREATE TABLE public.windows (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                key text NOT NULL UNIQUE,
                revoked boolean NOT NULL,
                opens timestamptz,
                closes bigint
            )
            """
        )

    def configure(self, site: Installation) -> None:
        site.source(
            self.source,
            table="public.windows",
            id="id",
            key="key",
            revoked_at="revoked",
            not_before="opens",
            expires_at="closes",
        )

    def wish(self, dice: random.Random, now_us: int) -> Version:
        verdict = dice.choices([VALID, REVOKED, UNKNOWN], [6, 3, 2])[0]
        if verdict == UNKNOWN:
            return ABSENT
        closes = _soon(dice, now_us) // US_PER_S * US_PER_S + US_PER_S
        return Version(
            verdict,
            0,
            closes if dice.random() < 0.3 else None,
            _soon(dice, now_us) if dice.random() < 0.3 else None,
        )

    def insert(self, cursor: Cursor, key: Key, wish: Version) -> int:
        cursor.execute(
            f"""
            INSERT INTO public.windows (key, revoked, opens, closes)
            VALUES (%s, %s, {_MOMENT}, %s) RETURNING id
            """,
            (key.text.decode(), wish.verdict == REVOKED, wish.not_before_us, _seconds(wish)),
        )
        return _id(cursor)

    def update(self, cursor: Cursor, rows: Sequence[int], wish: Version) -> None:
        cursor.execute(
            f"""
            UPDATE public.windows SET revoked = %s, opens = {_MOMENT}, closes = %s
            WHERE id = ANY (%s)
            """,
            (wish.verdict == REVOKED, wish.not_before_us, _seconds(wish), list(rows)),
        )

    def delete(self, cursor: Cursor, rows: Sequence[int]) -> None:
        cursor.execute("DELETE FROM public.windows WHERE id = ANY (%s)", (list(rows),))

    def truncate(self, cursor: Cursor) -> bool:
        cursor.execute("TRUNCATE public.windows")
        return True


def _seconds(wish: Version) -> int | None:
    return None if wish.expires_us is None else wish.expires_us // US_PER_S


def _id(cursor: Cursor) -> int:
    ((row,),) = cursor.fetchall()
    return int(row)


def create(site: Installation, seed: str) -> list[Table]:
    """All tables, empty, in the site's database and configuration."""
    tables: list[Table] = []
    counts = {ApiKeys: 240, ExternalCredentials: 160, AuthApiKey: 60, Windows: 60}
    for kind, count in counts.items():
        tables.append(kind(site, seed, count, sum(len(table.keys) for table in tables)))
        tables[-1].configure(site)
    return tables
