"""A picture of one fault: every acknowledged write and every error of every worker, around the cluster's outage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.accounting import account_of, recovery_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.records import Observation

__all__ = ["plot"]

# Seconds shown before the fault, and after the recovery.
_BEFORE = 1.0
_AFTER = 6.0
_ROW = 0.42
_GOOD, _BAD, _OUTAGE = "#1b7f5c", "#c8372d", "#e4e4e0"


def plot(observation: Observation, labels: Mapping[str, str], title: str, path: Path) -> None:
    """Draw `observation`.

    :param labels: of the clients
    :param title: above it
    :param path: the PNG file
    """
    at = observation.at
    recovery = recovery_of(observation.probes, observation.old, at)
    until = min(observation.ended - at, (recovery.at - at if recovery else 0.0) + _AFTER)
    clients = observation.clients
    figure, axes = plt.subplots(figsize=(11, 1.2 + _ROW * len(clients)), layout="constrained")
    if recovery is not None:
        axes.axvspan(recovery.last - at, recovery.at - at, color=_OUTAGE, zorder=0, label="cluster takes no write")
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":", label="fault")
    for row, client in enumerate(clients):
        lanes = {worker: row + (worker + 1) / (client.workers + 1) - 0.5 for worker in range(client.workers)}
        for color, is_error in ((_GOOD, False), (_BAD, True)):
            shown = [
                (write.ended - at, lanes[write.worker])
                for write in client.writes
                if write.ended is not None
                and (write.error is not None) is is_error
                and -_BEFORE <= write.ended - at <= until
            ]
            axes.scatter(
                [x for x, _ in shown],
                [y for _, y in shown],
                s=14,
                marker="|",
                linewidths=0.9,
                color=color,
                label=("error" if is_error else "write acknowledged") if row == 0 else None,
                zorder=2,
            )
        behind = account_of(client, observation).behind
        text = "never" if behind == float("inf") else f"{max(0.0, behind):.2f} s"
        axes.annotate(text, (1.005, row), xycoords=("axes fraction", "data"), va="center", fontsize=9)
    axes.set_yticks(range(len(clients)), [labels[client.name].replace("*", "") for client in clients], fontsize=9)
    axes.set_ylim(len(clients) - 0.5, -0.5)
    axes.set_xlim(-_BEFORE, until)
    axes.set_xlabel("seconds from the fault; at the right: worst worker's time behind the cluster")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
