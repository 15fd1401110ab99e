"""One request or task: which primaries it has written to, and how fresh its reads are to be.

It is known by a context variable, and shared by all threads and tasks that work for it.
"""

from __future__ import annotations

import contextlib
import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Literal

from patroni_db.causal_context import causal_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from patroni_db.causal import CausalToken

__all__ = ["Consistency", "ConsistencyName", "Work", "current_work", "note_write"]


# The values of Consistency, for type checkers.
ConsistencyName = Literal["strong", "causal", "eventual"]


class Consistency(enum.StrEnum):
    """How fresh the reads of a request or task are, outside of transactions."""

    STRONG = "strong"
    """All from the primary."""
    CAUSAL = "causal"
    """From a replica that shows what its causal token stands for, and from the primary after a write of its own."""
    EVENTUAL = "eventual"
    """From any replica, whatever has been written."""


class Work:
    """A request or task.

    :param level: how fresh its reads are
    :param tokens: the causal tokens it begins with, by the primary's alias
    :param outer: the one that it is a part of, which has to know of its writes
    :param is_request: whether it is a request, which comes to an end soon
    """

    def __init__(
        self,
        level: Consistency = Consistency.CAUSAL,
        tokens: Mapping[str, CausalToken] | None = None,
        outer: Work | None = None,
        *,
        is_request: bool = False,
    ) -> None:
        self.level = level
        self.is_request: bool = is_request or (outer is not None and outer.is_request)
        self._is_causal = level is Consistency.CAUSAL  # asked for every query
        self.brought: Mapping[str, CausalToken] = dict(tokens or {})
        self.tokens: Mapping[str, CausalToken] = self.brought
        self._outer = outer
        # Adding to a set and taking from it are atomic.
        self._pinned: set[str] = set()
        self._uncaptured: set[str] = set()

    @contextlib.contextmanager
    def entered(self) -> Iterator[Work]:
        """Work on it. One after another may, as the steps of a stream do; what one observes the next knows."""
        reset = _work.set(self)
        try:
            with causal_context(self.tokens) as scope:
                try:
                    yield self
                finally:
                    self.tokens = scope.tokens
        finally:
            _work.reset(reset)

    def pin(self, primary: str) -> None:
        """Have all later reads of this cluster go to the primary."""
        self._pinned.add(primary)

    def reads_primary(self, primary: str) -> bool:
        """Return whether reads go to the primary, by what is known without asking anybody."""
        if self._is_causal:
            return primary in self._pinned or (self._outer is not None and self._outer._is_pinned(primary))  # noqa: SLF001
        return self.level is Consistency.STRONG

    def note_write(self, primary: str) -> None:
        """Note that something was, or may have been, committed on a primary."""
        self._pinned.add(primary)
        self._uncaptured.add(primary)
        if self._outer is not None:
            self._outer.note_write(primary)

    @property
    def has_uncaptured(self) -> bool:
        """Whether something was written for which no causal token has been taken yet."""
        return bool(self._uncaptured)

    def take_uncaptured(self) -> set[str]:
        """Return, once, the primaries that were written to since this was last asked."""
        taken: set[str] = set()
        with contextlib.suppress(KeyError):  # other threads may take some, or add more
            while True:
                taken.add(self._uncaptured.pop())
        return taken

    def _is_pinned(self, primary: str) -> bool:
        return primary in self._pinned or (self._outer is not None and self._outer._is_pinned(primary))  # noqa: SLF001


_work: ContextVar[Work | None] = ContextVar("django_backend_work", default=None)


# Returns the request or task that the present code works for; None if nobody said so. Asked for every query.
current_work: Final[Callable[[], Work | None]] = _work.get


def note_write(primary: str) -> None:
    """Note that something was, or may have been, committed on a primary.

    :param primary: its alias
    """
    work = _work.get()
    if work is not None:
        work.note_write(primary)
