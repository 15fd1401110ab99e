"""Engines of every kind behind one face, so that one test tries them all."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
import psycopg2
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from patroni_db import PatroniConfig
from sqlalchemy_dialect import PatroniCreator

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import ModuleType

    from patroni_db.cluster import LocalCluster

WHERE = "SELECT host(inet_server_addr())"


def url_of(cluster: LocalCluster, driver: str, **query: Any) -> str:
    """Return the URL of an engine on `cluster`; `query` gets the prefix ``patroni_``."""
    settings = {"urls": ",".join(cluster.urls), **query}
    text = "&".join(f"patroni_{name}={value}" for name, value in settings.items())
    plugin = "" if driver.startswith("patroni") else "plugin=patroni&"
    return f"postgresql+{driver}://{cluster.user}:{cluster.password}@/{cluster.dbname}?{plugin}{text}"


def creator_engine(
    cluster: LocalCluster, module: ModuleType, engine_options: dict[str, Any], **settings: Any
) -> Engine:
    config = PatroniConfig(**{"urls": cluster.urls, **settings})
    creator = PatroniCreator(config, module=module, user=cluster.user, password=cluster.password, dbname=cluster.dbname)
    url = f"postgresql+{module.__name__}://"
    return creator.attach(create_engine(url, creator=creator, **engine_options))


class Client(Protocol):
    """What the tests do with an engine, threads and event loops alike."""

    def query(self, statement: str, **parameters: Any) -> Any:
        """Run one statement in one transaction, and return the first value of its first row."""

    def sessions(self, number: int) -> list[int]:
        """Hold `number` connections at once, and return the server's process ids; the pool keeps them."""

    def together(self, number: int, statement: str) -> list[Any]:
        """Do :meth:`query` `number` times at once."""

    def close(self) -> None:
        """Dispose of the engine."""


class ThreadClient:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def query(self, statement: str, **parameters: Any) -> Any:
        with self.engine.begin() as connection:
            return connection.execute(text(statement), parameters).scalar()

    def sessions(self, number: int) -> list[int]:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self.engine.connect()) for _ in range(number)]
            return [int(c.execute(text("SELECT pg_backend_pid()")).scalar_one()) for c in connections]

    def together(self, number: int, statement: str) -> list[Any]:
        with ThreadPoolExecutor(number) as threads:
            return list(threads.map(self.query, [statement] * number))

    def close(self) -> None:
        self.engine.dispose()


class LoopClient:
    """An asynchronous engine, with an event loop of its own in a thread."""

    def __init__(self, make: Callable[[], AsyncEngine]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client")
        self._thread.start()
        self.engine = make()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    async def _query(self, statement: str, **parameters: Any) -> Any:
        async with self.engine.begin() as connection:
            return (await connection.execute(text(statement), parameters)).scalar()

    def query(self, statement: str, **parameters: Any) -> Any:
        return self.run(self._query(statement, **parameters))

    async def _sessions(self, number: int) -> list[int]:
        async with contextlib.AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(self.engine.connect()) for _ in range(number)]
            return [int((await c.execute(text("SELECT pg_backend_pid()"))).scalar_one()) for c in connections]

    def sessions(self, number: int) -> list[int]:
        pids: list[int] = self.run(self._sessions(number))
        return pids

    async def _together(self, number: int, statement: str) -> list[Any]:
        return list(await asyncio.gather(*(self._query(statement) for _ in range(number))))

    def together(self, number: int, statement: str) -> list[Any]:
        values: list[Any] = self.run(self._together(number, statement))
        return values

    def close(self) -> None:
        try:
            self.run(self.engine.dispose())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


KINDS = (
    "dialect",
    "plugin-psycopg",
    "plugin-psycopg2",
    "creator-psycopg",
    "creator-psycopg2",
    "async-dialect",
    "async-plugin-psycopg",
    "async-plugin-asyncpg",
)


def make_client(
    kind: str, cluster: LocalCluster, engine_options: dict[str, Any] | None = None, **settings: Any
) -> Client:
    """Return a client of one of :data:`KINDS`; `settings` are patroni_* settings without the prefix."""
    options = engine_options or {}
    if kind.startswith("creator"):
        module = {"psycopg": psycopg, "psycopg2": psycopg2}[kind.removeprefix("creator-")]
        return ThreadClient(creator_engine(cluster, module, options, **settings))
    driver = "patroni" if kind.endswith("dialect") else kind.rpartition("-")[2]
    url = url_of(cluster, driver, **settings)
    if kind.startswith("async"):
        return LoopClient(lambda: create_async_engine(url, **options))
    return ThreadClient(create_engine(url, **options))
