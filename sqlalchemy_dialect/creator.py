"""``PatroniCreator``: routed connections as the ``creator=`` of an engine that is otherwise the application's own.

::

    creator = PatroniCreator(PatroniConfig(urls=("https://pg1:8008",)), dbname="app", user="app")
    engine = creator.attach(create_engine("postgresql+psycopg://", creator=creator))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import ArgumentError

from patroni_db.config import PatroniConfig
from sqlalchemy_dialect.connecting import attempt_arguments, connect_of
from sqlalchemy_dialect.events import PatroniEvents
from sqlalchemy_dialect.settings import refuse_addressing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from sqlalchemy import Engine
    from sqlalchemy.pool import ConnectionPoolEntry

    from patroni_db.acquisition import Attempt

__all__ = ["PatroniCreator"]


class PatroniCreator:
    """Makes connections to the server that Patroni names. For synchronous engines.

    :param config: where to ask Patroni, and what the connections are for
    :param connect: makes a connection from keyword arguments; by default the driver's own ``connect``. It gets
        `params` with ``host``, ``port`` and timeouts. Connections of your own class cost a listener for ``commit``
    :param module: the driver: ``psycopg`` (default), ``psycopg2`` or what stands in for one; its ``OperationalError``
        tells that no server was found in time
    :param params: libpq's connection parameters, except those that name a server
    :raises ArgumentError: `config` is none, or `params` name a server
    """

    def __init__(
        self,
        config: PatroniConfig,
        connect: Callable[..., Any] | None = None,
        *,
        module: ModuleType = psycopg,
        **params: Any,
    ) -> None:
        if not isinstance(config, PatroniConfig):
            raise ArgumentError(f"PatroniCreator takes a PatroniConfig, not {type(config).__name__}")
        refuse_addressing(params, "PatroniCreator's parameters")
        self._events = PatroniEvents(config)
        self._module = module
        self._connect = connect
        self._params = params

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.config!r}>"

    @property
    def config(self) -> PatroniConfig:
        """The settings it was made with."""
        return self._events.config

    def __call__(self, connection_record: ConnectionPoolEntry | None = None) -> Any:
        """Return a new connection; SQLAlchemy's pool calls this.

        :param connection_record: where the pool keeps the connection
        :raises OperationalError: the driver's; no eligible server was reached in time
        """
        return self._events.connect(self._attempt, connection_record, self._module.OperationalError)

    def attach(self, engine: Engine) -> Engine:
        """Have the connections of `engine` checked when its pool hands them out again, and errors reported.

        Without this the engine connects to the right server, and keeps a connection to it after a failover.

        :returns: `engine`
        """
        self._events.attach(engine, connects=False)
        return engine

    def _attempt(self, attempt: Attempt) -> Any:
        # Looked up now: an agent may have come after the creator was made.
        connect = self._connect or connect_of(self._module)
        return connect(**attempt_arguments("psycopg", self._params, attempt))
