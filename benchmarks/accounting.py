"""From what was recorded to what is reported. Pure.

*Behind the cluster* is counted from the end of the oracle's first write that the cluster took after the fault to
the end of the first write that a worker had acknowledged by that same primary, for the worst of a client's workers.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.records import ClientRecord, Observation, Probe, Write

__all__ = ["Account", "Errors", "Recovery", "account_of", "broken_at", "longest_pause", "recovery_of"]


@dataclass(frozen=True, slots=True)
class Recovery:
    """The end of the cluster's own outage.

    :param node: the primary from then on
    :param at: when it had committed the oracle's first write
    :param floor: when it was last known not to take writes; whoever says that he wrote there before means another time
    :param last: when a node had last committed a write of the oracle before the outage
    """

    node: str
    at: float
    floor: float
    last: float

    @property
    def outage(self) -> float:
        """Seconds in which the oracle could write nowhere; 0 when the former primary went on until then."""
        return max(0.0, self.at - self.last)


def recovery_of(probes: Sequence[Probe], old: str, at: float) -> Recovery | None:
    """Return how the cluster recovered from a fault; None when it did not, or there was nothing to recover from.

    A failover shows in a later timeline. A primary that restarts in place stays on its timeline, and takes writes
    again after it took none.

    :param probes: of all nodes, in any order
    :param old: the primary before the fault
    :param at: when the fault was made
    """
    ordered = sorted(probes, key=lambda probe: probe.ended)
    before = [probe for probe in ordered if probe.ended <= at and probe.timeline is not None]
    known = max((probe.timeline or 0 for probe in before), default=0)
    first = next((p for p in ordered if p.ended > at and p.timeline is not None and p.timeline > known), None)
    if first is None:
        failed = next((p for p in ordered if p.node == old and p.began > at and p.timeline is None), None)
        if failed is None:
            return None
        later = (p for p in ordered if p.node == old and p.began >= failed.ended and p.timeline is not None)
        first = next(later, None)
    if first is None:
        return None
    refused = (p.ended for p in ordered if p.node == first.node and p.timeline is None and p.ended <= first.ended)
    taken = (p.ended for p in ordered if p.timeline is not None and p.ended < first.ended)
    return Recovery(first.node, first.ended, max(at, max(refused, default=at)), max(taken, default=at))


def broken_at(probes: Iterable[Probe], old: str, at: float, recovered: float) -> float:
    """Return when the former primary was first known to take no writes any more, to within the oracle's pace.

    A switchover ends its sessions long after it was asked for. A frozen server refuses nothing: then it is the
    moment of the fault.

    :param probes: of all nodes
    :param old: the primary before the fault
    :param at: when the fault was made
    :param recovered: when the cluster took writes again
    """
    ours = (p for p in probes if p.node == old and at < p.began and p.ended < recovered)
    refused = sorted(p.ended for p in ours if p.timeline is None)
    # A server ends its sessions one after the other: the first refusal may be the end of the oracle's own. The
    # next one is of a new session.
    return next(iter(refused[1:] or refused), at)


def longest_pause(times: Iterable[float], since: float, until: float) -> float:
    """Return the longest time without a success between `since` and `until`.

    :param times: of the successes, in any order
    """
    inside = sorted(time for time in times if since <= time <= until)
    return max(later - earlier for earlier, later in itertools.pairwise([since, *inside, until]))


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors that were raised, by when their transactions began.

    :param in_flight: before the former primary broke
    :param in_outage: after that, and before the cluster could be written to again
    :param afterwards: when the cluster could be written to
    """

    in_flight: int
    in_outage: int
    afterwards: int


@dataclass(frozen=True, slots=True)
class Account:
    """How a client came through a fault.

    :param client: its name
    :param behind: seconds that its worst worker was behind the cluster; infinite when that one never wrote again
        while it was watched. Without an outage, how much longer its longest pause was than its pace and the oracle's
    :param errors: what its transactions raised
    :param attempts: connections it tried to make from the fault on
    :param acknowledged: its writes that were acknowledged, in the whole run
    :param lost: those of them that the surviving primary does not have
    :param doubled: writes that it has more than once
    """

    client: str
    behind: float
    errors: Errors
    attempts: int
    acknowledged: int
    lost: int
    doubled: int


def account_of(client: ClientRecord, observation: Observation) -> Account:
    """Return how `client` came through."""
    probes, old, at = observation.probes, observation.old, observation.at
    until = observation.ended if observation.undone is None else observation.undone
    recovery = recovery_of([p for p in probes if p.ended <= until], old, at)
    if recovery is None:
        ours = (p.ended for p in probes if p.timeline is not None)
        behind = max(0.0, _worst_pause(client, at, until) - client.pace - longest_pause(ours, at, until))
    else:
        behind = max(_first_after(recovery, writes, until) for writes in _by_worker(client)) - recovery.at
    # Without an outage nothing can have been in flight in it.
    broken = broken_at(probes, old, at, recovery.at) if recovery else at
    keys = Counter({key: count for key, count in observation.rows.items() if key[0] == client.name})
    acknowledged = {(client.name, w.worker, w.number) for w in client.writes if w.node is not None}
    return Account(
        client=client.name,
        behind=behind,
        errors=_errors(client.writes, broken, recovery.at if recovery else at),
        attempts=sum(at <= attempt <= until for attempt in client.attempts),
        acknowledged=len(acknowledged),
        lost=sum(keys[key] == 0 for key in acknowledged),
        doubled=sum(count > 1 for count in keys.values()),
    )


def _by_worker(client: ClientRecord) -> list[list[Write]]:
    return [[write for write in client.writes if write.worker == worker] for worker in range(client.workers)]


def _first_after(recovery: Recovery, writes: Iterable[Write], until: float) -> float:
    ends = (
        write.ended
        for write in writes
        if write.node == recovery.node and write.ended is not None and recovery.floor < write.ended <= until
    )
    return min(ends, default=math.inf)


def _worst_pause(client: ClientRecord, since: float, until: float) -> float:
    return max(
        longest_pause((w.ended for w in writes if w.node is not None and w.ended is not None), since, until)
        for writes in _by_worker(client)
    )


def _errors(writes: Iterable[Write], broken: float, recovered: float) -> Errors:
    began = [write.began for write in writes if write.error is not None]
    in_flight = sum(time <= broken for time in began)
    afterwards = sum(time > max(broken, recovered) for time in began)
    return Errors(in_flight, len(began) - in_flight - afterwards, afterwards)
