"""No key and no pepper stays in memory, and no secret appears in any output."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from harness import seeds
from harness.programs import Daemon, check_config
from harness.wait import until
from installation import PASSWORD, Databases, Installation

# Long enough that it cannot appear by chance.
PLANTED = secrets.token_hex(16)

# Larger mappings are the shadow memory of a sanitizer: terabytes without bytes of the program.
SHADOW_BYTES = 1 << 36


def memory_of(pid: int) -> Iterator[bytes]:
    """Every readable mapping of a process in turn."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if found is None or "[v" in line:  # vvar and vsyscall belong to the kernel
                continue
            start, end = (int(text, 16) for text in found.groups())
            if end - start > SHADOW_BYTES:
                continue
            for at in range(start, end, 1 << 26):
                memory.seek(at)
                try:
                    # The pieces overlap, so that nothing is missed at their borders.
                    yield memory.read(min((1 << 26) + 4096, end - at))
                except OSError:
                    break  # reserved and never touched


def found_in(pieces: Iterable[bytes], wanted: dict[str, bytes]) -> set[str]:
    """The names of the values that occur in one of the pieces."""
    found = set()
    for piece in pieces:
        found |= {name for name, value in wanted.items() if value in piece}
    return found


def test_no_key_stays_in_memory_and_no_secret_is_written(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("api_keys"))
    for name in ("external_credentials", "auth_api_key"):
        seeds.create_schema(there.conn, name)
    pepper = seeds.Pepper("db_hmac_api_keys_token_hash_v1", f"pepper-{PLANTED}".encode()[:32])
    pepper.write_to(there.peppers)
    there.source("api_keys", preset="api_keys", peppers=str(there.peppers))
    there.source("plain", preset="external_credentials")
    there.source("jwt", preset="auth_api_key")
    there.more = '[log]\nlevel = "debug"\n'

    stored_plain = f"sk_plain_{PLANTED}"
    long_plain = "sk_long_" + PLANTED * 7
    hashed = f"sk_hashed_{PLANTED}"
    tenant = seeds.insert_tenant(there.conn, "Acme")
    seeds.insert_api_key(there.conn, tenant, None, "a", hashed, pepper)
    seeds.insert_external(there.conn, stored_plain, 1)
    seeds.insert_external(there.conn, long_plain, 2)
    user = seeds.insert_auth_user(there.conn, "someone@example.com")
    token = seeds.insert_auth_key(there.conn, user).token
    unknown = f"sk_unknown_{PLANTED}"
    revoked = f"sk_revoked_{PLANTED}"
    seeds.insert_external(there.conn, revoked, 3, deleted=True)
    keys = {
        "stored plain": stored_plain,
        "stored plain, long": long_plain,
        "presented, stored as HMAC": hashed,
        "JWT": token,
        "presented, unknown": unknown,
        "presented, deleted": revoked,
    }

    with there.serve() as daemon:
        first = there.ask(*keys.values())
        assert sorted(first.names) == sorted(["valid"] * 4 + ["unknown", "deleted"])
        # Verify again after changes, so that re-reads have happened, and after a complete reload.
        changed = f"sk_changed_{PLANTED}"
        there.sql("UPDATE external_credentials SET api_key = %s WHERE api_key = %s", changed, stored_plain)
        keys["stored by a change"] = changed
        there.reload("public.external_credentials")
        there.reload("auth.api_key")
        assert there.ask(*keys.values()).names.count("valid") == 4
        there.cli.verify(["x" * 4097 + PLANTED, "", *keys.values()])
        status = there.cli.run("--socket", str(there.socket), "--json", "status").stdout
        there.sql("ALTER TABLE external_credentials RENAME TO elsewhere")
        there.reload("public.external_credentials")  # provokes an error worded by PostgreSQL
        there.sql("ALTER TABLE elsewhere RENAME TO external_credentials")
        there.cli.sync("30s")

        wanted = {name: key.encode() for name, key in keys.items()}
        wanted["the JWT's signature"] = token.rsplit(".", 1)[1].encode()
        # A control that the search works: this name is certainly in memory.
        control = {"control": b"external_credentials"}
        assert found_in(memory_of(daemon.pid), control) == {"control"}
        assert found_in(memory_of(daemon.pid), wanted) == set()

        environ = Path(f"/proc/{daemon.pid}/environ").read_bytes()
        cmdline = Path(f"/proc/{daemon.pid}/cmdline").read_bytes()
    written = {
        "log": daemon.log().encode(),
        "status": status.encode(),
        "environment": environ,
        "arguments": cmdline,
    }
    wanted |= {
        "password": PASSWORD.encode(),
        "pepper": pepper.secret,
        "pepper in hex": pepper.secret.hex().encode(),
    }
    for name, text in written.items():
        assert found_in([text], wanted) == set(), name
    there.close()


def test_no_pepper_stays_in_memory(cluster, databases: Databases) -> None:
    """The daemon keeps the HMAC states made from a pepper before any key, and not the pepper."""
    there = Installation(cluster, databases.new("api_keys"))
    there.source("api_keys", preset="api_keys", peppers=str(there.peppers))
    tenant = seeds.insert_tenant(there.conn, "Acme")
    wanted: dict[str, bytes] = {}

    def add(name: str, form: Literal["key", "hex", "b64"]) -> None:
        # All bytes are random: 16 of them are enough to detect a copy.
        pepper = seeds.Pepper(name, secrets.token_bytes(48))
        written = pepper.write_to(there.peppers, form).read_bytes().strip()
        for part, text in {"raw": pepper.secret, "as written": written}.items():
            wanted[f"{name}, {part}, begins"] = text[:16]
            wanted[f"{name}, {part}, ends"] = text[-16:]
        seeds.insert_api_key(there.conn, tenant, None, name, f"sk_{name}", pepper)

    for form in ("key", "hex", "b64"):
        add(f"version_{form}", form)
    with there.serve() as daemon:
        assert there.ask("sk_version_key", "sk_version_hex", "sk_version_b64").names == ["valid"] * 3
        assert found_in(memory_of(daemon.pid), wanted) == set()
        # Rotation while the daemon runs: it rereads the peppers, and one more.
        add("version_later", "hex")
        daemon.sighup()
        until(lambda: there.ask("sk_version_later").names == ["valid"], 20, "the pepper is taken over")
        assert found_in(memory_of(daemon.pid), {"control": b"version_later"}) == {"control"}
        assert found_in(memory_of(daemon.pid), wanted) == set()
    there.close()


def test_no_core_file_and_no_stranger_may_look(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("external_credentials"))
    there.source("plain", preset="external_credentials")
    with there.serve() as daemon:
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits)
        # The kernel gives these files to root if the process is not dumpable.
        assert Path(f"/proc/{daemon.pid}/environ").stat().st_uid == 0
    there.close()


def test_peppers_come_from_the_credentials_directory(cluster, databases: Databases) -> None:
    """LoadCredential=peppers:FOLDER passes a folder as one file peppers_NAME for each of its files."""
    there = Installation(cluster, databases.new("api_keys"))
    pepper = seeds.Pepper("db_hmac_api_keys_token_hash_v1", secrets.token_bytes(32))
    credentials = there.folder / "credentials"
    credentials.mkdir(0o700)
    (credentials / "peppers_db_hmac_api_keys_token_hash_v1.key").write_bytes(pepper.secret)
    (credentials / "other_pepper.key").write_bytes(b"of something else, thirty-two by")
    there.source("api_keys", preset="api_keys", peppers="peppers")
    tenant = seeds.insert_tenant(there.conn, "Acme")
    seeds.insert_api_key(there.conn, tenant, None, "a", "sk_hashed_0123456789", pepper)
    there.install()
    done = check_config(there.config).expect(2)
    assert 'peppers "peppers" is relative' in done.stderr
    done = check_config(there.config, env={"CREDENTIALS_DIRECTORY": str(there.folder)}).expect(2)
    assert "holds no peppers_*.key" in done.stderr and "LoadCredential=peppers:" in done.stderr
    with Daemon(there.config, env={"CREDENTIALS_DIRECTORY": str(credentials)}):
        assert there.ask("sk_hashed_0123456789").names == ["valid"]
        [source] = there.cli.status()["sources"]
        assert source["accepted_by_pepper"] == {"db_hmac_api_keys_token_hash_v1.key": 1}
    there.close()


def test_what_editors_leave_beside_peppers_is_none(cluster, databases: Databases) -> None:
    there = Installation(cluster, databases.new("api_keys"))
    pepper = seeds.Pepper("pepper_v1", secrets.token_bytes(32))
    pepper.write_to(there.peppers)
    (there.peppers / ".#pepper_v1.key").symlink_to("somebody@host.1234:5678")  # the lock of emacs
    (there.peppers / "._pepper_v1.key").write_bytes(b"of another system, thirty-two by")
    (there.peppers / ".pepper_v1.key.swp").write_bytes(b"x" * 5000)
    (there.peppers / "pepper_v1.key~").write_bytes(b"the one before it")
    (there.peppers / "old.key").mkdir()
    there.source("api_keys", preset="api_keys", peppers=str(there.peppers))
    tenant = seeds.insert_tenant(there.conn, "Acme")
    seeds.insert_api_key(there.conn, tenant, None, "a", "sk_hashed_0123456789", pepper)
    with there.serve():
        assert there.ask("sk_hashed_0123456789").names == ["valid"]
        assert there.source_status("api_keys")["accepted_by_pepper"] == {"pepper_v1.key": 1}
    os.mkfifo(there.peppers / "pepper_v2.key")
    done = check_config(there.config).expect(2)
    assert "no regular file" in done.stderr
    there.close()
