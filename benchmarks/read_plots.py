"""A picture of the read benchmark: what reading from replicas does to throughput and to the primary's load."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.read_figures import Figures

__all__ = ["plot"]

_COLORS = ("#7a7a75", "#6fb79d", "#1b7f5c")
_PANELS: tuple[tuple[str, Callable[[Figures], float]], ...] = (
    ("transactions a second", lambda turn: turn.rate),
    ("primary's share of transactions, %", lambda turn: 100 * turn.primary_transactions),
    ("primary's share of the servers' processor time, %", lambda turn: 100 * turn.primary_cpu),
)


def plot(clients: Sequence[str], bars: Mapping[str, Sequence[Sequence[Figures]]], path: Path) -> None:
    """Draw the medians as bars, from the least to the most of the turns as lines.

    :param clients: their names
    :param bars: by where reads went, the turns of each client; none where that was not measured
    :param path: the PNG file
    """
    figure, panels = plt.subplots(1, len(_PANELS), figsize=(4.2 * len(_PANELS), 3.8), layout="constrained")
    for axes, (title, value) in zip(panels, _PANELS, strict=True):
        _draw(axes, bars, value)
        axes.set_xticks(range(len(clients)), [name.replace(", ", "\n") for name in clients], fontsize=8)
        axes.set_title(title, loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(bars), frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axes: Axes, bars: Mapping[str, Sequence[Sequence[Figures]]], value: Callable[[Figures], float]) -> None:
    width = 0.8 / len(bars)
    for number, (placement, clients) in enumerate(bars.items()):
        shown = [(place, [value(turn) for turn in turns]) for place, turns in enumerate(clients) if turns]
        medians = [statistics.median(values) for _, values in shown]
        axes.bar(
            [place + (number + 0.5) * width - 0.4 for place, _ in shown],
            medians,
            width,
            yerr=[
                [median - min(values) for median, (_, values) in zip(medians, shown, strict=True)],
                [max(values) - median for median, (_, values) in zip(medians, shown, strict=True)],
            ],
            color=_COLORS[number % len(_COLORS)],
            error_kw={"linewidth": 0.9},
            label=f"reads go to {placement}",
        )
