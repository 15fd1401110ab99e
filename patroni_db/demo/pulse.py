"""Throughput over time as a line of bars. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["bars"]

_BARS = "▁▂▃▄▅▆▇█"
_NOTHING = "·"


def bars(counts: Sequence[int], style: str, *, full: int | None = None) -> Text:
    """Return one character for each count: a bar, or a red dot where nothing succeeded.

    :param counts: successes in equal spans of time
    :param style: of the bars
    :param full: the count that fills a cell; by default the largest
    """
    top = max(full or max(counts, default=0), 1)
    text = Text(no_wrap=True)
    for count in counts:
        if count:
            text.append(_BARS[min(count * len(_BARS) // (top + 1), len(_BARS) - 1)], style)
        else:
            text.append(_NOTHING, "bold red")
    return text
