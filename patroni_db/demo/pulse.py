"""Throughput over time as a line of bars. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bars"]

_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"


def bars(counts: Sequence[int], style: str) -> Text:
    """Return a character for each count: a bar, the highest for the largest count; a red dot for nothing.

    :param counts: successes in equal spans of time
    :param style: of the bars
    """
    top = max(counts, default=0)
    text = Text(no_wrap=True)
    for worked, group in itertools.groupby(counts, key=bool):
        marks = (_BARS[min(count * len(_BARS) // (top + 1), len(_BARS) - 1)] if worked else _NOTHING for count in group)
        text.append("".join(marks), style if worked else "bold red")
    return text
