"""For how long nothing worked: for the cluster itself, and for its clients. Pure."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patroni_db.demo.history import Fault, Probe

__all__ = ["Gap", "Outage", "longest_gap", "outage_of", "worst_gap"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without success.

    :param start: the last success before it
    :param end: the first success after it; the end of watching when there was none
    :param closed: whether there was one
    """

    start: float
    end: float
    closed: bool = True

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start


def longest_gap(successes: Iterable[float], since: float, until: float, ended: float) -> Gap | None:
    """Return the longest gap between successes that a fault can have caused.

    :param successes: when something worked, in any order
    :param since: when the fault was made; a gap that ended before does not count
    :param until: when the next one was made; a gap that lasts longer is that one's, unless it began before `since`:
        the last success before a fault may be a moment older than the fault
    :param ended: the end of watching: a gap open then ends there, and is not closed
    :returns: None when nothing ever worked
    """
    times = sorted(time for time in successes if time <= ended)
    if not times:
        return None
    gaps = [Gap(start, end) for start, end in itertools.pairwise(times)]
    gaps.append(Gap(times[-1], ended, closed=False))
    caused = [gap for gap in gaps if gap.end >= since and (gap.end <= until or gap.start <= since)]
    return max(caused, key=lambda gap: gap.seconds, default=None)


def worst_gap(lanes: Iterable[Iterable[float]], since: float, until: float, ended: float) -> Gap | None:
    """Return the longest gap of any lane: that one thread goes on helps nobody who waits in another."""
    gaps = [longest_gap(lane, since, until, ended) for lane in lanes]
    return max((gap for gap in gaps if gap is not None), key=lambda gap: gap.seconds, default=None)


@dataclass(frozen=True, slots=True)
class Outage:
    """What a fault did to the cluster itself, by the oracle's word.

    :param gap: the time in which no node committed a write
    :param down: when the old primary first failed a write of the oracle that began after the last good one;
        the moment its sessions broke, to within the oracle's pace. The gap's start when none failed
    """

    gap: Gap
    down: float


def outage_of(fault: Fault, probes: Sequence[Probe], until: float, ended: float) -> Outage | None:
    """Return the outage around `fault`.

    :param fault: the fault
    :param probes: of all nodes
    :param until: when the next fault began, or watching ended
    :param ended: the end of watching
    """
    gap = longest_gap((p.ended for p in probes if p.timeline is not None), fault.at, until, ended)
    if gap is None:
        return None
    failed = [p.ended for p in probes if p.node == fault.old and p.timeline is None and p.began >= gap.start]
    return Outage(gap, min(min(failed, default=gap.start), gap.end))
