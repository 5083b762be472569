"""Hostile database roles, and the traps that they lay in the database's catalogue.

    eve      an ordinary login: may create what PUBLIC may
    owner1   own a table each, and may create types, casts, operators and functions
    owner2
    app      writes rows

A trap is an object with the name of something that SQL may use (an operator, a function, a type, a
relation). It records each call in a sequence, because a rollback does not undo nextval().
"""

from __future__ import annotations

from harness.postgres import PrivateCluster
from installation import Installation

EVE, OWNERS, APP = "eve", ("owner1", "owner2"), "app"

_OPERATORS = {
    "=": "boolean",
    "<>": "boolean",
    "<": "boolean",
    ">": "boolean",
    "<=": "boolean",
    ">=": "boolean",
    "*<>": "boolean",
    "~~": "boolean",
    "+": "left",
    "-": "left",
    "*": "left",
    "/": "left",
    "||": "left",
    "&": "left",
}
_TYPES = [
    '"char"', "name", "text", "varchar", "bpchar", "int2", "int4", "int8", "oid", "regclass", "regproc",
    "regprocedure", "regnamespace", "xid", "bool", "bytea", "date", "timestamp", "timestamptz", "uuid",
    "numeric", "jsonb", "text[]", "oid[]", "record",
]  # fmt: skip
_PAIRS = [(one, one) for one in _TYPES] + [
    ("oid", "regclass"), ("oid", "regnamespace"), ("oid", "regprocedure"), ("oid", "int4"), ("oid", "regproc"),
    ("name", "text"), ("text", "name"), ("int2", "int4"), ("int2", "int8"), ("int4", "int8"), ("int8", "int4"),
    ("int4", "int2"), ("timestamp", "date"), ("timestamptz", "interval"), ("int4", "interval"),
    ("int8", "interval"), ("interval", "int8"), ("bpchar", "text"), ("varchar", "text"), ("text", "varchar"),
    ("int8", "numeric"), ("numeric", "int4"), ("numeric", "int8"), ("date", "timestamp"),
]  # fmt: skip
_FUNCTIONS = [
    "pg_notify(text, text)", "to_json(text)", "to_jsonb(text)", "octet_length(text)", "octet_length(bytea)",
    "unnest(text[])", "unnest(oid[])", "unnest(int8[])", "encode(bytea, text)", "decode(text, text)",
    "sha256(bytea)", "convert_to(text, text)", "convert_to(text, name)", "substr(text, int4, int4)",
    "substr(bytea, int4, int4)", "split_part(text, text, int4)", "repeat(text, int4)",
    "pg_has_role(oid, oid, text)", "pg_has_role(oid, text)", "pg_get_userbyid(oid)", "current_database()",
    "to_regnamespace(text)", "timezone(text, timestamptz)", "timezone(text, timestamp)", "to_timestamp(int4)",
    "to_timestamp(int8)", "uuid_send(uuid)", "pg_column_size(text)", "pg_column_size(jsonb)", "pg_column_compression(jsonb)",
    "set_config(text, text, bool)", "pg_is_in_recovery()", "pg_walfile_name(text)", "pg_current_wal_lsn()",
    "format_type(oid, int4)", "row_security_active(oid)", "has_schema_privilege(oid, text)",
    "has_column_privilege(oid, int2, text)", "getdatabaseencoding()", "byteacat(bytea, bytea)",
    "pg_partition_tree(regclass)", "pg_relation_filenode(oid)", "pg_relation_filenode(regclass)",
    "json_array_length(json)", "cardinality(int2[])", "array_to_json(text[])", "concat(text)", "concat(int4)",
    "concat_ws(text, text)", "has_function_privilege(text, text)", "pg_get_expr(pg_node_tree, oid)",
    "record_send(record)", "text(name)", "text(oid)", "int8(text)", "bit(text, int4)", "left(text, int4)",
]  # fmt: skip
_AGGREGATES = ["string_agg(text, text)", "json_agg(text)", "array_agg(text)", "sum(int4)", "sum(int8)", "min(float4)"]
_DOMAINS = ["text", "int8", "int4", "oid", "name", "regclass", "regprocedure", "timestamptz", "date", "bytea", "trigger"]
_VIEWS = ["pg_class", "pg_namespace", "pg_roles", "pg_trigger", "pg_proc", "pg_depend", "pg_policy",
          "pg_type", "pg_index", "pg_settings", "pg_auth_members", "pg_inherits", "pg_constraint"]  # fmt: skip


def create_roles(cluster: PrivateCluster) -> None:
    """Create the roles. A server needs this once."""
    for role in (EVE, *OWNERS, APP):
        cluster.sql(f"CREATE ROLE {role} LOGIN")


class Traps:
    """The traps of one database, in each schema that a search_path there may name."""

    def __init__(self, site: Installation, schemas: tuple[str, ...] = ("hostile", "public", "postgres")) -> None:
        self._site = site
        self.schemas = schemas
        site.sql("CREATE SCHEMA trap AUTHORIZATION eve; GRANT USAGE ON SCHEMA trap TO PUBLIC")
        self._as_eve(
            """CREATE SEQUENCE trap.calls; GRANT USAGE, SELECT, UPDATE ON trap.calls TO PUBLIC;
            CREATE TABLE trap.log (by name, what text); GRANT INSERT ON trap.log TO PUBLIC;
            CREATE FUNCTION trap.note(what text) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
            $$ BEGIN PERFORM pg_catalog.nextval('trap.calls');
                INSERT INTO trap.log VALUES (session_user, what); RETURN 1; END $$"""
        )
        for schema in schemas:
            site.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}; GRANT CREATE, USAGE ON SCHEMA {schema} TO eve")
            site.sql(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
            self._lay(schema)

    def reach_everybody(self) -> None:
        """Set the search_path as ALTER DATABASE or ALTER ROLE may: pg_catalog comes last."""
        path = ", ".join((*self.schemas, "pg_catalog"))
        self._site.sql(f"ALTER DATABASE {self._site.dbname} SET search_path = {path}")

    def called(self) -> list[tuple[str, str]]:
        """Each role caught by a trap, with the trap; calls of aborted transactions count too."""
        ((is_called,),) = self._site.sql("SELECT is_called FROM trap.calls")
        rows = self._site.sql("SELECT DISTINCT by::pg_catalog.text, what FROM trap.log")
        return [*rows] if rows or not is_called else [("?", "in a transaction that was undone")]

    def forget(self) -> None:
        self._site.sql("DELETE FROM trap.log; SELECT pg_catalog.setval('trap.calls', 1, false)")

    # ---- details

    def _as_eve(self, text: str) -> None:
        self._site.cluster.sql(text, dbname=self._site.dbname, user=EVE)

    def _lay(self, schema: str) -> None:
        statements = []
        number = 0
        for left, right in _PAIRS:
            for operator, gives in _OPERATORS.items():
                number += 1
                what = f"{schema}.{operator}({left}, {right})"
                if "record" in (left, right):
                    continue  # no function in plpgsql takes a record
                kind = "pg_catalog.bool" if gives == "boolean" else _catalogue(left)
                result = "true" if gives == "boolean" else "a"
                statements.append(
                    f"CREATE FUNCTION {schema}.trap_{number}(a {_catalogue(left)}, b {_catalogue(right)})"
                    f" RETURNS {kind} LANGUAGE plpgsql AS"
                    f" $$ BEGIN PERFORM trap.note('{what}'); RETURN {result}; END $$;"
                    f"CREATE OPERATOR {schema}.{operator} (FUNCTION = {schema}.trap_{number},"
                    f" LEFTARG = {_catalogue(left)}, RIGHTARG = {_catalogue(right)})"
                )
        for signature in _FUNCTIONS:
            name, arguments = signature[:-1].split("(")
            kinds = ", ".join(_catalogue(kind) for kind in arguments.split(", ") if kind)
            if "pg_node_tree" in kinds or "record" in kinds:
                continue
            statements.append(
                f"CREATE FUNCTION {schema}.{name}({kinds}) RETURNS pg_catalog.text LANGUAGE plpgsql AS"
                f" $$ BEGIN PERFORM trap.note('{schema}.{signature}'); RETURN 'x'; END $$"
            )
        for number, signature in enumerate(_AGGREGATES):
            name, arguments = signature[:-1].split("(")
            kinds = ", ".join(_catalogue(kind) for kind in arguments.split(", "))
            statements.append(
                f"CREATE FUNCTION {schema}.step_{number}(pg_catalog.text, {kinds}) RETURNS pg_catalog.text"
                f" LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.note('{schema}.{signature}'); RETURN 'x'; END $$;"
                f"CREATE AGGREGATE {schema}.{name}({kinds}) (SFUNC = {schema}.step_{number}, STYPE = pg_catalog.text)"
            )
        statements.append(
            f"CREATE FUNCTION {schema}.checked() RETURNS pg_catalog.bool LANGUAGE plpgsql AS"
            f" $$ BEGIN PERFORM trap.note('{schema}: a domain'); RETURN true; END $$"
        )
        for name in _DOMAINS:
            statements.append(f"CREATE DOMAIN {schema}.{name} AS pg_catalog.int4 CHECK ({schema}.checked())")
        for name in _VIEWS:
            statements.append(
                f"CREATE VIEW {schema}.{name} AS SELECT v.*, trap.note('{schema}.{name}') AS trapped FROM pg_catalog.{name} v;"
                f"GRANT SELECT ON {schema}.{name} TO PUBLIC"
            )
        self._as_eve(";\n".join(statements))


def _catalogue(kind: str) -> str:
    """The type of this name in pg_catalog, independent of the search_path."""
    return f"pg_catalog.{kind}"
