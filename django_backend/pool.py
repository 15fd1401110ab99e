"""``OPTIONS["pool"]``: psycopg's pool, whose connections are acquired, and checked before they are handed out."""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from patroni_db.acquisition import Attempt, acquire
from patroni_db.connections import SURPLUS, Objection, Stamp, driver_of, why_unusable
from patroni_db.errors import DiscoveryError, NoPrimaryError, NoServerError
from patroni_db.faults import Fault, classify
from patroni_db.libpq import attempt_params
from patroni_db.log_levels import level_of_replacement
from patroni_db.selection import Target
from patroni_db.time_limit import time_left, time_limit

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
        """Why the latest attempt failed; None after one that succeeded."""
        self.spare: Any = None
        """A connection that is there already, for the next who connects."""
        self.refused: Callable[[Exception], None] = _nobody_is_told
        """Called when a connection could not be made and waiting cannot help, in the thread that tried."""
        self._lock = threading.Lock()
        self._sessions: weakref.WeakSet[Any] = weakref.WeakSet()
        # Until when nobody logs in again after a refusal, by the discovery's clock.
        self._refused_until = -math.inf

    def why_none(self) -> Exception | None:
        """Return why there may be no connection: the latest attempt, or else the latest look at the cluster, failed.

        The attempts of a pool that has just lost its connections may all be under way when a caller's time is up.
        """
        if self.failure is not None:
            return self.failure
        if self.discovery.failure is not None:
            return self.discovery.failure
        snapshot = self.discovery.snapshot
        if self.config.target is Target.PRIMARY and snapshot is not None and snapshot.primary is None:
            return NoPrimaryError("the cluster has no primary", "Patroni names none")
        return None

    def acquire(self, connect: Callable[[Attempt], C]) -> C:
        """Return a stamped connection made with `connect`.

        :raises Exception: as :func:`patroni_db.acquisition.acquire`; after a refusal the same one for a while, without
            another login: psycopg's pool tries again and again, and servers lock accounts out
        """
        with self._lock:
            spare, self.spare = self.spare, None
        if spare is not None:
            return spare  # type: ignore[no-any-return]  # made with the same parameters
        if self.failure is not None and self.discovery.clock() < self._refused_until:
            self.refused(self.failure)
            raise self.failure
        try:
            connection, stamp = acquire(self.discovery, self.config, connect)
        except Exception as exc:
            self.failure = exc
            if not isinstance(exc, NoServerError):
                self._refuse(exc)
            raise
        self.failure = None
        connection.stamp = stamp  # type: ignore[attr-defined]  # as psycopg's pool sets attributes of its own
        with self._lock:
            self._sessions.add(driver_of(connection).session(connection))
        return connection

    def configured(self, configure: Callable[[Any], object], connection: Any) -> None:
        """Set a new connection up.

        :raises Exception: as `configure`: the user's own fault, unless the connection was lost
        """
        try:
            configure(connection)
        except Exception as exc:
            self.failure = exc
            if classify(exc, closed=bool(connection.closed)) is not Fault.UNAVAILABLE:
                connection.close()
                self._refuse(exc)
            raise

    def forgive(self) -> None:
        """Let the next who connects log in, also soon after a refusal: somebody asks."""
        self._refused_until = -math.inf

    def is_alive(self) -> bool:
        """Return whether any connection from here is open."""
        with self._lock:
            return any(session.status == psycopg.pq.ConnStatus.OK for session in self._sessions)

    def _refuse(self, exc: Exception) -> None:
        self._refused_until = self.discovery.clock() + self.config.failover_timeout
        self.refused(exc)


def _nobody_is_told(_exc: Exception) -> None:
    """There is no pool yet."""


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
    ended_on_purpose = False
    """Whether the connection was closed because it must not be used any more; the log has told that already."""


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a record of psycopg's pool tells something else than that we closed a connection on purpose."""
    connection = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return not getattr(connection, "ended_on_purpose", False)


# Documented for loggers: of each connection that we close and return, the pool would warn.
logging.getLogger("psycopg.pool").addFilter(_is_news)


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
        configure: Callable[[Any], object] | None = None,
        *,
        checked: bool = False,
        **options: Any,
    ) -> None:
        self._source = source
        if checked:
            options.setdefault("check", functools.partial(_check, source))
        self._refusal: Exception | None = None
        self._proving = threading.Lock()
        self._was_opened = False
        set_up = functools.partial(source.configured, configure) if configure is not None else None
        options.setdefault("timeout", source.config.failover_timeout + _GRACE)
        self._params = {**params, "source": source}
        routed = _routed_class(connection_class)
        super().__init__(connection_class=routed, configure=set_up, kwargs=self._params, open=False, **options)
        told = weakref.WeakMethod(self._give_up)
        source.refused = lambda exc: told_to(exc) if (told_to := told()) is not None else None

    @property
    def has_given_up(self) -> bool:
        """Whether the pool has closed itself, because no connection was left and none could be made."""
        return self._refusal is not None

    @property
    def _is_open(self) -> bool:
        return self._was_opened

    # -- Proving that connections can be made ----------------------------------------------------------------

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:  # noqa: FBT001, FBT002 - as psycopg has it
        """Let connections be asked for. Who asks for the first one makes it, and learns himself why that failed.

        :param wait: make the least number of connections now; see :meth:`wait`
        """
        if wait:
            self.wait(timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until there are as many connections as the pool is to have at least.

        :raises PoolTimeout: that took longer than `timeout` seconds
        :raises psycopg.Error: none can be made, however long one waits
        """
        self._prove(timeout)
        super().wait(timeout)

    def _prove(self, timeout: float) -> None:
        """Make the first connection in the calling thread: one login for all who ask, as errors cost one each."""
        if self._is_open:
            return
        failure = self._source.failure
        if not self._proving.acquire(timeout=max(0.0, timeout)):
            raise PoolTimeout(f"another thread has tried to connect for {timeout:.2f} s")
        try:
            if self._is_open:
                return  # type: ignore[unreachable]  # opened meanwhile
            if self._source.failure is not failure and self._source.failure is not None:
                raise self._source.failure  # found out meanwhile
            patience = time_limit(timeout) if timeout < self._source.config.failover_timeout else nullcontext()
            self._source.forgive()
            with patience:
                connection = self.connection_class.connect(**self._params)
            self._source.spare = connection
            super().open()
            self._was_opened = True
        except NoServerError as exc:
            raise PoolTimeout(str(exc)) from exc
        except DiscoveryError as exc:
            raise psycopg.OperationalError(str(exc)) from exc
        finally:
            self._proving.release()

    def _give_up(self, exc: Exception) -> None:
        """Close the pool when nothing is left of it: who waits is told at once, and who comes next tries anew."""
        if not self._is_open or self._refusal is not None or self._source.is_alive():
            return
        self._refusal = exc
        # In a thread of its own: the pool's threads, of which this is one, are waited for.
        threading.Thread(target=self.close, name=f"{self.name}-close", daemon=True).start()

    # -- Handing connections out -----------------------------------------------------------------------------

    def getconn(self, timeout: float | None = None) -> PooledConnection:
        """Return a connection that passed the three checks.

        :param timeout: seconds; by default until the time limit that holds here, or else the pool's
        :raises PoolTimeout: there was none in time; its cause tells why the last attempt to connect failed
        :raises psycopg.Error: the driver's own, when no waiting can help: a wrong password, role or database
        """
        deadline = time.monotonic() + (time_left(self.timeout) if timeout is None else timeout)
        self._prove(deadline - time.monotonic())
        may_give_up = True
        while True:
            connection = self._next(deadline - time.monotonic())
            objection = _why_unusable(self._source, connection)
            why = None if objection is None else objection.why
            if why is None and may_give_up and self._source.discovery.gives_up(connection.stamp, self._source.config):
                may_give_up = False  # the next one is the connection to use, whatever it leads to
                why = SURPLUS.why
            if why is None:
                return connection
            level = level_of_replacement(self._source.discovery, connection.stamp, why)
            logger.log(level, "pooled connections to %s are replaced: %s", connection.stamp, why)
            connection.ended_on_purpose = True
            connection.close()
            self.putconn(connection)

    def _next(self, timeout: float) -> PooledConnection:
        try:
            return super().getconn(timeout)
        except PoolTimeout as exc:
            failure = self._source.why_none()
            if failure is None:
                raise
            raise PoolTimeout(f"{exc}: {failure}") from failure
        except PoolClosed:
            if self._refusal is None:
                raise
            if isinstance(self._refusal, psycopg.Error):
                raise self._refusal from None
            raise psycopg.OperationalError(str(self._refusal)) from self._refusal
