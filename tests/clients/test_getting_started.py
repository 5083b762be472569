"""docs/getting-started.md, followed to the letter: its SQL, its configuration, its commands, its program."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

from psycopg2.extensions import parse_dsn

from harness.folder import TemporaryFolder
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import REPOSITORY, Daemon, build_folder
from harness.wait import scaled, until
from installation import PASSWORD, Databases

PAGE = (REPOSITORY / "docs/getting-started.md").read_text()


def blocks(language: str) -> list[str]:
    """The page's code in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Reader:
    """Follows the page's steps in a folder, with the paths of a test."""

    def __init__(self, folder: Path, cluster: PrivateCluster, dbname: str) -> None:
        self._folder = folder
        self._cluster = cluster
        self.dbname = dbname
        self.socket = folder / "latchkey.sock"
        server = parse_dsn(cluster.conninfo(dbname))
        self._environment = os.environ | {
            "PATH": f"{REPOSITORY / build_folder() / 'bin'}:{os.environ['PATH']}",
            "LATCHKEY_SOCKET": str(self.socket),
            "PGHOST": server["host"],
            "PGPORT": server.get("port", "5432"),
            "PGUSER": server["user"],
        }

    def run(self, commands: str) -> str:
        """Run the commands, which must all succeed; returns their output."""
        commands = re.sub(r"\bapp$", self.dbname, commands, flags=re.MULTILINE)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", commands],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=scaled(60),
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def sql(self, text: str, **variables: str) -> None:
        """Run SQL as the tables' owner; variables are psql's."""
        given = "".join(f"\\set {name} '{value}'\n" for name, value in variables.items())
        self._cluster.psql(given + text, self.dbname)


def test_the_page_works_from_a_table_to_a_request(
    cluster: PrivateCluster, databases: Databases
) -> None:
    temporary = TemporaryFolder()
    folder = temporary.path
    reader = Reader(folder, cluster, databases.new())
    create, insert, revoke = blocks("sql")
    (config,) = blocks("toml")
    prepare, check, mint, ask = blocks("sh")

    reader.sql(create)
    conninfo = cluster.conninfo(reader.dbname, PASSWORD_ROLE)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD + "\n")
    for page, here in (
        ("/run/latchkey/latchkey.sock", str(reader.socket)),
        ("host=/run/postgresql dbname=app user=latchkey\"", f'{conninfo}"\npassword_file = "{password}"'),
    ):
        assert page in config
        config = config.replace(page, here)
    (folder / "latchkey.toml").write_text(config)
    reader.run(prepare)
    reader.run(check)

    minted = json.loads(reader.run(mint))
    reader.sql(insert, store=minted["store"])
    (folder / "key").write_text(minted["key"] + "\n")
    # The default group is created by the package, which a test lacks, so the test names root.
    with Daemon(config.replace("[listen]", '[listen]\ngroup = "root"')):
        said = reader.run(ask)
        assert said.startswith("valid") and "sub=alice" in said

        (program,) = blocks("python")
        printed = reader.run(
            f"PYTHONPATH={REPOSITORY}/client/python/src /usr/bin/python3 -B - <<'END'\n"
            f"{program}\nprint(who({minted['key']!r}), who('sk_live_other'))\nEND"
        )
        assert printed == "alice None\n"

        reader.sql(revoke)
        until(
            lambda: reader.run("latchkey verify < key || true").startswith("revoked"),
            20,
            "the key is revoked",
        )
    temporary.close()


def test_links_of_the_documents_lead_somewhere() -> None:
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    pages += [*REPOSITORY.glob("client/*/README.md"), *REPOSITORY.glob("protocol/*.md")]
    assert len(pages) > 12
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
