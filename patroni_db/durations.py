"""One rule for every span of time that somebody gives us: from a millisecond, or zero, to one day. Pure.

More is a mistake in its unit, and what waits for it would fail in a way of its own: a lock waits for 292 years at most,
``poll`` for 24 days, and infinity or no number at all is an ``OverflowError`` or a wait that never ends.
"""

from __future__ import annotations

import math
import re
from typing import Final

from patroni_db.escaping import quoted

__all__ = ["LONGEST", "SHORTEST", "checked", "parsed"]

#: In seconds.
SHORTEST: Final = 0.001
#: In seconds: one day.
LONGEST: Final = 86400.0
_TEXT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min)?\s*", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0}


def parsed(value: object, *, least: float = SHORTEST) -> float:
    """Return the seconds that `value` stands for: a number, or text such as ``2``, ``500ms`` or ``1min``.

    :param least: the fewest seconds that are accepted; 0 accepts zero, and otherwise from :data:`SHORTEST` on
    :raises ValueError: it is no duration, or not between `least` and :data:`LONGEST`
    """
    seconds = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = _float(value)
    elif isinstance(value, str) and (match := _TEXT.fullmatch(value)):
        seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if math.isnan(seconds):
        raise ValueError(f"{quoted(value)} is not a duration in seconds such as 2, 0.5 or 500ms")
    if seconds < 0 or (seconds == 0 and least > 0):
        raise ValueError(f"{quoted(value)} is not more than zero")
    if 0 < seconds < (least or SHORTEST):
        raise ValueError(f"{quoted(value)} is less than {(least or SHORTEST) * 1000:g}ms")
    if seconds > LONGEST:
        raise ValueError(f"{quoted(value)} is more than a day")
    return seconds


def checked(seconds: float, name: str) -> float:
    """Return `seconds`, from zero to :data:`LONGEST`.

    :param name: what it is called where it is given
    :raises ValueError: they are not, naming it
    """
    if not 0 <= seconds <= LONGEST:  # no number fails both
        raise ValueError(f"{name}: {quoted(seconds)} is not between zero and a day, in seconds")
    return seconds


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
