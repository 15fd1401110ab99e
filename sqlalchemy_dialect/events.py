"""What SQLAlchemy's events do for an engine on a cluster, whichever way the engine was made.

``do_connect``
    gets a connection to a server that proved its role, waiting out a failover
``checkout``
    looks at a pooled connection before it is handed out again, without a round trip
``handle_error``
    reports what an error says about a server, and drops the connection it condemns
``commit``, ``do_execute``
    see :mod:`sqlalchemy_dialect.commits`

The errors themselves stay SQLAlchemy's and the driver's own, except where nobody can say whether a COMMIT happened.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DisconnectionError, InvalidRequestError, SQLAlchemyError

from patroni_db.acquisition import acquire, acquire_async
from patroni_db.connections import SURPLUS, in_hot_standby, why_unusable
from patroni_db.discovery import discovery_for
from patroni_db.errors import PatroniError
from patroni_db.faults import Fault, classify
from patroni_db.isolation import LOWER, sets_serializable
from patroni_db.log_levels import level_of_replacement
from sqlalchemy_dialect.attempt import attempt_on
from sqlalchemy_dialect.commits import in_doubt, watch_commits, watch_statements
from sqlalchemy_dialect.connecting import (
    ASYNC_CREATOR,
    async_connect_of,
    attempt_arguments,
    connect_of,
    server_arguments,
)
from sqlalchemy_dialect.marks import MARK, Mark, mark, mark_of
from sqlalchemy_dialect.reactions import condemns
from sqlalchemy_dialect.settings import refuse_addressing
from sqlalchemy_dialect.watched import Watched, let_the_loop_read

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import Engine
    from sqlalchemy.engine import Dialect
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, ExceptionContext, ExecutionContext
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

    from patroni_db.acquisition import Attempt
    from patroni_db.config import PatroniConfig
    from patroni_db.connections import Stamp

__all__ = ["PatroniEvents", "events_of"]

logger = logging.getLogger("patroni_db.sqlalchemy")

# The handlers of the engine that has a dialect, and of those made from it by ``execution_options``. SQLAlchemy's caches
# may keep a dialect for as long as the process lives; the handlers live as long as the engine's pool, which has them.
_events: Final[weakref.WeakKeyDictionary[Dialect, weakref.ref[PatroniEvents]]] = weakref.WeakKeyDictionary()


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
        self.events.know(self.record, connection, stamp)
        return connection


class PatroniEvents:
    """The handlers of one engine, and the discovery they hold for as long as the engine lives.

    :param config: what the engine's connections are for
    """

    def __init__(self, config: PatroniConfig) -> None:
        self.config = config
        self.discovery = discovery_for(config)
        self._engine: weakref.ref[Engine] | None = None
        self._listens = False
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
        watch_statements(engine)
        if self.config.target.only_reads:
            event.listen(engine, "connect", functools.partial(_keep_default_level, engine.dialect))
            event.listen(engine, "do_execute", _execute_and_lower)
            event.listen(engine, "do_execute_no_params", _execute_plain_and_lower)
        _events[engine.dialect] = weakref.ref(self)
        self._engine = weakref.ref(engine)

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
            given = cparams.get(ASYNC_CREATOR) or async_connect_of(dialect.loaded_dbapi, dialect.driver)
            # Before SQLAlchemy 2.0.48 all connections share one dict of parameters: ours may be in it already.
            connect_async = given.connect_async if isinstance(given, _AsyncCreator) else given
            cparams[ASYNC_CREATOR] = _AsyncCreator(self, dialect.driver, record, connect_async, error)
            return None
        # Returning a connection ends the event, so the application's own listeners, which may add a password
        # that is made at this moment, have their turn first.
        given = self._given_by_listeners(dialect, record, cargs, cparams)
        if given is not None:
            return given

        own = getattr(dialect.connect, "__func__", None) is not DefaultDialect.connect
        make: Callable[..., DBAPIConnection] = dialect.connect if own else connect_of(dialect.loaded_dbapi)

        def connect(attempt: Attempt) -> DBAPIConnection:
            return make(*cargs, **attempt_arguments(dialect.driver, cparams, attempt))

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
        self.know(record, connection, stamp)
        return connection

    def know(self, record: ConnectionPoolEntry | None, connection: object, stamp: Stamp) -> None:
        """Have `record` know of its new connection, and listen to the engine where that does not look itself."""
        mark(record, connection, stamp)
        if isinstance(connection, Watched):
            connection.may_stand_by = not self.config.target.writes and not stamp.pooled
            connection.route = (stamp, self.config.target)
            return
        engine = None if self._engine is None else self._engine()
        if engine is not None and not self._listens:
            self._listens = True
            watch_commits(engine)

    def _given_by_listeners(
        self, dialect: Dialect, record: ConnectionPoolEntry, cargs: list[Any], cparams: dict[str, Any]
    ) -> DBAPIConnection | None:
        """Return the connection that one of the application's own listeners makes; None if none does."""
        listeners = self._later_listeners(dialect)
        if not listeners:
            return None
        # One that connects by itself is led to the right server, as every tool that does so.
        servers = server_arguments(dialect.driver, self.discovery, self.config)
        cparams.update(servers)
        for listener in listeners:
            given = listener(dialect, record, cargs, cparams)
            if given is not None:
                return given
        for name in servers:
            cparams.pop(name, None)
        return None

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
        known: Mark | None = record.info.get(MARK)
        if known is None:
            self._warn_unmarked()
            return
        if known.pid != os.getpid():
            # The parent process uses this session: forget it here, without a good-bye that would end it there.
            # SQLAlchemy's documentation says so: "Using Connection Pools with Multiprocessing or os.fork()".
            record.dbapi_connection = proxy.dbapi_connection = None  # type: ignore[misc]  # annotated, but no slot
            raise DisconnectionError("the connection belongs to the parent process")
        if known.fresh:
            record.info[MARK] = dataclasses.replace(known, fresh=False)
            return
        connection = record.driver_connection
        if known.driver.fileno(connection) is None and not known.driver.is_closed(connection):
            dbapi_connection.run_async(let_the_loop_read)
        snapshot = self.discovery.snapshot
        objection = why_unusable(known.driver, connection, known.stamp, self.config, snapshot)
        moved = snapshot is not None and known.stamp.generation != snapshot.generation
        if objection is None and snapshot is not None and moved:
            record.info[MARK] = dataclasses.replace(known, stamp=known.stamp.renewed(snapshot.generation))
        if objection is None and self.discovery.gives_up(known.stamp, self.config):
            objection = SURPLUS
        if objection is None:
            return
        if not objection.is_fault and not known.driver.is_idle(connection):
            return  # somebody is at work with it: StaticPool hands one connection out to several
        level = level_of_replacement(self.discovery, known.stamp, objection.why)
        logger.log(level, "connections to %s are replaced: %s", known.stamp, objection.why)
        if objection.is_fault and not moved:  # the discovery does not know yet that something is wrong
            self.discovery.invalidate(known.stamp.member, known.stamp.address)
        raise DisconnectionError(objection.why)

    def _warn_unmarked(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "an engine's connections come from elsewhere (creator=, pool= or another do_connect listener): "
                "they are not routed by Patroni and not checked when they are handed out again"
            )

    # -- Losing one ------------------------------------------------------------------------------------------

    def handle_error(self, context: ExceptionContext) -> BaseException | None:
        """Report what an error says about the server, and have the connection dropped if it condemns it.

        :returns: what to raise instead, when it is about a COMMIT that may have happened
        """
        connection, error = context.connection, context.original_exception
        if connection is None:
            return None
        attempt = attempt_on(connection)
        if attempt is not None:
            attempt.failed(of_commit=context.statement is None and context.execution_context is None)
        if connection.closed or connection.invalidated:
            return None
        if isinstance(error, SQLAlchemyError) or not isinstance(error, Exception):
            return None  # Ctrl-C, a cancelled task and what was reported already say nothing about the server
        proxied = connection.connection
        known = mark_of(proxied)
        if known is None:
            return None
        driver_connection = proxied.driver_connection
        closed = known.driver.is_closed(driver_connection)
        # asyncpg lets errors of the operating system, and older SQLAlchemy some of asyncpg's own, through as they are.
        if not closed and not isinstance(error, context.dialect.loaded_dbapi.Error):
            return None
        fault = classify(error, closed=closed)
        reported = None if closed else in_hot_standby(known.driver, driver_connection, known.stamp)
        if condemns(fault, self.config.target, reported):
            context.is_disconnect = True
            # The others in the pool are looked at when they are handed out: one that is fine must not go with it.
            context.invalidate_pool_on_disconnect = False
            level = level_of_replacement(self.discovery, known.stamp, fault.value)
            logger.log(level, "connections to %s are lost: %s", known.stamp, fault.value)
            self.discovery.invalidate(known.stamp.member, known.stamp.address)
        distrusted = self.discovery.distrust(known.stamp, fault, reported)
        if attempt is not None:
            attempt.elsewhere = distrusted
            attempt.lost = attempt.lost or closed or context.is_disconnect
            attempt.read_only = fault is Fault.NOT_WRITABLE and (reported == "off" or not self.config.target.writes)
        doubt = in_doubt(context, lost=closed)
        if attempt is not None:
            attempt.doubt = doubt
        return doubt


def _keep_default_level(dialect: Any, *_connection: object) -> None:
    """Have an engine's own level be its connections' default, as SQLAlchemy asserts, also if the first one is lowered.

    SQLAlchemy has asked the first connection for it.
    """
    own = getattr(dialect, "_on_connect_isolation_level", None)
    if own == "SERIALIZABLE" and dialect.default_isolation_level == "REPEATABLE READ":
        dialect.default_isolation_level = own


def _execute_plain_and_lower(cursor: DBAPICursor, statement: str, context: ExecutionContext) -> bool:
    return _execute_and_lower(cursor, statement, None, context)


def _execute_and_lower(cursor: DBAPICursor, statement: str, parameters: Any, _context: ExecutionContext) -> bool:
    """Execute a statement that makes its session SERIALIZABLE, and have it as a standby can do; leave all others."""
    if statement[:1] not in " \t\nSs" or not sets_serializable(statement):
        return False
    cursor.execute(statement, *(() if parameters is None else (parameters,)))
    cursor.execute(LOWER)
    return True


def events_of(engine: Engine) -> PatroniEvents | None:
    """Return the handlers of `engine`; None when it is not on a cluster."""
    found = _events.get(engine.dialect)
    return None if found is None else found()


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
