"""``?plugin=patroni`` on the URL of any PostgreSQL driver: psycopg, psycopg2 or asyncpg.

::

    create_engine("postgresql+psycopg2://app:secret@/app?plugin=patroni&patroni_urls=https://pg1:8008")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from sqlalchemy_dialect.connecting import DRIVERS
from sqlalchemy_dialect.events import PatroniEvents
from sqlalchemy_dialect.outside import NamesServers, routed_url
from sqlalchemy_dialect.pools import pool_timeout
from sqlalchemy_dialect.settings import config_of, refuse_addressing, without_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.pool import Pool

__all__ = ["PatroniPlugin"]

_ASYNC_SUFFIX: Final = "_async"
_CREATORS: Final = ("creator", "async_creator", "pool")


class PatroniPlugin(CreateEnginePlugin):
    """Routes the connections of an engine with a stock dialect.

    :param url: the engine's URL, with the settings in its query
    :param kwargs: ``create_engine``'s keywords; ``patroni=`` is taken out of them
    :raises ArgumentError: a setting is wrong, or the URL's database or driver is not supported
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        _check_driver(url)
        for name in _CREATORS:
            if kwargs.get(name) is not None:
                raise ArgumentError(f"plugin=patroni makes the connections itself: it excludes {name}=")
        refuse_addressing(kwargs.get("connect_args") or (), "connect_args")
        self.config = config_of(url, kwargs.pop("patroni", None))
        self._drivername = url.drivername

    def update_url(self, url: URL) -> URL:
        """Return `url` without the settings, for a dialect that tells tools where to connect."""
        return routed_url(without_settings(url))

    def handle_pool_kwargs(self, pool_cls: type[Pool], pool_args: dict[str, Any]) -> None:
        """Let waiting for a place in the pool take as long as a failover may, unless the user says."""
        if issubclass(pool_cls, (QueuePool, AsyncAdaptedQueuePool)):
            pool_args.setdefault("timeout", pool_timeout(self.config))

    def engine_created(self, engine: Engine) -> None:
        """Attach the event handlers."""
        engine.url = engine.url.set(drivername=self._drivername)
        dialect: Any = engine.dialect
        if isinstance(dialect, NamesServers):
            dialect.leads_to = self.config
        PatroniEvents(self.config).attach(engine)


def _check_driver(url: URL) -> None:
    if url.get_backend_name() != "postgresql":
        raise ArgumentError(f"plugin=patroni is for PostgreSQL, not for {url.get_backend_name()}")
    driver = url.get_driver_name()
    if driver.removesuffix(_ASYNC_SUFFIX) == "patroni":
        raise ArgumentError(f"postgresql+{driver} needs no plugin=patroni: it routes by itself")
    if driver.removesuffix(_ASYNC_SUFFIX) not in DRIVERS:
        raise ArgumentError(f"plugin=patroni does not support postgresql+{driver}; it does {', '.join(DRIVERS)}")
