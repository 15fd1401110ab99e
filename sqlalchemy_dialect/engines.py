"""A pair of engines on one cluster: one for writing, one for reading.

::

    engines = writer_and_reader("postgresql+patroni://app:secret@/app?patroni_urls=https://pg1:8008,https://pg2:8008")
    with engines.writer.begin() as connection:     # the primary, also for what is read within
        ...
    with engines.reader.connect() as connection:   # a replica; a write is refused before it is sent
        ...
    with engines.reading() as connection:          # a replica that shows what this request wrote, or the primary
        ...
    Session = sessionmaker(engines.writer, class_=RoutingSession, reader=engines.reader)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from sqlalchemy_dialect.declarations import READ_ONLY
from sqlalchemy_dialect.route import guard
from sqlalchemy_dialect.session import AsyncRoutingSession, RoutingSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from sqlalchemy import URL, Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from patroni_db.config import PatroniConfig

__all__ = ["AsyncEngines", "Engines", "async_writer_and_reader", "writer_and_reader"]


class Engines(NamedTuple):
    """Two engines on one cluster.

    :param writer: leads to the primary
    :param reader: leads to replicas, and refuses to write
    """

    writer: Engine
    reader: Engine

    @contextlib.contextmanager
    def reading(self, cluster: str = "default") -> Iterator[Connection]:
        """Begin a transaction that only reads: on a replica, if one shows what the present context has to see.

        :param cluster: the name by which causal tokens know the cluster
        """
        with RoutingSession(self.writer, reader=self.reader, read_only=True, cluster=cluster) as session:
            yield session.connection()

    @contextlib.contextmanager
    def writing(self, cluster: str = "default") -> Iterator[Connection]:
        """Begin a transaction on the primary, to be committed at the end; its causal token is for later reads.

        :param cluster: the name by which causal tokens know the cluster
        """
        with RoutingSession(self.writer, reader=self.reader, cluster=cluster) as session, session.begin():
            yield session.connection()


class AsyncEngines(NamedTuple):
    """The same for an event loop."""

    writer: AsyncEngine
    reader: AsyncEngine

    @contextlib.asynccontextmanager
    async def reading(self, cluster: str = "default") -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that only reads, as :meth:`Engines.reading` does."""
        async with AsyncRoutingSession(self.writer, reader=self.reader, read_only=True, cluster=cluster) as session:
            yield await session.connection()

    @contextlib.asynccontextmanager
    async def writing(self, cluster: str = "default") -> AsyncIterator[AsyncConnection]:
        """Begin a transaction on the primary, as :meth:`Engines.writing` does."""
        async with AsyncRoutingSession(self.writer, reader=self.reader, cluster=cluster) as session, session.begin():
            yield await session.connection()


def writer_and_reader(
    url: str | URL,
    *,
    reads: Mapping[str, Any] | None = None,
    reader_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Engines:
    """Return a pair of engines.

    :param url: of the writer, with ``postgresql+patroni://`` or ``?plugin=patroni``
    :param reads: settings of the reader alone, without their prefix: ``{"target": "replica", "max_lag": "16MB"}``; its
        target is ``replica_preferred`` unless given
    :param reader_options: arguments of ``create_engine`` in which the reader differs, as ``pool_size``
    :param options: arguments of ``create_engine`` for both; ``patroni=`` are the writer's settings
    :raises ArgumentError: a setting is wrong, or the URL sets the target
    """
    return Engines(*_pair(create_engine, url, reads, reader_options, options, lambda engine: engine))


def async_writer_and_reader(
    url: str | URL,
    *,
    reads: Mapping[str, Any] | None = None,
    reader_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncEngines:
    """Return a pair of asynchronous engines, as :func:`writer_and_reader` does."""
    return AsyncEngines(
        *_pair(create_async_engine, url, reads, reader_options, options, lambda engine: engine.sync_engine)
    )


def _pair(
    create: Callable[..., Any],
    url: str | URL,
    reads: Mapping[str, Any] | None,
    reader_options: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    engine_of: Callable[[Any], Engine],
) -> tuple[Any, Any]:
    given = make_url(url)
    if "patroni_target" in given.query:
        raise ArgumentError("the URL is the writer's: give the reader's target by reads={'target': ...}")
    settings = {"target": "replica_preferred", **(reads or {})}
    own = {**options, **(reader_options or {})}
    own["execution_options"] = {**own.get("execution_options", {}), READ_ONLY: True}
    config: PatroniConfig | None = own.get("patroni")
    if config is None:
        query = {f"patroni_{name}": str(value) for name, value in settings.items()}
        reader_url = given.update_query_dict(query)
    else:
        own["patroni"] = config.replace(**settings)
        reader_url = given
    writer, reader = create(given, **options), create(reader_url, **own)
    guard(engine_of(writer))
    guard(engine_of(reader))
    return writer, reader
