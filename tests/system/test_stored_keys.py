"""Keys as a table stores them: digests in each encoding, with and without versions of peppers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest
from harness import seeds
from harness.postgres import PrivateCluster
from installation import Databases, Installation, Setting, emptied


@pytest.fixture(scope="module")
def scratch(databases: Databases) -> str:
    return databases.new()


@pytest.fixture
def site(cluster: PrivateCluster, scratch: str) -> Iterator[Installation]:
    with emptied(cluster, scratch) as made:
        yield made


SHA = hashlib.sha256(b"the key").digest()
HEX, B64 = SHA.hex(), base64.b64encode(SHA).decode()
B64URL = base64.urlsafe_b64encode(SHA).decode()


@pytest.mark.parametrize(
    ("encoding", "column", "stored"),
    [
        ("raw", "bytea", SHA),
        ("hex", "text", HEX),
        ("hex", "text", HEX.upper()),
        ("hex", "char(64)", HEX),
        ("hex", "varchar(100)", HEX),
        ("base64", "text", B64),
        ("base64", "text", B64.rstrip("=")),
        ("base64", "text", B64URL),
        ("base64", "text", B64URL.rstrip("=")),
    ],
)
def test_sha256_in_each_encoding(
    site: Installation, encoding: str, column: str, stored: str | bytes
) -> None:
    site.sql(f"CREATE TABLE t (id int PRIMARY KEY, digest {column}, note text)")
    site.source(
        "t", table="public.t", id="id", key="digest", scheme="sha256", encoding=encoding
    )
    site.sql("INSERT INTO t VALUES (1, %s)", stored)
    with site.serve():
        assert site.ask("the key", "another key", HEX, B64).names == ["valid"] + ["unknown"] * 3
        # The same through a notification instead of the load.
        site.sql("UPDATE t SET digest = NULL")
        assert site.verdict("the key") == "unknown"
        site.sql("UPDATE t SET digest = %s", stored)
        assert site.verdict("the key") == "valid"


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("hex", HEX[:-1]),
        ("hex", HEX + "00"),
        ("hex", "\\x" + HEX),
        ("hex", " " + HEX),
        ("hex", "g" + HEX[1:]),
        ("base64", B64[:-2]),
        ("base64", B64 + "AA"),
        ("base64", "sha256:" + B64),
        ("base64", B64 + "\n"),
        ("base64", "!" + B64[1:]),
        ("base64", "===="),
    ],
)
def test_what_is_no_digest_is_counted_and_never_matches(
    site: Installation, encoding: str, stored: str
) -> None:
    site.sql("CREATE TABLE t (id int PRIMARY KEY, digest text)")
    site.source(
        "t", table="public.t", id="id", key="digest", scheme="sha256", encoding=encoding
    )
    site.sql("INSERT INTO t VALUES (1, %s)", stored)
    with site.serve():
        assert site.ask("the key", stored.strip() or "x").names == ["unknown", "unknown"]
        assert site.source_status("t")["odd_rows"] == {"bad_digest": 1}


@pytest.mark.parametrize("versioned", [True, False])
def test_hmac_in_hex_with_and_without_a_version_column(
    site: Installation, versioned: bool
) -> None:
    peppers = [seeds.Pepper.random(f"pepper_v{i}") for i in (1, 2)]
    for pepper in peppers:
        pepper.write_to(site.peppers)
    site.sql("CREATE TABLE t (id int PRIMARY KEY, digest text, version text)")
    settings: dict[str, Setting] = {"key_version": "version"} if versioned else {}
    site.source(
        "t",
        table="public.t",
        id="id",
        key="digest",
        scheme="hmac-sha256",
        encoding="hex",
        peppers=str(site.peppers),
        **settings,
    )
    for number, pepper in enumerate(peppers):
        digest = pepper.digest(f"key {number}").hex()
        site.sql("INSERT INTO t VALUES (%s, %s, %s)", number, digest, pepper.name)
    with site.serve():
        assert site.ask("key 0", "key 1", "key 2").names == ["valid", "valid", "unknown"]
        assert site.source_status("t")["odd_rows"] == {}
        hits = site.source_status("t")["accepted_by_pepper"]
        assert hits == {"pepper_v1.key": 1, "pepper_v2.key": 1}
