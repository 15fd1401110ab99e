"""SQLAlchemy on a Patroni cluster: engines that find the primary, or replicas, and survive failovers.

Three ways lead there, all with the same settings and the same behaviour: the dialect ``postgresql+patroni``,
``?plugin=patroni`` on any PostgreSQL driver's URL, and :class:`PatroniCreator` as ``creator=``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy_dialect.creator import PatroniCreator
    from sqlalchemy_dialect.dialect import PatroniDialect, PatroniDialectAsync
    from sqlalchemy_dialect.plugin import PatroniPlugin
    from sqlalchemy_dialect.pools import PatroniAsyncQueuePool, PatroniQueuePool

__all__ = [
    "PatroniAsyncQueuePool",
    "PatroniCreator",
    "PatroniDialect",
    "PatroniDialectAsync",
    "PatroniPlugin",
    "PatroniQueuePool",
]

_HOMES = {
    "PatroniAsyncQueuePool": "pools",
    "PatroniCreator": "creator",
    "PatroniDialect": "dialect",
    "PatroniDialectAsync": "dialect",
    "PatroniPlugin": "plugin",
    "PatroniQueuePool": "pools",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module when it is first asked for (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
