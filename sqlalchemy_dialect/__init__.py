"""SQLAlchemy on a Patroni cluster: engines that find the primary, or replicas, and survive failovers.

Three ways lead there, all with the same settings and the same behaviour: the dialect ``postgresql+patroni``,
``?plugin=patroni`` on any PostgreSQL driver's URL, and :class:`PatroniCreator` as ``creator=``.
On such engines :func:`run_transaction` runs a callable in a transaction, and again after a fault, and
:class:`RoutingSession` reads from replicas where it may.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy_dialect.carriers import CausalASGIMiddleware, CausalWSGIMiddleware
    from sqlalchemy_dialect.creator import PatroniCreator
    from sqlalchemy_dialect.declarations import use_primary, use_replica
    from sqlalchemy_dialect.dialect import PatroniDialect, PatroniDialectAsync
    from sqlalchemy_dialect.engines import async_writer_and_reader, writer_and_reader
    from sqlalchemy_dialect.errors import CommitOutcomeUnknown, ReadOnlyError, TransactionOnReplicaError
    from sqlalchemy_dialect.marker import commit_marker_table, create_commit_marker_table
    from sqlalchemy_dialect.plugin import PatroniPlugin
    from sqlalchemy_dialect.pools import PatroniAsyncQueuePool, PatroniQueuePool
    from sqlalchemy_dialect.session import AsyncRoutingSession, RoutingSession
    from sqlalchemy_dialect.transaction import run_transaction, run_transaction_async

__all__ = [
    "AsyncRoutingSession",
    "CausalASGIMiddleware",
    "CausalWSGIMiddleware",
    "CommitOutcomeUnknown",
    "PatroniAsyncQueuePool",
    "PatroniCreator",
    "PatroniDialect",
    "PatroniDialectAsync",
    "PatroniPlugin",
    "PatroniQueuePool",
    "ReadOnlyError",
    "RoutingSession",
    "TransactionOnReplicaError",
    "async_writer_and_reader",
    "commit_marker_table",
    "create_commit_marker_table",
    "run_transaction",
    "run_transaction_async",
    "use_primary",
    "use_replica",
    "writer_and_reader",
]

_HOMES = {
    "AsyncRoutingSession": "session",
    "CausalASGIMiddleware": "carriers",
    "CausalWSGIMiddleware": "carriers",
    "CommitOutcomeUnknown": "errors",
    "PatroniAsyncQueuePool": "pools",
    "PatroniCreator": "creator",
    "PatroniDialect": "dialect",
    "PatroniDialectAsync": "dialect",
    "PatroniPlugin": "plugin",
    "PatroniQueuePool": "pools",
    "ReadOnlyError": "errors",
    "RoutingSession": "session",
    "TransactionOnReplicaError": "errors",
    "async_writer_and_reader": "engines",
    "commit_marker_table": "marker",
    "create_commit_marker_table": "marker",
    "run_transaction": "transaction",
    "run_transaction_async": "transaction",
    "use_primary": "declarations",
    "use_replica": "declarations",
    "writer_and_reader": "engines",
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
