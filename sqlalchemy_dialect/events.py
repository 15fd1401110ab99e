"""What SQLAlchemy's events do for an engine on a cluster, whichever way the engine was made.

``do_connect``
    gets a connection to a server that proved its role, waiting out a failover
``checkout``
    looks at a pooled connection before it is handed out again, without a round trip
``handle_error``
    reports what an error says about a server, and drops the connection it condemns

The errors themselves stay SQLAlchemy's and the driver's own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError, InvalidRequestError

from patroni_db.acquisition import acquire, acquire_async
from patroni_db.connections import Driver, Stamp, driver_of, why_unusable
from patroni_db.discovery import discovery_for
from patroni_db.errors import PatroniError
from patroni_db.faults import classify
from sqlalchemy_dialect.connecting import ASYNC_CREATOR, async_connect_of, attempt_arguments
from sqlalchemy_dialect.reactions import condemns
from sqlalchemy_dialect.settings import refuse_addressing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
    from sqlalchemy.pool import ConnectionPoolEntry, ManagesConnection, PoolProxiedConnection

    from patroni_db.acquisition import Attempt
    from patroni_db.config import PatroniConfig

__all__ = ["PatroniEvents"]

logger = logging.getLogger("patroni_db.sqlalchemy")

_INFO: Final = "patroni_db"
# asyncio hands a server's farewell to asyncpg one loop iteration after it was polled, and its end of file another
# one later: measured, four iterations tell (three with uvloop). Each costs about 6 µs on an idle loop.
_ITERATIONS: Final = 4


@dataclasses.dataclass(frozen=True, slots=True)
class _Mark:
    """What a pool's record knows of its connection.

    :param stamp: the server, and the view under which it was right
    :param driver: how to look at the connection
    :param pid: the process that made it
    :param fresh: whether it was never handed out: it proved its role a moment ago
    """

    stamp: Stamp
    driver: Driver
    pid: int
    fresh: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class _AsyncCreator:
    """What an asynchronous dialect calls in place of the driver's own ``connect``.

    :param events: the engine's
    :param driver: the dialect's ``driver``
    :param record: where the pool keeps the connection
    :param connect_async: the driver's own, or the application's
    :param error: the driver's ``OperationalError``
    """

    events: PatroniEvents
    driver: str
    record: ConnectionPoolEntry
    connect_async: Callable[..., Awaitable[Any]]
    error: Callable[[str], Exception]

    async def __call__(self, *cargs: Any, **cparams: Any) -> Any:
        """Return a driver's connection to a server that proved its role."""

        def connect(attempt: Attempt) -> Awaitable[Any]:
            return self.connect_async(*cargs, **attempt_arguments(self.driver, cparams, attempt))

        try:
            connection, stamp = await acquire_async(self.events.discovery, self.events.config, connect)
        except PatroniError as exc:
            raise self.error(str(exc)) from exc
        _mark(self.record, connection, stamp)
        return connection


class PatroniEvents:
    """The handlers of one engine, and the discovery they hold for as long as the engine lives.

    :param config: what the engine's connections are for
    """

    def __init__(self, config: PatroniConfig) -> None:
        self.config = config
        self.discovery = discovery_for(config)
        self._warned = False
        self._do_connect = _weakly(self.do_connect)

    def attach(self, engine: Engine, *, connects: bool = True) -> None:
        """Listen to `engine`'s events; they survive ``engine.dispose()``.

        :param connects: whether to make its connections too
        """
        if connects:
            event.listen(engine, "do_connect", self._do_connect)
        event.listen(engine, "checkout", self.checkout)
        event.listen(engine, "handle_error", _weakly(self.handle_error))

    # -- Getting a connection --------------------------------------------------------------------------------

    def do_connect(
        self, dialect: Dialect, record: ConnectionPoolEntry, cargs: list[Any], cparams: dict[str, Any]
    ) -> DBAPIConnection | None:
        """Make a connection; for asynchronous dialects, arrange that the dialect makes it with ours.

        :raises ArgumentError: ``connect_args`` name a server
        """
        refuse_addressing(cparams, "connect_args")
        error = dialect.loaded_dbapi.OperationalError
        if dialect.is_async:
            given = cparams.get(ASYNC_CREATOR) or async_connect_of(dialect.driver)
            # Before SQLAlchemy 2.0.48 all connections share one dict of parameters: ours may be in it already.
            connect_async = given.connect_async if isinstance(given, _AsyncCreator) else given
            cparams[ASYNC_CREATOR] = _AsyncCreator(self, dialect.driver, record, connect_async, error)
            return None
        # Returning a connection ends the event, so the application's own listeners, which may add a password
        # that is made at this moment, have their turn first.
        for listener in self._later_listeners(dialect):
            given = listener(dialect, record, cargs, cparams)
            if given is not None:
                return given

        def connect(attempt: Attempt) -> DBAPIConnection:
            return dialect.connect(*cargs, **attempt_arguments(dialect.driver, cparams, attempt))

        routed: DBAPIConnection = self.connect(connect, record, error)
        return routed

    def connect(
        self,
        connect: Callable[[Attempt], Any],
        record: ConnectionPoolEntry | None,
        error: Callable[[str], Exception],
    ) -> Any:
        """Return a connection to a server that proved its role.

        :param connect: makes a connection with the driver
        :param record: where the pool keeps it; None outside of a pool
        :param error: the driver's ``OperationalError``, which SQLAlchemy knows how to wrap
        """
        try:
            connection, stamp = acquire(self.discovery, self.config, connect)
        except PatroniError as exc:
            raise error(str(exc)) from exc
        _mark(record, connection, stamp)
        return connection

    def _later_listeners(self, dialect: Dialect) -> list[Callable[..., DBAPIConnection | None]]:
        listeners = list(dialect.dispatch.do_connect)
        return listeners[listeners.index(self._do_connect) + 1 :]

    # -- Handing one out again -------------------------------------------------------------------------------

    def checkout(
        self, dbapi_connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: PoolProxiedConnection
    ) -> None:
        """Let the pool replace a connection that must not be handed out again.

        Only this one: every other is looked at as closely when its turn comes, and those that lead to the right
        server by now may stay.

        :raises DisconnectionError: the pool connects anew, which the application does not notice
        """
        mark: _Mark | None = record.info.get(_INFO)
        if mark is None:
            self._warn_unmarked()
            return
        if mark.pid != os.getpid():
            # The parent process uses this session: forget it here, without a good-bye that would end it there.
            # SQLAlchemy's documentation says so: "Using Connection Pools with Multiprocessing or os.fork()".
            record.dbapi_connection = proxy.dbapi_connection = None  # type: ignore[misc]  # annotated, but no slot
            raise DisconnectionError("the connection belongs to the parent process")
        if mark.fresh:
            record.info[_INFO] = dataclasses.replace(mark, fresh=False)
            return
        connection = record.driver_connection
        if mark.driver.fileno(connection) is None and not mark.driver.is_closed(connection):
            dbapi_connection.run_async(_let_the_loop_read)
        snapshot = self.discovery.snapshot
        why = why_unusable(mark.driver, connection, mark.stamp, self.config, snapshot)
        moved = snapshot is not None and mark.stamp.generation != snapshot.generation
        if why is None:
            if snapshot is not None and moved:
                record.info[_INFO] = dataclasses.replace(mark, stamp=mark.stamp.renewed(snapshot.generation))
            return
        logger.info("replacing a connection to %s (%s): %s", mark.stamp.member, mark.stamp.address, why)
        if not moved:  # the discovery does not know yet that something is wrong
            self.discovery.invalidate(mark.stamp.member, mark.stamp.address)
        raise DisconnectionError(why)

    def _warn_unmarked(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "an engine's connections come from elsewhere (creator=, pool= or another do_connect listener): "
                "they are not routed by Patroni and not checked when they are handed out again"
            )

    # -- Losing one ------------------------------------------------------------------------------------------

    def handle_error(self, context: ExceptionContext) -> None:
        """Report what an error says about the server, and have the connection dropped if it condemns it."""
        connection, error = context.connection, context.original_exception
        if connection is None or connection.closed or connection.invalidated:
            return
        if not isinstance(error, context.dialect.loaded_dbapi.Error):
            return  # Ctrl-C, a cancelled task and bugs say nothing about the server
        proxied = connection.connection
        mark = _mark_of(proxied)
        if mark is None:
            return
        driver_connection = proxied.driver_connection
        closed = mark.driver.is_closed(driver_connection)
        fault = classify(error, closed=closed)
        in_hot_standby = None if closed else mark.driver.parameter(driver_connection, "in_hot_standby")
        if not condemns(fault, self.config.target, in_hot_standby):
            return
        context.is_disconnect = True
        # The others in the pool are looked at when they are handed out: one that is fine must not go with this one.
        context.invalidate_pool_on_disconnect = False
        logger.info("lost a connection to %s (%s): %s", mark.stamp.member, mark.stamp.address, fault.value)
        self.discovery.invalidate(mark.stamp.member, mark.stamp.address)


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a listener for a dialect's events that does not keep the handlers alive; the pool's events do that.

    SQLAlchemy's caches keep dialects that have looked at a table (``has_table``) for as long as the process lives,
    and the discovery with its thread must end with the engine.
    """
    ref = weakref.WeakMethod(method)

    def listener(*args: Any) -> Any:
        alive = ref()
        if alive is None:
            raise InvalidRequestError("the engine whose connections Patroni routed is gone")
        return alive(*args)

    return listener


def _mark(record: ConnectionPoolEntry | None, connection: object, stamp: Stamp) -> None:
    if record is not None:
        record.info[_INFO] = _Mark(stamp, driver_of(connection), os.getpid())


def _mark_of(proxied: ManagesConnection) -> _Mark | None:
    try:
        return proxied.info.get(_INFO)
    except NotImplementedError:  # what stands in for a proxied connection while the dialect looks at its first server
        return None


async def _let_the_loop_read(_connection: object) -> None:
    for _ in range(_ITERATIONS):
        await asyncio.sleep(0)
