"""What a piece of work on the aliases of this engine met, left behind, and is about to begin.

Whoever runs work again, for a transaction or for a whole request, must know whether its error came from one of these
aliases, and whether something was committed before. The work may pass through threads and tasks
(``sync_to_async``), so that is kept in a context variable, and told there by the wrappers.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import random
import time
import weakref
from typing import TYPE_CHECKING

from patroni_db.faults import chain
from patroni_db.markers import new_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import IsolationLevel

__all__ = [
    "Effects",
    "Mark",
    "Opening",
    "fresh_mark",
    "note_change",
    "note_failure",
    "observed",
    "take_opening",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """The commit marker of one transaction.

    :param key: its key in the table
    :param shared: whether others may come with the same key: then inserting it may have to wait for them
    :param fingerprint: of the work that a shared key stands for; None where that does not matter
    """

    key: str
    shared: bool = False
    fingerprint: str | None = None


def fresh_mark() -> Mark:
    """Return a marker with a key that nobody else has."""
    return Mark(new_key(random.SystemRandom(), time.time()))


@dataclasses.dataclass(frozen=True, slots=True)
class Opening:
    """How the next transaction begins.

    :param mark: inserted as its first statement
    :param isolation_level: instead of the connection's
    """

    mark: Mark | None = None
    isolation_level: IsolationLevel | None = None


class Effects:
    """Of one piece of work.

    :param outer: the work that it is a part of
    """

    def __init__(self, outer: Effects | None = None) -> None:
        self._outer = outer
        # The drivers' errors. An exception holds the frames it passed, and so this: hence no references.
        self._failures: weakref.WeakSet[BaseException] = weakref.WeakSet()
        self._losses: weakref.WeakSet[BaseException] = weakref.WeakSet()
        self._refusals: weakref.WeakSet[BaseException] = weakref.WeakSet()
        self.changed: set[str] = set()
        self.openings: dict[str, Opening] = {}

    def met(self, exc: BaseException) -> bool:
        """Return whether `exc` is, or was raised from, an error of one of the aliases."""
        return any(link in self._failures for link in chain(exc))

    def lost(self, exc: BaseException) -> bool:
        """Return whether a connection was lost with `exc`, or with what it was raised from."""
        return any(link in self._losses for link in chain(exc))

    def refused(self, exc: BaseException) -> bool:
        """Return whether `exc` came from connecting, which had waited and tried again already."""
        return any(link in self._refusals for link in chain(exc))

    def add_failure(self, exc: BaseException, *, connected: bool, lost: bool) -> None:
        """Note an error of the driver, here and in the work that this is a part of."""
        self._failures.add(exc)
        if not connected:
            self._refusals.add(exc)
        elif lost:
            self._losses.add(exc)
        if self._outer is not None:
            self._outer.add_failure(exc, connected=connected, lost=lost)

    def add_change(self, alias: str) -> None:
        """Note that something was, or may have been, committed."""
        self.changed.add(alias)
        if self._outer is not None:
            self._outer.add_change(alias)


_effects: contextvars.ContextVar[Effects | None] = contextvars.ContextVar("django_backend_effects", default=None)


@contextlib.contextmanager
def observed() -> Iterator[Effects]:
    """Return the effects of what runs within; those of the work around it know of them too."""
    effects = Effects(_effects.get())
    token = _effects.set(effects)
    try:
        yield effects
    finally:
        _effects.reset(token)


def note_failure(exc: BaseException, *, connected: bool, lost: bool) -> None:
    """Note an error of the driver.

    :param connected: whether there was a connection it came from
    :param lost: whether that is closed or broken now
    """
    effects = _effects.get()
    if effects is not None:
        effects.add_failure(exc, connected=connected, lost=lost)


def note_change(alias: str) -> None:
    """Note that something was, or may have been, committed through `alias`."""
    effects = _effects.get()
    if effects is not None:
        effects.add_change(alias)


def take_opening(alias: str) -> Opening | None:
    """Return, once, how the next transaction of `alias` is to begin."""
    effects = _effects.get()
    return effects.openings.pop(alias, None) if effects is not None and effects.openings else None
