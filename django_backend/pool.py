"""``OPTIONS["pool"]``: psycopg's pool, whose connections are acquired, and checked before they are handed out."""

from __future__ import annotations

import functools
import logging
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from patroni_db.acquisition import Attempt, acquire
from patroni_db.connections import Objection, Stamp, driver_of, why_unusable
from patroni_db.libpq import attempt_params
from patroni_db.time_limit import time_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery

__all__ = ["PatroniPool", "PooledConnection", "Source"]

logger = logging.getLogger("patroni_db.django")

# The pool's threads look for a server for failover_timeout, and then know why there is none. Who waits for
# them waits a little longer, to be told.
_GRACE: Final = 1.0


C = TypeVar("C")


class Source:
    """Where a pool's connections come from.

    :param discovery: the view of the cluster
    :param config: whom to connect to
    """

    def __init__(self, discovery: Discovery, config: PatroniConfig) -> None:
        self.discovery = discovery
        self.config = config
        self.failure: Exception | None = None

    def acquire(self, connect: Callable[[Attempt], C]) -> C:
        """Return a stamped connection made with `connect`; remember why when there is none."""
        try:
            connection, stamp = acquire(self.discovery, self.config, connect)
        except Exception as exc:
            self.failure = exc
            raise
        self.failure = None
        connection.stamp = stamp  # type: ignore[attr-defined]  # as psycopg's pool sets attributes of its own
        return connection


class _Routed:
    """A mixin for connection classes, whose ``connect`` finds its server.

    What it returns is what the class's own ``connect`` returns: with a monitoring agent, a proxy. Only that it has a
    `stamp` is sure.
    """

    @classmethod
    def connect(cls, conninfo: str = "", *, source: Source, **kwargs: Any) -> Any:
        """Return a connection to a server that `source` finds."""
        make: Callable[..., Any] = super().connect  # type: ignore[misc]  # psycopg's

        def connect(attempt: Attempt) -> Any:
            return make(conninfo, **attempt_params(kwargs, attempt))

        return source.acquire(connect)


class PooledConnection(_Routed, psycopg.Connection[Any]):  # type: ignore[misc]  # connect has one parameter more
    """A connection that knows where it leads."""

    stamp: Stamp


def _routed_class(base: type[psycopg.Connection[Any]] | None) -> type[PooledConnection]:
    """Return the class of a pool's connections, derived from what ``OPTIONS["pool"]`` asks for."""
    if base is None:
        return PooledConnection
    return type(base.__name__, (_Routed, base), {"__module__": base.__module__})


def _why_unusable(source: Source, connection: PooledConnection) -> Objection | None:
    """Return what speaks against handing out `connection`; None if nothing does. No round trip."""
    snapshot = source.discovery.snapshot
    why = why_unusable(driver_of(connection), connection, connection.stamp, source.config, snapshot)
    if why is None and snapshot is not None and connection.stamp.generation != snapshot.generation:
        connection.stamp = connection.stamp.renewed(snapshot.generation)
    return why


def _check(source: Source, connection: PooledConnection) -> None:
    """Ask whether a connection works, unless :meth:`PatroniPool.getconn` replaces it anyhow."""
    if _why_unusable(source, connection) is None:
        ConnectionPool.check_connection(connection)


class PatroniPool(ConnectionPool[PooledConnection]):
    """A pool of connections from one source.

    The three checks are made here, not in psycopg's `check` callback: after a failed check psycopg waits, from the
    second one on for seconds, but all connections to a former primary fail it at once. Each is replaced
    immediately instead, as getting a new one already waits for a server.

    :param source: where connections come from
    :param params: the driver's parameters, without a server
    :param connection_class: the class of the connections; they are of a subclass of it
    :param checked: whether psycopg asks each connection by a round trip too (``CONN_HEALTH_CHECKS``), unless `options`
        say how to check
    :param options: ``OPTIONS["pool"]`` and what Django adds; `timeout` is by default the source's
        ``patroni_failover_timeout`` and a second
    """

    def __init__(
        self,
        source: Source,
        params: dict[str, Any],
        connection_class: type[psycopg.Connection[Any]] | None = None,
        *,
        checked: bool = False,
        **options: Any,
    ) -> None:
        self._source = source
        if checked:
            options.setdefault("check", functools.partial(_check, source))
        options.setdefault("timeout", source.config.failover_timeout + _GRACE)
        kwargs = {**params, "source": source}
        super().__init__(connection_class=_routed_class(connection_class), kwargs=kwargs, open=False, **options)

    def getconn(self, timeout: float | None = None) -> PooledConnection:
        """Return a connection that passed the three checks.

        :param timeout: seconds; by default until the time limit that holds here, or else the pool's
        :raises PoolTimeout: there was none in time; its cause tells why the last attempt to connect failed
        """
        deadline = time.monotonic() + (time_left(self.timeout) if timeout is None else timeout)
        may_give_up = True
        while True:
            try:
                connection = super().getconn(deadline - time.monotonic())
            except PoolTimeout as exc:
                failure = self._source.failure
                if failure is None:
                    raise
                raise PoolTimeout(f"{exc}: {failure}") from failure
            objection = _why_unusable(self._source, connection)
            why = None if objection is None else objection.why
            if why is None and may_give_up and self._source.discovery.gives_up(connection.stamp, self._source.config):
                may_give_up = False  # the next one is the connection to use, whatever it leads to
                why = "its server has more than its share"
            if why is None:
                return connection
            logger.info("pooled connection to %s is replaced: %s", connection.stamp.address, why)
            connection.close()
            self.putconn(connection)
