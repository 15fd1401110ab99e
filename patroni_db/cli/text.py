"""Small pieces of text. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["age", "size", "tags"]

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_KILO: Final = 1024
_FINE: Final = 10
_MINUTE: Final = 60
_HOUR: Final = 3600


def size(number: int) -> str:
    """Return a number of bytes as a person reads it, in PostgreSQL's units (1 kB = 1024 bytes)."""
    amount = float(number)
    unit = 0
    while amount >= _KILO and unit < len(_UNITS) - 1:
        amount /= _KILO
        unit += 1
    digits = 1 if unit and amount < _FINE else 0
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def age(seconds: float) -> str:
    """Return a span of time as a person reads it: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < _FINE:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def tags(values: Mapping[str, Any]) -> str:
    """Return tags in the spelling of the setting ``patroni_tags``: ``nofailover=true, zone=a``."""
    return plain(", ".join(f"{name}={_spelled(value)}" for name, value in sorted(values.items())))


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
