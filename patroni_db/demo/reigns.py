"""Who was primary when, by the word of the servers themselves. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patroni_db.demo.history import Probe, Sighting

__all__ = ["Reign", "reigns"]


@dataclass(frozen=True, slots=True)
class Reign:
    """A node that was primary on a timeline.

    :param node: the node
    :param timeline: every promotion begins a new one
    :param first: when it first answered a write of the oracle
    :param last: when it last did
    :param led: whether it was seen to hold the leader key
    """

    node: str
    timeline: int
    first: float
    last: float
    led: bool


def reigns(probes: Iterable[Probe], sightings: Iterable[Sighting]) -> tuple[Reign, ...]:
    """Return who accepted the oracle's writes, on which timelines, in the order of their beginning."""
    holders = {sighting.node for sighting in sightings}
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for probe in probes:
        if probe.timeline is not None:
            key = (probe.node, probe.timeline)
            first, last = spans.get(key, (probe.ended, probe.ended))
            spans[key] = (min(first, probe.ended), max(last, probe.ended))
    found = [Reign(node, timeline, *span, node in holders) for (node, timeline), span in spans.items()]
    return tuple(sorted(found, key=lambda reign: (reign.first, reign.timeline)))
