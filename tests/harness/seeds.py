"""Key tables with keys: the three schemas, single rows by name, and rows by the million.

Every function takes a psycopg2 connection whose role owns the tables, and commits nothing, so a
test decides when a change becomes visible (the harness's connections commit at once).

The server generates bulk rows from a seed text. Python has the same functions, so the key of row i
needs no look-up: `key_text(seed, i)`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from psycopg2.extensions import connection as Connection

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"

SchemaName = Literal["external_credentials", "auth_api_key", "api_keys"]
ALL_SCHEMAS: tuple[SchemaName, ...] = ("external_credentials", "auth_api_key", "api_keys")


@dataclass(frozen=True)
class Pepper:
    """The secret of an HMAC over keys. `name` is the name of its file, without the ending."""

    name: str
    secret: bytes = field(repr=False)

    @classmethod
    def random(cls, name: str = "db_hmac_api_keys_token_hash_v1") -> Pepper:
        """A new pepper like the application's: 32 random bytes."""
        return cls(name, secrets.token_bytes(32))

    @property
    def version(self) -> str:
        """The version that the application stores with each hash, for any form of the file."""
        return f"{self.name}.key"

    def digest(self, key: str | bytes) -> bytes:
        """The stored form of a key."""
        return hmac.digest(self.secret, _octets(key), "sha256")

    def write_to(self, folder: Path, form: Literal["key", "hex", "b64"] = "key") -> Path:
        """Write the file with mode 0600: raw bytes, or a line of text."""
        content = {
            "key": self.secret,
            "hex": self.secret.hex().encode() + b"\n",
            "b64": base64.b64encode(self.secret) + b"\n",
        }[form]
        path = folder / f"{self.name}.{form}"
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_bytes(content)
        return path


class AuthKey(NamedTuple):
    """A row of auth.api_key; its holder presents `token`."""

    id: int
    jti: str
    token: str


# ---- schemas


def create_schema(conn: Connection, *names: SchemaName) -> None:
    """Create the named schemas, or all three, in the connection's database."""
    for name in names or ALL_SCHEMAS:
        _execute(conn, (SCHEMAS / f"{name}.sql").read_text(encoding="utf-8"))


# ---- keys and ids of generated rows


def key_text(seed: str, i: int) -> str:
    """The key of generated row `i`, in external_credentials and api_keys."""
    return "sk_test_" + hashlib.md5(f"{seed}:{i}".encode()).hexdigest()


def auth_jti(seed: str, i: int) -> str:
    """The jti of generated row `i` in auth.api_key."""
    return str(uuid.UUID(hashlib.md5(f"{seed}:{i}".encode()).hexdigest()))


def auth_tokens(conn: Connection, seed: str, rows: Iterable[int]) -> list[str]:
    """The keys of these generated rows; they must be read, because the trigger makes them."""
    jtis = [auth_jti(seed, i) for i in rows]
    text = "SELECT jti::text, token FROM auth.api_key WHERE jti = ANY(%s::uuid[])"
    found = {jti: token for jti, token in _execute(conn, text, jtis)}
    return [found[jti] for jti in jtis]


# ---- rows by the million


def fill_external(conn: Connection, count: int, seed: str = "seed", first: int = 1) -> None:
    """Insert rows first … first+count-1, all live; row i has `copper_id` i % 1000."""
    _execute(
        conn,
        """
        INSERT INTO public.external_credentials (copper_id, api_key, data, created_at, updated_at)
        SELECT i %% 1000, 'sk_test_' || md5(%s || ':' || i), json_build_object('row', i),
               now() AT TIME ZONE 'UTC', now() AT TIME ZONE 'UTC'
        FROM generate_series(%s, %s) AS i
        """,
        seed,
        first,
        first + count - 1,
    )
    _execute(conn, "ANALYZE public.external_credentials")


def fill_auth(
    conn: Connection,
    count: int,
    seed: str = "seed",
    first: int = 1,
    *,
    users: int = 100,
    valid_for: timedelta = timedelta(days=365),
) -> None:
    """Insert rows first … first+count-1 through the real trigger, which limits the pace."""
    made = _execute(
        conn,
        """
        INSERT INTO auth."user" (display_name, email, email_confirmed_at)
        SELECT 'User ' || i, md5(%s || ':' || %s || ':' || i) || '@example.com', now()
        FROM generate_series(1, %s) AS i RETURNING id
        """,
        seed,
        first,
        users,
    )
    _execute(
        conn,
        """
        INSERT INTO auth.api_key (jti, user_id, description, expires_at)
        SELECT md5(%s || ':' || i)::uuid, (%s)[1 + i %% %s], 'Row ' || i, now() + %s
        FROM generate_series(%s, %s) AS i
        """,
        seed,
        [row_id for (row_id,) in made],
        users,
        valid_for,
        first,
        first + count - 1,
    )
    _execute(conn, "ANALYZE auth.api_key")


def fill_api_keys(
    conn: Connection,
    count: int,
    pepper: Pepper,
    seed: str = "seed",
    first: int = 1,
    *,
    tenants: int = 10,
) -> None:
    """Insert rows first … first+count-1, active, without expiry, for new tenants with one user
    each.

    Odd rows have the scope "read", even ones "read" and "write".
    """
    _execute(conn, "CREATE EXTENSION IF NOT EXISTS pgcrypto SCHEMA public")
    tenant_ids = _execute(
        conn,
        """
        INSERT INTO public.tenants (name, slug)
        SELECT 'Tenant ' || i, md5(%s || ':' || %s || ':' || i)
        FROM generate_series(1, %s) AS i RETURNING id
        """,
        seed,
        first,
        tenants,
    )
    _execute(
        conn,
        """
        INSERT INTO public.api_keys
            (tenant_id, user_id, name, token_hash, token_hash_key_version, scopes)
        SELECT (%(tenant_ids)s)[1 + i %% %(tenants)s],
               (%(user_ids)s)[1 + i %% %(tenants)s],
               'Row ' || i,
               public.hmac(
                   convert_to('sk_test_' || md5(%(seed)s || ':' || i), 'UTF8'),
                   %(secret)s::bytea,
                   'sha256'
               ),
               %(version)s,
               (CASE i %% 2 WHEN 0 THEN '["read", "write"]' ELSE '["read"]' END)::jsonb
        FROM generate_series(%(first)s, %(last)s) AS i
        """,
        tenant_ids=[row_id for (row_id,) in tenant_ids],
        user_ids=[insert_user(conn) for _ in tenant_ids],
        tenants=tenants,
        seed=seed,
        secret=pepper.secret,
        version=pepper.version,
        first=first,
        last=first + count - 1,
    )
    _execute(conn, "ANALYZE public.api_keys")


# ---- single rows


def insert_external(
    conn: Connection, api_key: str, copper_id: int, data: Any = None, *, deleted: bool = False
) -> int:
    """Insert a row of external_credentials; returns its id. `data` is any JSON value."""
    return _new_id(
        conn,
        """
        INSERT INTO public.external_credentials
            (copper_id, api_key, data, created_at, updated_at, deleted_at)
        SELECT %s, %s, %s, utc, utc, CASE WHEN %s THEN utc END
        FROM (SELECT now() AT TIME ZONE 'UTC') AS clock (utc)
        RETURNING id
        """,
        copper_id,
        api_key,
        json.dumps({} if data is None else data),
        deleted,
    )


def insert_auth_user(conn: Connection, email: str, display_name: str | None = None) -> int:
    """Insert a row of auth."user"; returns its id."""
    return _new_id(
        conn,
        """
        INSERT INTO auth."user" (display_name, email, email_confirmed_at)
        VALUES (%s, %s, now()) RETURNING id
        """,
        display_name or email,
        email,
    )


def insert_auth_key(
    conn: Connection,
    user_id: int,
    expires_at: datetime | timedelta = timedelta(days=365),
    description: str | None = None,
) -> AuthKey:
    """Insert a row of auth.api_key; the trigger makes its token. A timedelta counts from now."""
    (row,) = _execute(
        conn,
        """
        INSERT INTO auth.api_key (user_id, expires_at, description)
        VALUES (%s, %s, %s) RETURNING id, jti::text, token
        """,
        user_id,
        _moment(expires_at),
        description,
    )
    return AuthKey(*row)


def insert_tenant(conn: Connection, name: str) -> int:
    """Insert a row of tenants; returns its id."""
    text = "INSERT INTO public.tenants (name, slug) VALUES (%s, %s) RETURNING id"
    return _new_id(conn, text, name, name.lower().replace(" ", "-"))


def insert_user(conn: Connection) -> int:
    """Insert a row of users; returns its id."""
    return _new_id(conn, "INSERT INTO public.users (is_active) VALUES (true) RETURNING id")


def insert_api_key(
    conn: Connection,
    tenant_id: int,
    user_id: int | None,
    name: str,
    token: str | bytes,
    pepper: Pepper,
    *,
    scopes: Sequence[str] = (),
    status: str = "active",
    expires_at: datetime | timedelta | None = None,
) -> int:
    """Insert a row of api_keys; returns its id. A timedelta counts from now."""
    return _new_id(
        conn,
        """
        INSERT INTO public.api_keys (tenant_id, user_id, name, token_hash, token_hash_key_version,
                                     scopes, status, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        tenant_id,
        user_id,
        name,
        pepper.digest(token),
        pepper.version,
        json.dumps(list(scopes)),
        status,
        None if expires_at is None else _moment(expires_at),
    )


# ---- details


def _moment(when: datetime | timedelta) -> datetime:
    return datetime.now(timezone.utc) + when if isinstance(when, timedelta) else when


def _octets(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _execute(conn: Connection, text: str, *values: Any, **named: Any) -> list[tuple[Any, ...]]:
    with conn.cursor() as cursor:
        # Without parameters, psycopg2 does not interpret per cent signs, so files pass unchanged.
        cursor.execute(text, named or values or None)
        return cursor.fetchall() if cursor.description else []


def _new_id(conn: Connection, text: str, *values: Any) -> int:
    ((row_id,),) = _execute(conn, text, *values)
    return int(row_id)
