"""Shared parts of the fault tests: a proxy before the database, and a witness of every answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psycopg2
from harness import wire
from harness.postgres import PASSWORD_ROLE, PrivateCluster
from harness.programs import Daemon
from harness.proxy import ChaosProxy
from harness.wait import until
from harness.wire import Raw
from installation import Databases, Keys, prepare

BOUND_S = 1.0
QUICK = {"heartbeat": "100ms", "bound": "1s"}

_ANY_DEADLINE_S = 60.0  # a deadline of the tests, not a promise of the daemon
_KEYS_AT_ONCE = 250


def socket_of(cluster: PrivateCluster) -> str:
    """The file name of a server's socket."""
    return f".s.PGSQL.{cluster.port}"


@contextlib.contextmanager
def mortal_cluster(schema: str = "api_keys", **settings: str) -> Iterator[PrivateCluster]:
    """A private server with the daemon's role and a template of one schema."""
    with PrivateCluster(settings=settings) as server:
        prepare(server, (schema,))
        yield server


class Faulty(Keys):
    """An installation over api_keys with a short heartbeat and a short bound."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        self.freshness |= QUICK

    def several(self, prefix: str, count: int) -> list[str]:
        """Issue new keys. The name of each row is its token."""
        tokens = [f"{prefix}_{number}" for number in range(count)]
        for token in tokens:
            self.issue(token)
        return tokens

    def revoke(self, *tokens: str) -> None:
        """Revoke keys. The revocation has committed when this returns."""
        self.sql(
            "UPDATE public.api_keys SET status = 'revoked' WHERE name = ANY (%s)", list(tokens)
        )

    def cut_backends(self) -> None:
        """Make the server terminate all sessions of the daemon with this database."""
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'latchkeyd' AND datname = current_database()"
        )

    def reconnect(self) -> None:
        """Open a new owner's connection: the old one ended with the server."""
        self.conn.close()
        self.conn = self.cluster.connect(self.dbname)

    def state(self) -> str:
        """The state of the database, as `status` names it."""
        return str(self.database_status()["state"])

    def told(self) -> str:
        """All problems that `status` reports, present and last."""
        problems = self.source_status("api_keys").get("problems", [])
        return "\n".join([self.database_status()["last_error"], *problems])

    def wait_told(self, reason: str, deadline_s: float = 10) -> None:
        """Return once `status` reports this problem."""
        until(lambda: reason in self.told(), deadline_s, f"status tells of: {reason}")

    def wait_fresh(self, token: str, verdict: str = "valid", deadline_s: float = 20) -> None:
        """Return once the daemon gives this verdict with a fresh answer."""

        def there() -> bool:
            (answer,) = self.cli.verify(token)
            return bool(answer["fresh"]) and answer["verdict"] == verdict

        until(there, deadline_s, f"{token} is {verdict}, and the answer is fresh")


class Proxied(Faulty):
    """The daemon reaches the database through a proxy; the tests reach it directly."""

    def __init__(self, cluster: PrivateCluster, dbname: str) -> None:
        super().__init__(cluster, dbname)
        self.proxy = ChaosProxy(cluster.socket_dir / socket_of(cluster))
        self.database["conninfo"] = cluster.conninfo(
            dbname, PASSWORD_ROLE, host=str(self.proxy.folder)
        )

    def close(self) -> None:
        with self.proxy:  # which raises if it has failed
            super().close()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Daemon]:
        """Heal the proxy before the daemon ends, so that its end need not wait for a broken connection."""
        with super().serve() as daemon:
            try:
                yield daemon
            finally:
                self.proxy.heal()

    def listener(self) -> int:
        """The number of the connection that listens."""
        return max(facts.number for facts in self.proxy.connections if facts.listens)


@contextlib.contextmanager
def faulty_on(server: PrivateCluster, databases: Databases) -> Iterator[Faulty]:
    """An installation over a server that tests may stop. Its database is dropped at the end: a standby would copy it."""
    with contextlib.closing(Faulty(server, databases.new("api_keys"))) as made:
        yield made
    if server.running:
        databases.drop(made.dbname)


def two_hosts(site: Faulty, *folders: object) -> str:
    """A conninfo that names several servers with the same port."""
    hosts = ",".join(str(folder) for folder in folders)
    return site.cluster.conninfo(site.dbname, PASSWORD_ROLE, host=hosts, connect_timeout="2")


class Witness:
    """Asks for the same keys without pause, and records each answer that is not allowed.

    Two answers are never allowed: a fresh yes to a key whose revocation committed longer than the
    bound before the request, and any answer but yes to a steady key, which no test touches. The end
    of the block waits until every revocation is in force and fresh, and fails if one answer was not
    allowed.
    """

    def __init__(
        self,
        site: Faulty,
        revocable: Sequence[str] = (),
        steady: Sequence[str] = (),
        bound_s: float = BOUND_S,
    ) -> None:
        self._site = site
        self._tokens = [*revocable, *steady]
        self._steady = set(steady)
        self._bound_s = bound_s
        self._revoked_at: dict[str, float] = {}
        self._seen: dict[str, tuple[str, bool]] = {}
        self._wrong: list[str] = []
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="witness")
        self.rounds = 0  # complete passes over all keys
        self.stale = 0  # answers that did not claim to be fresh

    def __enter__(self) -> Witness:
        self._thread.start()
        until(lambda: self.rounds or self._failure, _ANY_DEADLINE_S, "the first answers")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait_in_force()
        finally:
            self._stopping.set()
            self._thread.join()
        assert not self._wrong, "\n".join(self._wrong[:20])
        if kind is None and self._failure is not None:
            raise self._failure

    def revoke(self, *tokens: str) -> None:
        """Revoke keys through the database, and hold the daemon to it from now on."""
        self._site.revoke(*tokens)
        self.revoked(*tokens)

    def revoked(self, *tokens: str) -> None:
        """Record that the caller has committed the revocation of these keys."""
        now = time.monotonic()
        for token in tokens:
            self._revoked_at[token] = now

    def wait_in_force(self, deadline_s: float = _ANY_DEADLINE_S) -> None:
        """Return once each key revoked so far has got a fresh no."""

        def missing() -> list[str]:
            seen = self._seen
            return [token for token in self._revoked_at if seen.get(token) != ("revoked", True)]

        self._until(lambda: not missing(), deadline_s, "all revocations are in force")

    def wait_stale(self, deadline_s: float = _ANY_DEADLINE_S) -> None:
        """Return once a new answer does not claim to be fresh."""
        before = self.stale
        self._until(lambda: self.stale > before, deadline_s, "answers say that they are not fresh")

    def wait_past_bound(self) -> None:
        """Return once the keys revoked so far have been asked for after the bound."""
        over = time.monotonic() + self._bound_s
        self._until(lambda: time.monotonic() > over, _ANY_DEADLINE_S, "the bound has passed")
        rounds = self.rounds
        self._until(lambda: self.rounds > rounds + 1, _ANY_DEADLINE_S, "keys are asked for")

    def verdict(self, token: str) -> str:
        """The verdict of the last answer."""
        return self._seen[token][0]

    def _until(self, predicate: Callable[[], bool], deadline_s: float, what: str) -> None:
        until(lambda: predicate() or self._failure, deadline_s, what)
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        try:
            with Raw(self._site.socket, _ANY_DEADLINE_S) as raw:
                while not self._stopping.is_set():
                    for first in range(0, len(self._tokens), _KEYS_AT_ONCE):
                        self._ask(raw, self._tokens[first : first + _KEYS_AT_ONCE])
                    self.rounds += 1
                    self._stopping.wait(0.002)  # leaves the processor to the daemon
        except BaseException as error:
            self._failure = error

    def _ask(self, raw: Raw, tokens: Sequence[str]) -> None:
        revoked_at = dict(self._revoked_at)
        sent = time.monotonic()
        reply = raw.ask(wire.verify([token.encode() for token in tokens]))
        for token, (verdict, fresh) in zip(tokens, reply.answers, strict=True):
            self._seen[token] = verdict, fresh
            self.stale += not fresh
            since = sent - revoked_at.get(token, sent)
            if verdict == "valid" and fresh and since > self._bound_s:
                self._wrong.append(f"{token}: fresh and valid {since:.3f} s after its revocation")
            if token in self._steady and verdict != "valid":
                self._wrong.append(f"{token}: {verdict}, though nobody touched it")


def refuses_connections(error: psycopg2.OperationalError) -> bool:
    """Whether the server refused the connection because it has none left."""
    return "too many clients" in str(error) or "connection slots" in str(error)
