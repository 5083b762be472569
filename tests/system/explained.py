"""Explanations by `latchkey why`: an installation over the three schemas that asks for them."""

from __future__ import annotations

import secrets
from typing import Any

from harness import seeds
from harness.postgres import PrivateCluster
from installation import Installation

ALL, UNTOLD, RESTRICTED = 61501, 61502, 61503

RULES = f"""
[[allow]]
uid = {ALL}
reasons = true
[[allow]]
uid = {UNTOLD}
[[allow]]
uid = {RESTRICTED}
sources = ["plain"]
reasons = true
"""


class Site(Installation):
    """An installation with the three schemas in one database and two pepper versions."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        for name in ("external_credentials", "auth_api_key"):
            seeds.create_schema(self.conn, name)
        self.old, self.new = (seeds.Pepper.random(f"pepper_v{i}") for i in (1, 2))
        for pepper in (self.old, self.new):
            pepper.write_to(self.peppers)
        self.source("hashed", preset="api_keys", peppers=str(self.peppers))
        self.source("plain", preset="external_credentials")
        self.source("jwt", preset="auth_api_key")
        self.listen["mode"] = "0666"
        self.more = RULES
        self.tenant = seeds.insert_tenant(self.conn, "Acme")
        self.user = seeds.insert_user(self.conn)

    def issue(self, token: str, pepper: seeds.Pepper | None = None, **facts: Any) -> int:
        name = f"{token} {secrets.token_hex(4)}"  # unique in the table
        return seeds.insert_api_key(
            self.conn, self.tenant, self.user, name, token, pepper or self.new, **facts
        )

    def why(self, key: str | bytes, **options: Any) -> dict[str, Any]:
        """The explanation of a key after a `sync`. It must agree with the answer of `verify`, and
        must not repeat the key."""
        self.cli.sync("30s")
        done = self.cli.why(key, **options)
        (told,) = done.json_lines()
        (answer,) = self.cli.verify([key], **options)
        for member in ("active", "verdict", "source", "key_id"):
            assert told.get(member) == answer.get(member), member
        assert done.exit_code == (0 if told["active"] else 1)
        text = key.decode(errors="replace") if isinstance(key, bytes) else key
        if len(text) > 3:
            assert text.strip() not in done.stdout + done.stderr
        return told

    def words(self, key: str | bytes, *options: str) -> str:
        """The text for people, with spaces instead of line breaks."""
        self.cli.sync("30s")
        raw = key if isinstance(key, bytes) else key.encode()
        done = self.cli.run("--socket", str(self.socket), "why", *options, stdin=raw + b"\n")
        assert done.exit_code in (0, 1) and done.stderr == ""
        if len(raw) > 3:
            assert raw.strip().decode(errors="replace") not in done.stdout
        assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout
        return " ".join(done.stdout.split())


def conditions(told: dict[str, Any], row: int = 0) -> list[str]:
    return [condition["condition"] for condition in told["rows"][row]["failing"]]
