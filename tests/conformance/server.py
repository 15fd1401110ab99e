"""The one cluster that both runs of a suite use: stock connects to its primary, ours asks its API."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from patroni_db.cluster import LocalCluster

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Server", "running_server"]

_PARAMETERS = {"max_prepared_transactions": 10, "max_connections": 200}


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Where the suites connect to.

    :param host: the primary's host
    :param port: its port
    :param user: a superuser, as both suites want one
    :param password: the password of `user`
    :param urls: the cluster's REST APIs
    :param features: the extensions that this PostgreSQL offers, and ``ICU`` where it has its collations
    """

    host: str
    port: int
    user: str
    password: str
    urls: tuple[str, ...]
    features: frozenset[str]


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """Run a cluster of one node within the ``with`` block, with the databases that the suites expect."""
    with LocalCluster(nodes=1, parameters=_PARAMETERS) as cluster:
        with psycopg.connect(cluster.conninfo(), autocommit=True) as admin:
            admin.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(cluster.user)))
            admin.execute("CREATE DATABASE test ENCODING 'UTF8' TEMPLATE template0")
            names = admin.execute(
                "SELECT name FROM pg_available_extensions"
                " UNION SELECT 'ICU' FROM pg_collation WHERE collname = 'sv-x-icu'"
            ).fetchall()
        # As SQLAlchemy's README.unittests.rst has it.
        with psycopg.connect(cluster.conninfo(dbname="test"), autocommit=True) as admin:
            admin.execute("CREATE SCHEMA test_schema")
            admin.execute("CREATE SCHEMA test_schema_2")
            admin.execute("CREATE EXTENSION hstore")
            admin.execute("CREATE EXTENSION citext")
            admin.execute("ALTER DATABASE test SET default_text_search_config = 'pg_catalog.english'")
        address = conninfo_to_dict(cluster.conninfo())
        yield Server(
            str(address["host"]),
            int(address["port"] or 0),
            cluster.user,
            cluster.password,
            cluster.urls,
            frozenset(name for (name,) in names),
        )
