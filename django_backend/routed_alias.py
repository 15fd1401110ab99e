"""The alias that the router names for a read: the primary's, with the replicas' alias noted on it."""

from __future__ import annotations

from typing import Any, Self

__all__ = ["RoutedAlias"]


class RoutedAlias(str):
    """The primary's alias; equal to it, hashed like it, and pickled and copied as a plain ``str``.

    It lets one query be read from a replica. Django keeps the alias of a query in ``_state.db`` of what it read, and
    names it again in further queries, also in those that belong to a write (``save(using=obj._state.db)``): by then
    it is the primary's alias and nothing else.

    :param primary: the primary's alias
    :param reader: the alias that reads from its replicas
    """

    __slots__ = ("reader",)

    reader: str | None

    def __new__(cls, primary: str, reader: str) -> Self:
        """Return the alias `primary` with `reader` noted on it."""
        self = str.__new__(cls, primary)
        self.reader = reader
        return self

    def take_reader(self) -> str | None:
        """Return the replicas' alias the first time, then None."""
        reader, self.reader = self.reader, None
        return reader

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)
