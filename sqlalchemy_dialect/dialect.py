"""The dialect ``postgresql+patroni``: SQLAlchemy's own for psycopg, with connections that Patroni routes.

::

    create_engine("postgresql+patroni://app:secret@/app?patroni_urls=https://pg1:8008,https://pg2:8008")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from sqlalchemy_dialect.events import PatroniEvents
from sqlalchemy_dialect.outside import NamesServers
from sqlalchemy_dialect.pools import PatroniAsyncQueuePool, PatroniQueuePool
from sqlalchemy_dialect.settings import config_of, without_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import URL
    from sqlalchemy.engine.interfaces import ConnectArgsType
    from sqlalchemy.pool import Pool

    from patroni_db.config import PatroniConfig

__all__ = ["PatroniDialect", "PatroniDialectAsync"]

# A secret that is no part of the URL's own password is shown with the URL: it is taken out of what is kept.
_SECRETS: Final = ("patroni_password", "patroni_etcd_password")


class _Routed(NamesServers):
    """What both dialects add to SQLAlchemy's.

    :param patroni: the settings, in place of ``patroni_*`` in the URL's query
    """

    patroni: PatroniConfig | None

    def __init__(self, patroni: PatroniConfig | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patroni = self._given = patroni

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        """Read the settings, and return what is left for the driver.

        :raises ArgumentError: naming the setting that is wrong
        """
        if self.leads_to is None:  # later the URL lacks its secrets
            self.patroni = config_of(url, self._given)
        return super().create_connect_args(without_settings(url))

    def get_dialect_pool_class(self, url: URL) -> type[Pool]:
        """Return a pool in which waiting takes as long as a failover may."""
        stock: type[Pool] = super().get_dialect_pool_class(url)  # type: ignore[misc]  # the other base's
        if stock is QueuePool:
            return PatroniQueuePool
        return PatroniAsyncQueuePool if stock is AsyncAdaptedQueuePool else stock

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[PatroniDialectAsync]:  # noqa: ARG003 - SQLAlchemy's signature
        """Return the dialect of ``create_async_engine``."""
        return PatroniDialectAsync

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        """Attach the event handlers; called for the dialect and again for the class that its entry point names."""
        dialect: Any = engine.dialect
        if type(dialect) is cls and dialect.patroni is not None:
            engine.url = engine.url.difference_update_query(_SECRETS)
            dialect.leads_to = dialect.patroni
            PatroniEvents(dialect.patroni).attach(engine)


class PatroniDialect(_Routed, PGDialect_psycopg):
    """``postgresql+patroni`` with ``create_engine``: psycopg on the server that Patroni names."""

    supports_statement_cache = True


class PatroniDialectAsync(_Routed, PGDialectAsync_psycopg):
    """``postgresql+patroni`` with ``create_async_engine``, and ``postgresql+patroni_async``."""

    supports_statement_cache = True
