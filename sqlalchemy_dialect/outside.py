"""Dialects that tell tools which connect by themselves where to: ``dialect.create_connect_args(engine.url)``.

``plugin=patroni`` has the engine use the subclass of SQLAlchemy's dialect for its driver; nothing else differs in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg, PGDialectAsync_psycopg
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

from patroni_db.discovery import discovery_for
from sqlalchemy_dialect.connecting import server_arguments

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Dialect
    from sqlalchemy.engine.interfaces import ConnectArgsType

    from patroni_db.config import PatroniConfig

__all__ = ["NamesServers", "routed_url"]


class NamesServers:
    """A mixin for dialects."""

    driver: str
    leads_to: PatroniConfig | None = None
    """What the engine's connections are for; None until the engine is made, whose own parameters name no server."""

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        """Return the driver's arguments; once the engine is made, with the servers of the last view.

        The driver proves their role. Waits for a first view if there is none.
        """
        cargs, cparams = super().create_connect_args(url)  # type: ignore[misc]  # the other base's
        if self.leads_to is None:
            return cargs, cparams
        return cargs, {**cparams, **server_arguments(self.driver, discovery_for(self.leads_to), self.leads_to)}


class _Psycopg(NamesServers, PGDialect_psycopg):
    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Dialect]:  # noqa: ARG003 - SQLAlchemy's signature
        return _PsycopgAsync


class _PsycopgAsync(NamesServers, PGDialectAsync_psycopg):
    supports_statement_cache = True

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[Dialect]:  # noqa: ARG003 - SQLAlchemy's signature
        return _PsycopgAsync


class _Psycopg2(NamesServers, PGDialect_psycopg2):
    supports_statement_cache = True


class _Asyncpg(NamesServers, PGDialect_asyncpg):
    supports_statement_cache = True


_CLASSES: Final[dict[type[Any], type[Any]]] = {
    PGDialect_psycopg: _Psycopg,
    PGDialectAsync_psycopg: _PsycopgAsync,
    PGDialect_psycopg2: _Psycopg2,
    PGDialect_asyncpg: _Asyncpg,
}
for _cls in _CLASSES.values():
    registry.register(f"postgresql.patroni{_cls.__name__.lower()}", __name__, _cls.__name__)


def routed_url(url: URL) -> URL:
    """Return `url` for the subclass of its dialect; as it is where that is not SQLAlchemy's own."""
    cls = _CLASSES.get(url.get_dialect())
    return url if cls is None else url.set(drivername=f"postgresql+patroni{cls.__name__.lower()}")
