"""Checks the harness itself: `cd tests && python3 -m harness.selftest`. Needs none of Latchkey's
programs.

`--hold` stops half-way with a message, for checking by hand that nothing survives a kill -9.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection

from . import child, seeds
from .postgres import PASSWORD_ROLE, PrivateCluster
from .wait import NotInTime, until

ROWS = 1000
SOME_ROWS = (1, 500, ROWS)


def main() -> None:
    check_wait()
    check_pepper_files()
    with PrivateCluster(tcp=True) as cluster:
        folder = cluster.socket_dir.parent
        cluster.createdb("app")
        with contextlib.closing(cluster.connect("app")) as conn:
            seeds.create_schema(conn)
            check_external(conn)
            check_auth(conn)
            check_api_keys(conn)
        check_passwords(cluster)
        check_psql(cluster)
        if "--hold" in sys.argv:
            print(f"holding; server {cluster.pid} in {folder}", flush=True)
            time.sleep(3600)
        check_life(cluster)
        processes = [cluster.pid, *child.children_of(cluster.pid)]
    assert len(processes) > 1 and not any(map(child.alive, processes))
    assert not folder.exists()
    print("OK")


def check_wait() -> None:
    values = iter([None, 0, "yes"])
    assert until(lambda: next(values), 1, "the third value") == "yes"
    with refused(NotInTime, "something in an empty list (last seen: [])"):
        until(lambda: [], 0.01, "something in an empty list")


def check_pepper_files() -> None:
    pepper = seeds.Pepper.random("pepper_v3")
    assert pepper.version == "pepper_v3.key" and pepper.secret.hex() not in repr(pepper)
    with tempfile.TemporaryDirectory() as folder:
        raw = pepper.write_to(Path(folder), "key")
        assert raw.name == "pepper_v3.key" and raw.read_bytes() == pepper.secret
        assert raw.stat().st_mode & 0o777 == 0o600
        text = pepper.write_to(Path(folder), "hex").read_text()
        assert bytes.fromhex(text.strip()) == pepper.secret
        assert base64.b64decode(pepper.write_to(Path(folder), "b64").read_text()) == pepper.secret


def check_external(conn: Connection) -> None:
    seeds.fill_external(conn, ROWS)
    table = "public.external_credentials"
    assert _count(conn, table) == ROWS
    for i in SOME_ROWS:
        assert _count(conn, f"{table} WHERE api_key = '{seeds.key_text('seed', i)}'") == 1
    gone = seeds.insert_external(conn, "gone", 7, {"plan": "gold"}, deleted=True)
    assert _count(conn, f"{table} WHERE id = {gone} AND deleted_at IS NOT NULL") == 1
    with refused(psycopg2.IntegrityError, "unique_external_credentials_api_key"):
        seeds.insert_external(conn, "gone", 8)


def check_auth(conn: Connection) -> None:
    seeds.fill_auth(conn, ROWS)
    assert _count(conn, "auth.api_key") == ROWS
    secret = _value(conn, "SELECT value FROM auth.secrets WHERE key = 'jwt_secret'")
    for i, token in zip(SOME_ROWS, seeds.auth_tokens(conn, "seed", SOME_ROWS), strict=True):
        claims = _verified_claims(token, secret)
        assert claims["jti"] == seeds.auth_jti("seed", i) and claims["type"] == "api_key"
    user = seeds.insert_auth_user(conn, "ada@example.com", "Ada")
    key = seeds.insert_auth_key(conn, user, timedelta(days=1), "laptop")
    claims = _verified_claims(key.token, secret)
    assert claims["uid"] == user and claims["role"] == claims["email"] == "ada@example.com"
    assert claims["jti"] == key.jti and claims["description"] == "laptop"
    assert 86_399 <= claims["exp"] - claims["iat"] <= 86_401
    check_row_security(conn, user, key)
    _run(conn, f'DELETE FROM auth."user" WHERE id = {user}')
    assert _count(conn, f"auth.api_key WHERE id = {key.id}") == 0


def check_row_security(conn: Connection, user: int, key: seeds.AuthKey) -> None:
    """A plain role sees no rows without claims, and with claims only its own keys."""
    _run(conn, "SET ROLE authenticated")
    assert _count(conn, "auth.api_key") == 0
    _run(conn, f"""SET request.jwt.claims = '{{"uid": {user}}}'""")
    assert _count(conn, "auth.api_key") == 1
    assert _value(conn, f"SELECT public.revoke_api_key('{key.jti}')")
    _run(conn, "RESET ROLE")
    assert _count(conn, "auth.api_key WHERE revoked_at IS NOT NULL") == 1


def check_api_keys(conn: Connection) -> None:
    pepper = seeds.Pepper.random()
    seeds.fill_api_keys(conn, ROWS, pepper)
    for i in SOME_ROWS:
        stored = _value(conn, f"SELECT token_hash FROM public.api_keys WHERE name = 'Row {i}'")
        assert bytes(stored) == pepper.digest(seeds.key_text("seed", i))
    tenant, user = seeds.insert_tenant(conn, "Acme Ltd"), seeds.insert_user(conn)
    newer = seeds.Pepper.random("db_hmac_api_keys_token_hash_v2")
    key = seeds.insert_api_key(
        conn, tenant, user, "CI", "acme_1", newer, scopes=["read", "deploy"], status="disabled"
    )
    row = f"public.vw_api_keys WHERE id = {key}"
    assert _value(conn, f"SELECT scopes FROM {row}") == ["read", "deploy"]
    assert _value(conn, f"SELECT token_hash_key_version FROM {row}") == newer.version
    assert _value(conn, f"SELECT is_active FROM {row}") is False
    _run(conn, f"DELETE FROM public.users WHERE id = {user}")
    assert _count(conn, f"{row} AND user_id IS NULL") == 1


def check_passwords(cluster: PrivateCluster) -> None:
    cluster.sql(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD 'pa ss''w\\ord'")
    for tcp in (False, True):
        right = cluster.conninfo("app", PASSWORD_ROLE, tcp=tcp, password="pa ss'w\\ord")
        psycopg2.connect(right).close()
        # The second one excludes even the password file of the user who runs this.
        for wrong in ({"password": "guess"}, {"passfile": "/nonexistent"}):
            with refused(psycopg2.OperationalError, "password"):
                psycopg2.connect(cluster.conninfo("app", PASSWORD_ROLE, tcp=tcp, **wrong))


def check_psql(cluster: PrivateCluster) -> None:
    assert cluster.psql("SELECT 1;\nSELECT 2;", "app") == "1\n2\n"
    with refused(AssertionError, "division by zero"):
        cluster.psql("SELECT 1/0;\nCREATE TABLE public.after_the_error ();", "app")
    assert cluster.sql("SELECT to_regclass('public.after_the_error')", dbname="app") == [(None,)]


def check_life(cluster: PrivateCluster) -> None:
    """Restarts, crashes and hangs: committed rows and the address stay."""
    address = cluster.conninfo("app", tcp=True)
    cluster.restart()
    cluster.kill9()
    assert not cluster.running
    cluster.start()
    count = "SELECT count(*) FROM public.api_keys"
    assert cluster.sql(count, dbname="app") == [(ROWS + 1,)]
    with contextlib.closing(psycopg2.connect(address)) as conn:
        assert _value(conn, "SELECT 1") == 1
    cluster.freeze()
    with refused(psycopg2.OperationalError, "timeout expired"):
        cluster.connect(connect_timeout="2")
    cluster.thaw()
    assert cluster.sql("SELECT 1") == [(1,)]
    assert "starting PostgreSQL 15" in cluster.logs()


@contextlib.contextmanager
def refused(kind: type[Exception], reason: str) -> Iterator[None]:
    """The block must fail with this exception and reason."""
    try:
        yield
    except kind as error:
        assert reason in str(error), f"refused for another reason: {error}"
    else:
        raise AssertionError(f"not refused: {reason}")


def _verified_claims(token: str, secret: str) -> dict[str, Any]:
    header, payload, signature = token.split(".")
    assert _decoded(header) == b'{"alg":"HS256","typ":"JWT"}'
    expected = hmac.digest(secret.encode(), f"{header}.{payload}".encode(), "sha256")
    assert _decoded(signature) == expected
    claims: dict[str, Any] = json.loads(_decoded(payload))
    return claims


def _decoded(part: str) -> bytes:
    assert "=" not in part and "\n" not in part
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _run(conn: Connection, text: str) -> None:
    with conn.cursor() as cursor:
        cursor.execute(text)


def _value(conn: Connection, text: str) -> Any:
    with conn.cursor() as cursor:
        cursor.execute(text)
        ((value,),) = cursor.fetchall()
        return value


def _count(conn: Connection, source: str) -> int:
    return int(_value(conn, f"SELECT count(*) FROM {source}"))


if __name__ == "__main__":
    main()
