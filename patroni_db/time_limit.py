"""One deadline for all that the work at hand waits for.

A transaction that runs again waits for connections more than once. Within :func:`time_limit` each of those waits ends
with the whole, not ``patroni_failover_timeout`` after it began.
"""

from __future__ import annotations

import contextlib
import contextvars
import time
from typing import TYPE_CHECKING

from patroni_db.durations import checked

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["time_left", "time_limit"]

_deadline: contextvars.ContextVar[float | None] = contextvars.ContextVar("patroni_db_deadline", default=None)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Let waits of this thread or task end after so many seconds; within another limit, the earlier one holds.

    :raises ValueError: they are not between zero and a day
    """
    checked(seconds, "the limit")
    until, outer = time.monotonic() + seconds, _deadline.get()
    token = _deadline.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left(otherwise: float) -> float:
    """Return the seconds that a wait may take: until the limit that holds here, at least 0, or `otherwise`."""
    until = _deadline.get()
    return otherwise if until is None else max(0.0, until - time.monotonic())
