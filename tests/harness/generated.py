"""The keys that latchkey-bench generates."""

from __future__ import annotations

import subprocess
import tempfile

from psycopg2.extensions import connection as Connection

from .programs import program


def store_generated(conn: Connection, rows: int) -> None:
    """Create a table bench_key (id, digest) with the SHA-256 of the first `rows` keys, in order."""
    with conn.cursor() as cursor, tempfile.TemporaryFile("w+") as file:
        command = [str(program("latchkey-bench")), "keys", "--generate", str(rows)]
        subprocess.run(command, stdout=file, check=True)
        file.seek(0)
        cursor.execute("CREATE UNLOGGED TABLE bench_text (id bigserial, key text)")
        cursor.copy_expert("COPY bench_text (key) FROM STDIN", file)
        cursor.execute(
            "CREATE UNLOGGED TABLE bench_key AS"
            " SELECT id, sha256(key::bytea) AS digest FROM bench_text ORDER BY id"
        )
        cursor.execute("DROP TABLE bench_text")
        cursor.execute("ALTER TABLE bench_key ADD PRIMARY KEY (id), ALTER digest SET NOT NULL")
