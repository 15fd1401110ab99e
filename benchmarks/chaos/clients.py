"""Who writes and reads through the faults."""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.catalogue import ClientKind
from benchmarks.ours import POOL_SIZE

__all__ = ["CLIENTS", "CREATE", "HTTP_THREADS", "KNOWN_AS", "Application", "statement_of"]

# What a client calls itself at the servers.
KNOWN_AS = "chaos-{}"

# Fewer than the failover benchmark has, for there are more clients: two cores carry servers and clients.
_WORKERS = 2
# Of the web server: requests at a time.
HTTP_THREADS = _WORKERS
# Getting a new connection for each transaction costs the servers most.
_SLOWER = 3.0

# The server tells by itself who stored a row, and on which timeline; no unique index: a doubled row is to be seen.
_TIMELINE = "('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer"
CREATE = f"""
    CREATE TABLE chaos_writes (
        client text NOT NULL,
        worker integer NOT NULL,
        number integer NOT NULL,
        server text DEFAULT host(inet_server_addr()),
        timeline integer DEFAULT {_TIMELINE}
    )
"""
_WRITE = "INSERT INTO chaos_writes VALUES (%s, %s, %s) RETURNING server || ' ' || timeline"
# It takes a key as the writes do, and reads one row at most.
_READ = """
    SELECT host(inet_server_addr()) || ' 0' FROM (SELECT %s::text, %s::integer, %s::integer) AS asked
    LEFT JOIN (SELECT server FROM chaos_writes LIMIT 1) AS written ON true
"""


@dataclass(frozen=True, slots=True)
class Application:
    """A client, and what it may hold.

    :param name: short
    :param label: what the table calls it
    :param factory: the function of ``benchmarks.ours`` that makes it
    :param sessions: connections to PostgreSQL that it may have
    :param is_async: whether it is asynchronous
    :param target: the servers it wants, as ``patroni_target`` takes it
    :param watches_etcd: whether it has the leader key watched (``patroni_etcd``)
    :param slower: how many times longer than others it pauses
    :param once: whether its transactions are run again until they have happened, exactly once: none may fail. It
        reaches the servers over a network that loses answers to COMMIT
    """

    name: str
    label: str
    factory: str
    sessions: int
    is_async: bool = False
    target: str = "primary"
    watches_etcd: bool = False
    slower: float = 1.0
    once: bool = False

    @property
    def writes(self) -> bool:
        """Whether it writes."""
        return self.target == "primary"

    @property
    def spare_threads(self) -> int:
        """Threads that it may come to have: those of an event loop's executor, which stay."""
        return min(32, (os.cpu_count() or 1) + 4) if self.is_async else 0

    def kind(self, pace: float) -> ClientKind:
        """Return it as the benchmarks know clients.

        :param pace: seconds between two transactions of a worker
        """
        return ClientKind(self.name, self.label, "ours", self.factory, self.is_async, pace * self.slower, _WORKERS)


CLIENTS = (
    Application("django", "Django, persistent", "django_persistent", _WORKERS),
    Application("django-pool", "Django, pool", "django_pool", POOL_SIZE, watches_etcd=True),
    Application("sqlalchemy", "SQLAlchemy", "sqlalchemy", POOL_SIZE),
    Application(
        "sqlalchemy-async", "SQLAlchemy async", "sqlalchemy_async", POOL_SIZE, is_async=True, watches_etcd=True
    ),
    Application("sqlalchemy-nullpool", "SQLAlchemy, no pool", "sqlalchemy_null_pool", _WORKERS, slower=_SLOWER),
    Application("once-django", "Django, run_atomic", "django_atomic", _WORKERS, once=True),
    Application("once-sqlalchemy", "SQLAlchemy, run_transaction", "sqlalchemy_transaction", POOL_SIZE, once=True),
    Application(
        "once-async",
        "SQLAlchemy async, run_transaction_async",
        "sqlalchemy_transaction_async",
        POOL_SIZE,
        is_async=True,
        once=True,
    ),
    Application("once-http", "HTTP, Django behind gunicorn", "http", 0, once=True),
    Application("django-reads", "Django, reads", "django_persistent", _WORKERS, target="replica_preferred"),
    Application("sqlalchemy-reads", "SQLAlchemy, reads", "sqlalchemy", POOL_SIZE, target="replica_preferred"),
    Application(
        "async-reads",
        "SQLAlchemy async, reads",
        "sqlalchemy_async",
        POOL_SIZE,
        is_async=True,
        target="replica_preferred",
    ),
)


def statement_of(application: Application) -> str:
    """Return what it does in a transaction."""
    return _WRITE if application.writes else _READ
