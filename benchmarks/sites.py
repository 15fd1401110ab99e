"""What a client is told about the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import make_conninfo

__all__ = ["CREATE", "INSERT", "Site"]

CREATE = "CREATE TABLE bench_writes (client text NOT NULL, worker integer NOT NULL, number integer NOT NULL)"
# No unique index: who writes twice is to be seen. The server tells who it is.
INSERT = """
    INSERT INTO bench_writes VALUES (%s, %s, %s)
    RETURNING host(inet_server_addr()) || ':' || inet_server_port()
"""

# libpq takes no less; each host of a list has as long.
_CONNECT_TIMEOUT = 2


@dataclass(frozen=True, slots=True)
class Site:
    """Where the cluster is.

    :param servers: PostgreSQL's host and port of every node
    :param urls: Patroni's REST API of every node
    :param haproxy: host and port of HAProxy
    :param dbname: the database
    :param user: the role
    :param password: its password
    :param statement: what a worker does in one transaction, with a key for its parameters; returns one text
    :param target: the servers that our clients want, as ``patroni_target`` takes it
    :param application: what our clients call themselves
    :param etcd: settings of Patroni's etcd without their prefix, for those of our clients that watch it
    :param address_map: other addresses to reach the servers at, as ``patroni_address_map`` takes them
    :param web: the address of the example project, for clients that speak HTTP
    :param exactly_once: whether a commit marker decides what became of a COMMIT that was not answered. Without, such
        a transaction is run again all the same, as a program does that knows no better
    """

    servers: tuple[tuple[str, int], ...]
    urls: tuple[str, ...]
    haproxy: tuple[str, int]
    dbname: str
    user: str
    password: str
    statement: str = INSERT
    target: str = "primary"
    application: str = "benchmark"
    etcd: dict[str, str] | None = None
    address_map: str | None = None
    web: str | None = None
    exactly_once: bool = True

    def conninfo(self, servers: tuple[tuple[str, int], ...], **extra: Any) -> str:
        """Return a connection string of libpq for `servers`.

        :param extra: more parameters
        """
        return make_conninfo(
            host=",".join(host for host, _ in servers),
            port=",".join(str(port) for _, port in servers),
            dbname=self.dbname,
            user=self.user,
            password=self.password,
            connect_timeout=_CONNECT_TIMEOUT,
            **extra,
        )

    @property
    def read_write(self) -> str:
        """All servers, of which libpq looks for the one that takes writes."""
        return self.conninfo(self.servers, target_session_attrs="read-write")
