"""The type of options that take a duration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from patroni_db.durations import LONGEST, SHORTEST, parsed

if TYPE_CHECKING:
    _ParamType = click.ParamType[float]
else:
    _ParamType = click.ParamType  # only newer versions of click can be subscripted at run time

__all__ = ["Seconds"]


class Seconds(_ParamType):
    """A duration, in the spelling of settings: ``30``, ``500ms``, ``1min``.

    :param least: in seconds; 0 accepts zero
    :param most: in seconds
    """

    name = "seconds"

    def __init__(self, *, least: float, most: float = LONGEST) -> None:
        self._least = least
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail in the words of the option."""
        try:
            seconds = parsed(value, least=min(self._least, SHORTEST))
        except ValueError as exc:
            self.fail(str(exc), param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value!r} is not between {self._least:g} s and {self._most:g} s", param, ctx)
        return seconds
