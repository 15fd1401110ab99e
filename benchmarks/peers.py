"""What one does without this library, each as its documentation says.

A factory is given the site and returns what makes a worker's way to write a row; the asynchronous one returns a
single way for all workers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks.sites import INSERT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.records import Key
    from benchmarks.sites import Site

__all__ = ["haproxy", "hasql", "libpq", "libpq_user_timeout", "psycopg_pool", "sqlalchemy_pre_ping"]

_POOL_SIZE = 4
# hasql ends no statement that hangs; its users have asyncio for that.
_HASQL_TIMEOUT = 5.0
# Milliseconds.
_USER_TIMEOUT = 3000


class _Session:
    """A connection of one worker's own: kept until it fails.

    :param conninfo: where to
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[Any] | None = None

    def write(self, row: Key) -> str:
        if self._connection is None:
            self._connection = psycopg.connect(self._conninfo)
        try:
            with self._connection.transaction():
                return _only(self._connection.execute(INSERT, row).fetchone())
        except psycopg.Error:
            self._connection.close()
            self._connection = None
            raise


def libpq(site: Site) -> Callable[[], Callable[[Key], str]]:
    """``host=a,b,c target_session_attrs=read-write``, connecting anew after an error."""
    return lambda: _Session(site.read_write).write


def libpq_user_timeout(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Do the same, and let the kernel give a connection up whose data is not acknowledged for three seconds."""
    conninfo = site.conninfo(
        site.servers,
        target_session_attrs="read-write",
        tcp_user_timeout=_USER_TIMEOUT,
        keepalives_idle=1,
        keepalives_interval=1,
        keepalives_count=3,
    )
    return lambda: _Session(conninfo).write


def haproxy(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Through HAProxy, which asks Patroni's REST API who leads."""
    conninfo = site.conninfo((site.haproxy,))
    return lambda: _Session(conninfo).write


def sqlalchemy_pre_ping(site: Site) -> Callable[[], Callable[[Key], str]]:
    """SQLAlchemy's pool with ``pool_pre_ping``, on libpq's list of hosts."""
    from sqlalchemy import create_engine  # noqa: PLC0415 - each process loads one client's libraries

    engine = create_engine(
        "postgresql+psycopg://",
        connect_args=conninfo_to_dict(site.read_write),
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_pre_ping=True,
    )

    def write(row: Key) -> str:
        with engine.begin() as connection:
            return str(connection.exec_driver_sql(INSERT, row).scalar_one())

    return lambda: write


def psycopg_pool(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Use psycopg's own pool with ``check_connection``, on libpq's list of hosts."""
    from psycopg_pool import ConnectionPool  # noqa: PLC0415

    pool = ConnectionPool(
        site.read_write,
        min_size=_POOL_SIZE,
        max_size=_POOL_SIZE,
        check=ConnectionPool.check_connection,
        open=True,
    )

    def write(row: Key) -> str:
        with pool.connection() as connection:
            return _only(connection.execute(INSERT, row).fetchone())

    return lambda: write


async def hasql(site: Site) -> Callable[[Key], Awaitable[str]]:
    """Use hasql's pools of psycopg's asynchronous connections; each transaction has a time limit of asyncio's."""
    from hasql.driver import psycopg3  # noqa: PLC0415

    hosts = ",".join(f"{host}:{port}" for host, port in site.servers)
    make: Any = psycopg3.PoolManager
    pools = make(
        f"postgresql://{site.user}:{site.password}@{hosts}/{site.dbname}",
        pool_factory_kwargs={"min_size": _POOL_SIZE, "max_size": _POOL_SIZE},
    )
    await pools.ready(masters_count=1, replicas_count=1)

    async def write(row: Key) -> str:
        async with asyncio.timeout(_HASQL_TIMEOUT), pools.acquire_master() as connection:
            cursor = await connection.execute(INSERT, row)
            answer = _only(await cursor.fetchone())
            await connection.commit()
            return answer

    return write


def _only(row: tuple[Any, ...] | None) -> str:
    if row is None:
        raise psycopg.DataError("INSERT ... RETURNING returned nothing")
    return str(row[0])
