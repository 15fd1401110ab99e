"""Queue pools in which waiting for a place takes as long as a failover may.

SQLAlchemy's queue pools let a thread wait 30 s for one of their connections. During a failover all of them may be
busy waiting for the primary, for up to ``patroni_failover_timeout`` (60 s): whoever queues behind them would fail
first, with an error that speaks of the pool's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

    from patroni_db.config import PatroniConfig

__all__ = ["PatroniAsyncQueuePool", "PatroniQueuePool", "pool_timeout"]

# Seconds; what SQLAlchemy gives to waiting when nothing fails over.
_POOL_TIMEOUT: Final = 30.0


def pool_timeout(config: PatroniConfig) -> float:
    """Return how many seconds to wait for a place in the pool unless the user says."""
    return config.failover_timeout + _POOL_TIMEOUT


def _timeout_of(dialect: Dialect | None) -> float:
    config: PatroniConfig | None = getattr(dialect, "patroni", None)
    return _POOL_TIMEOUT if config is None else pool_timeout(config)


class PatroniQueuePool(QueuePool):
    """SQLAlchemy's queue pool, with a default ``pool_timeout`` that outlasts a failover."""

    def __init__(
        self, creator: Any, *, timeout: float | None = None, dialect: Dialect | None = None, **kwargs: Any
    ) -> None:
        waiting = _timeout_of(dialect) if timeout is None else timeout
        super().__init__(creator, timeout=waiting, dialect=dialect, **kwargs)


class PatroniAsyncQueuePool(AsyncAdaptedQueuePool):
    """The same for asynchronous engines."""

    def __init__(
        self, creator: Any, *, timeout: float | None = None, dialect: Dialect | None = None, **kwargs: Any
    ) -> None:
        waiting = _timeout_of(dialect) if timeout is None else timeout
        super().__init__(creator, timeout=waiting, dialect=dialect, **kwargs)
