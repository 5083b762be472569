"""Tables that keep only the jti of a token: the daemon checks the signature, then looks up the jti.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.postgres import PrivateCluster
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import Databases, Installation
from test_secrets import found_in, memory_of

TABLE = """
    CREATE TABLE public.issued (
        id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        jti        uuid UNIQUE NOT NULL DEFAULT gen_random_uuid(),
        user_id    integer NOT NULL,
        expires_at timestamptz,
        revoked_at timestamptz
    )
"""
COLUMNS = {
    "table": "public.issued",
    "scheme": "jwt-hs256",
    "id": "id",
    "key": "jti",
    "subject": "user_id",
    "expires_at": "expires_at",
    "revoked_at": "revoked_at",
}
HS256 = {"alg": "HS256", "typ": "JWT"}
HOUR = 3600


def url64(raw: bytes) -> str:
    """Base64url as in a JWS: without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def encoded(value: dict[str, Any]) -> str:
    """A JSON object as a part of a token."""
    return url64(json.dumps(value).encode())


def sign(secret: bytes, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
    """A token signed by an issuer with HMAC-SHA-256, regardless of the header."""
    text = f"{encoded(HS256 if header is None else header)}.{encoded(claims)}"
    return f"{text}.{url64(hmac.digest(secret, text.encode(), 'sha256'))}"


def secret_file(site: Installation, name: str, content: bytes) -> Path:
    """A file readable by its owner only."""
    path = site.folder / name
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


class Issuer(Installation):
    """An installation over a table of jtis, with the secret that signs its tokens."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        self.sql(TABLE)
        self.secret = secrets.token_bytes(32)
        self.file = secret_file(self, "jwt_secret", self.secret)
        self.source("issued", jwt_secret_file=str(self.file), **COLUMNS)

    def issue(self, user: int = 7, expires_at: int | None = None) -> str:
        """Insert a row; returns its jti. The row's expiry is in seconds since 1970."""
        columns = "INSERT INTO issued (user_id, expires_at)"
        text = f"{columns} VALUES (%s, to_timestamp(%s)) RETURNING jti"
        return str(self.value(text, user, expires_at))

    def token(self, jti: str, **claims: Any) -> str:
        """A valid token."""
        return sign(self.secret, {"jti": jti, "sub": "somebody"} | claims)


@pytest.fixture(scope="module")
def site(cluster: PrivateCluster, databases: Databases) -> Iterator[Issuer]:
    site = Issuer(cluster, databases.new())
    with site.serve():
        yield site
    site.close()


def test_a_token_is_known_by_its_jti_with_the_claims_of_its_row(site: Issuer) -> None:
    jti = site.issue(user=42)
    row_id = site.value("SELECT id FROM issued WHERE jti = %s", jti)
    assert site.claims(site.token(jti)) == {
        "active": True,
        "verdict": "valid",
        "source": "issued",
        "key_id": str(row_id),
        "sub": "42",
        "fresh": True,
    }
    # A token with the same jti, signed again with other claims, is the same key.
    assert site.verdict(site.token(jti, more=[{"deep": 1}], iat=1)) == "valid"


def test_revoked_and_deleted_by_plain_sql(site: Issuer) -> None:
    jti = site.issue()
    token = site.token(jti)
    assert site.verdict(token) == "valid"
    site.sql("UPDATE issued SET revoked_at = now() WHERE jti = %s", jti)
    assert site.verdict(token) == "revoked"
    site.sql("UPDATE issued SET revoked_at = NULL WHERE jti = %s", jti)
    assert site.verdict(token) == "valid"
    site.sql("UPDATE issued SET jti = gen_random_uuid() WHERE jti = %s", jti)
    assert site.verdict(token) == "unknown"
    site.sql("UPDATE issued SET jti = %s WHERE id = (SELECT max(id) FROM issued)", jti)
    assert site.verdict(token) == "valid"
    site.sql("DELETE FROM issued WHERE jti = %s", jti)
    assert site.verdict(token) == "unknown"


def test_the_earlier_expiry_counts_and_is_told(site: Issuer) -> None:
    now = int(time.time())
    past, soon, late = now - HOUR, now + HOUR, now + 2 * HOUR
    for row, token, verdict, told in [
        (None, past, "expired", past),
        (None, soon, "valid", soon),
        (late, past, "expired", past),
        (late, soon, "valid", soon),
        (soon, late, "valid", soon),
        (past, late, "expired", past),
        (past, None, "expired", past),
        (soon, None, "valid", soon),
    ]:
        jti = site.issue(expires_at=row)
        answer = site.claims(site.token(jti) if token is None else site.token(jti, exp=token))
        assert (answer["verdict"], answer["exp"]) == (verdict, told), (row, token)


def test_a_token_expires_by_itself(site: Issuer) -> None:
    """The table does not change: the daemon checks the token's own expiry at each request."""
    expiry = int(time.time()) + 2
    token = site.token(site.issue(expires_at=expiry + HOUR), exp=expiry)
    assert site.verdict(token) == "valid"
    while True:
        asked = time.time()
        verdict = site.cli.verify(token).names[0]
        answered = time.time()
        if verdict == "expired":
            break
        assert verdict == "valid" and asked < expiry
    assert answered >= expiry


def test_not_before_the_token_says_so(site: Issuer) -> None:
    now = int(time.time())
    jti = site.issue()
    assert site.verdict(site.token(jti, nbf=now + HOUR)) == "not_yet_valid"
    assert site.verdict(site.token(jti, nbf=now - 1)) == "valid"
    assert site.verdict(site.token(jti, nbf=now + HOUR, exp=now - 1)) == "expired"
    site.sql("UPDATE issued SET revoked_at = now() WHERE jti = %s", jti)
    assert site.verdict(site.token(jti, nbf=now + HOUR)) == "revoked"


def test_why_counts_what_the_token_says_of_its_own_time(site: Issuer) -> None:
    now = int(time.time())
    jti = site.issue(expires_at=now + HOUR)
    site.cli.sync("30s")
    for times, conditions in [
        ({"exp": now + HOUR}, []),
        ({"exp": now - HOUR}, [("expired", now - HOUR)]),
        ({"nbf": now + HOUR}, [("not_yet_valid", now + HOUR)]),
        (
            {"exp": now - HOUR, "nbf": now + HOUR},
            [("expired", now - HOUR), ("not_yet_valid", now + HOUR)],
        ),
    ]:
        done = site.cli.why(site.token(jti, **times), expect=1 if conditions else 0)
        (told,) = done.json_lines()
        (row,) = told["rows"]
        assert [(c["condition"], c["at"]) for c in row["failing"]] == conditions, times
        assert row["exp"] == min(times.get("exp", now + HOUR), now + HOUR)
        assert row.get("nbf") == times.get("nbf")


def test_only_what_the_secret_signed_with_hs256_is_known(site: Issuer) -> None:
    jti = site.issue()
    good = site.token(jti)
    header, claims, signature = good.split(".")
    other = encoded({"jti": site.issue()})
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    bad = {
        "wrong secret": sign(secrets.token_bytes(32), {"jti": jti}),
        "alg none": f"{encoded({'alg': 'none'})}.{claims}.",
        "alg none, signed": sign(site.secret, {"jti": jti}, {"alg": "none"}),
        "alg HS384": sign(site.secret, {"jti": jti}, {"alg": "HS384"}),
        "alg RS256": sign(site.secret, {"jti": jti}, {"alg": "RS256"}),
        "no alg": sign(site.secret, {"jti": jti}, {"typ": "JWT"}),
        "crit": sign(site.secret, {"jti": jti}, HS256 | {"crit": ["exp"]}),
        "another's claims": f"{header}.{other}.{signature}",
        "no signature": f"{header}.{claims}",
        "empty signature": f"{header}.{claims}.",
        "four parts": good + ".",
        "padded": good + "=",
        "spare bits": good[:-1] + last[last.index(good[-1]) ^ 1],
        "the jti itself": jti,
        "the claims": claims,
        "no jti": sign(site.secret, {"sub": "7"}),
        "a jti that is no text": sign(site.secret, {"jti": [jti]}),
        "a jti that no row has": site.token(str(uuid.uuid4())),
        "an expiry that is no number": site.token(jti, exp="never"),
        "deep": "[" * 4096,
        "deep, in three parts": ".".join(["W1tb" * 300] * 3),
    }
    answers = site.ask(good, *bad.values())
    assert answers.names[0] == "valid"
    assert dict(zip(bad, answers.names[1:], strict=True)) == dict.fromkeys(bad, "unknown")
    for answer in answers[1:]:
        assert "source" not in answer and "key_id" not in answer


def test_uuids_match_in_either_case_and_texts_exactly(site: Issuer, databases: Databases) -> None:
    jti = site.issue()
    while jti.upper() == jti:
        jti = site.issue()
    assert site.ask(site.token(jti), site.token(jti.upper())).names == ["valid", "valid"]
    texts = Issuer(site.cluster, databases.new())
    texts.sql("ALTER TABLE issued ALTER jti DROP DEFAULT, ALTER jti TYPE text")
    odd = ["Key 1", "key 1", "ünï", " ", jti, 'a"b\\', "x" * 2000]
    texts.sql("INSERT INTO issued (jti, user_id) SELECT unnest(%s), 1", odd)
    with texts.serve():
        tokens = [texts.token(text) for text in odd]
        assert texts.ask(*tokens).names == ["valid"] * len(odd)
        others = [texts.token(text) for text in (jti.upper(), "KEY 1", "key 1 ", "ÜNÏ")]
        assert texts.ask(*others, *odd).names == ["unknown"] * (len(others) + len(odd))
    texts.close()


def test_a_secret_is_replaced_without_a_token_refused(
    cluster: PrivateCluster, databases: Databases
) -> None:
    """Both secrets are configured while tokens of both exist; the counters show when the old one is unused."""
    there = Issuer(cluster, databases.new())
    old, new = there.secret, secrets.token_bytes(48)
    new_file = secret_file(there, "new_secret.b64", base64.b64encode(new) + b"\n")
    jti = there.issue()
    of_old, of_new = sign(old, {"jti": jti}), sign(new, {"jti": jti})
    with there.serve() as daemon:
        assert there.ask(of_old, of_new).names == ["valid", "unknown"]
        there.source("issued", jwt_secret_file=[str(new_file), str(there.file)], **COLUMNS)
        daemon.write_config(there.config)
        daemon.sighup()
        until(lambda: there.verdict(of_new) == "valid", 10, "the new secret is in force")
        assert there.ask(of_old, of_new, of_new).names == ["valid"] * 3
        counted = there.source_status("issued")["accepted_by_jwt_secret"]
        assert counted[str(there.file)] == 2
        assert counted[str(new_file)] >= 3
        # A reload with an unusable file changes nothing.
        new_file.write_bytes(base64.b64encode(new[:31]))
        daemon.sighup()
        daemon.wait_notified("READY=1", 3)
        until(lambda: "everything stays as it was" in daemon.log(), 10, "it is said")
        assert there.ask(of_old, of_new).names == ["valid", "valid"]
        new_file.write_bytes(base64.b64encode(new))
        there.source("issued", jwt_secret_file=str(new_file), **COLUMNS)
        daemon.write_config(there.config)
        daemon.sighup()
        until(lambda: there.verdict(of_old) == "unknown", 10, "the old secret is gone")
        assert there.verdict(of_new) == "valid"
    there.close()


@pytest.mark.parametrize("name", ["secret", "secret.key", "secret.hex", "secret.b64"])
def test_secrets_come_from_the_credentials_directory_in_any_form(
    cluster: PrivateCluster, databases: Databases, name: str
) -> None:
    there = Issuer(cluster, databases.new())
    content = {".hex": there.secret.hex().encode(), ".b64": base64.b64encode(there.secret)}
    secret_file(there, name, content.get(Path(name).suffix, there.secret))
    there.source("issued", jwt_secret_file=name, **COLUMNS)
    there.install()
    jti = there.issue()
    done = check_config(there.config).expect(2)
    assert f'jwt_secret_file "{name}" is relative' in done.stderr
    env = {"CREDENTIALS_DIRECTORY": str(there.folder)}
    check_config(there.config, env=env).expect(0)
    with Daemon(there.config, env=env):
        assert there.verdict(there.token(jti)) == "valid"
    there.close()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("short", b"s" * 31, ["only 31 bytes", "at least 32", "RFC 7518"]),
        ("short.hex", b"73" * 31 + b"\n", ["only 31 bytes"]),
        ("short.b64", base64.b64encode(b"s" * 31), ["only 31 bytes"]),
        ("empty", b"", ["only 0 bytes"]),
        ("odd.hex", b"g" * 64, ["not valid hex"]),
        ("odd.b64", b"*" * 64, ["not valid base64"]),
        ("long", b"s" * 4097, ["longer than 4096 bytes"]),
        ("missing", None, ["cannot read the secret", "No such file"]),
    ],
)
def test_check_refuses_a_secret_that_cannot_be_used(
    site: Issuer, name: str, content: bytes | None, says: list[str]
) -> None:
    path = site.folder / name
    if content is not None:
        secret_file(site, name, content)
    done = check_config(site.config.replace(str(site.file), str(path))).expect(2)
    for words in [str(path), *says]:
        assert words in done.stderr
    assert "ssss" not in done.stderr and "7373" not in done.stderr and "c3Nz" not in done.stderr


def test_check_warns_of_a_line_break_at_the_end_of_a_secret(site: Issuer) -> None:
    path = secret_file(site, "with_line_break", b"s" * 32 + b"\n")
    done = check_config(site.config.replace(str(site.file), str(path))).expect(0)
    assert "ends with a line break" in done.stderr and str(path) in done.stderr


def test_no_secret_and_no_signature_stays_in_memory_or_is_written(
    cluster: PrivateCluster, databases: Databases
) -> None:
    there = Issuer(cluster, databases.new())
    there.more = '[log]\nlevel = "debug"\n'
    in_text = secrets.token_hex(32).encode()
    text_file = secret_file(there, "text.b64", base64.b64encode(in_text))
    there.source("issued", jwt_secret_file=[str(there.file), str(text_file)], **COLUMNS)
    good, bad = there.token(there.issue()), sign(secrets.token_bytes(32), {"jti": "x"})
    forged = ".".join([*good.split(".")[:1], encoded({"jti": there.issue()}), "A" * 43])
    with there.serve() as daemon:
        assert there.ask(good, bad, forged).names == ["valid", "unknown", "unknown"]
        daemon.sighup()
        daemon.wait_notified("READY=1", 2)
        assert there.ask(good, bad, forged).names == ["valid", "unknown", "unknown"]
        status = there.cli.run("--socket", str(there.socket), "--json", "status").stdout
        signature = base64.urlsafe_b64decode(good.rsplit(".", 1)[1] + "=")
        wanted = {
            "secret": there.secret,
            "secret from text": in_text,
            "secret as text": base64.b64encode(in_text),
            "token": good.encode(),
            "signature": good.rsplit(".", 1)[1].encode(),
            "raw signature": signature,
            "another's token": bad.encode(),
        }
        assert found_in(memory_of(daemon.pid), {"control": b"jwt_secret"}) == {"control"}
        assert found_in(memory_of(daemon.pid), wanted) == set()
    written = (daemon.log() + status).encode()
    hexes = {f"{name} in hex": value.hex().encode() for name, value in wanted.items()}
    assert found_in([written], wanted | hexes) == set()
    there.close()


def test_two_rows_with_one_jti_are_nobodys(cluster: PrivateCluster, databases: Databases) -> None:
    there = Issuer(cluster, databases.new())
    there.sql("ALTER TABLE issued DROP CONSTRAINT issued_jti_key")
    jti = there.issue(user=1)
    with there.serve():
        assert there.verdict(there.token(jti)) == "valid"
        there.sql("INSERT INTO issued (jti, user_id) VALUES (%s, 2)", jti)
        assert there.verdict(there.token(jti)) == "disabled"
        there.sql("DELETE FROM issued WHERE user_id = 1")
        assert there.claims(there.token(jti))["sub"] == "2"
    there.close()
