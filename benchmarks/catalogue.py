"""The clients, in the order of the tables."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLIENTS", "HAPROXY", "WORKERS", "ClientKind"]

# Of each client: threads, or tasks of an asynchronous one.
WORKERS = 4
# Seconds: slow enough that two cores carry all clients and the servers with time to spare.
PACE = 0.1


@dataclass(frozen=True, slots=True)
class ClientKind:
    """A way for an application to write to the cluster.

    :param name: short, for the command line
    :param label: what the tables call it
    :param module: ``peers`` or ``ours``
    :param factory: the function there
    :param is_async: whether it is asynchronous
    :param pace: seconds from an acknowledged write to the next one
    :param workers: its threads, or tasks
    """

    name: str
    label: str
    module: str
    factory: str
    is_async: bool = False
    pace: float = PACE
    workers: int = WORKERS

    @property
    def is_ours(self) -> bool:
        """Whether it uses this library."""
        return self.module == "ours"


HAPROXY = "haproxy"

CLIENTS = (
    ClientKind("libpq", "libpq, list of hosts", "peers", "libpq"),
    ClientKind("libpq-timeout", "the same, tcp_user_timeout 3 s", "peers", "libpq_user_timeout"),
    ClientKind("pre-ping", "SQLAlchemy, list of hosts, pool_pre_ping", "peers", "sqlalchemy_pre_ping"),
    ClientKind("psycopg-pool", "psycopg_pool, list of hosts, check", "peers", "psycopg_pool"),
    ClientKind("hasql", "hasql", "peers", "hasql", is_async=True),
    ClientKind(HAPROXY, "HAProxy", "peers", "haproxy"),
    ClientKind("ours-sqlalchemy", "**ours**: SQLAlchemy", "ours", "sqlalchemy"),
    ClientKind("ours-async", "**ours**: SQLAlchemy async", "ours", "sqlalchemy_async", is_async=True),
    ClientKind("ours-nullpool", "**ours**: SQLAlchemy, no pool", "ours", "sqlalchemy_null_pool", pace=2 * PACE),
    ClientKind("ours-django", "**ours**: Django, persistent", "ours", "django_persistent"),
    ClientKind("ours-django-pool", "**ours**: Django, pool", "ours", "django_pool"),
)
