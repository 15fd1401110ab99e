"""What the whole history says: pure, and able to find each kind of violation (see its tests)."""

from __future__ import annotations

import bisect
import collections
import itertools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from patroni_db.demo.checker import check
from patroni_db.demo.history import Outcome, Read, Write
from patroni_db.demo.outages import Gap, Outage
from patroni_db.demo.reigns import reigns
from patroni_db.demo.report import Moment, moment_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.chaos.incidents import Census, Incident
    from benchmarks.records import Probe
    from patroni_db.demo.checker import Verdict
    from patroni_db.demo.history import Row, Sighting

__all__ = [
    "Account",
    "Client",
    "Failure",
    "Finding",
    "Findings",
    "History",
    "Rules",
    "Stall",
    "judge",
    "read_outages",
    "stretches",
    "write_outages",
]

# Shorter than this without an answer is no outage but the oracle's own pace, on a machine that has more to do.
_NOTICED = 0.25
# A client may notice that a session broke before the oracle's last good answer was there.
_SKEW = 0.1

Operation = Write | Read


@dataclass(frozen=True, slots=True)
class Client:
    """A client, as far as the rules need to know it.

    :param name: its name
    :param writes: whether it writes
    :param lanes: its workers
    :param pace: seconds that each of them pauses
    :param sessions: connections to PostgreSQL that it may have
    :param spare_threads: threads that it may start when it needs them, and keeps
    :param once: whether each of its transactions must happen, exactly once, whatever is broken
    """

    name: str
    writes: bool
    lanes: int
    pace: float
    sessions: int
    spare_threads: int = 0
    once: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a violation.

    :param synchronous: whether no acknowledged write may be lost
    :param behind: seconds that a client that writes may be behind the cluster
    :param behind_once: the same for a client whose transactions run again: each of them takes longer, and what is in
        doubt is asked about first
    :param behind_reads: seconds that a client that reads may be behind the nodes that can be read from
    :param deposed: seconds in which a client may still write to a primary that was deposed. With synchronous
        replication such a write is not acknowledged: none
    :param descriptors: descriptors that a process may have more at the end than at the beginning
    """

    synchronous: bool = True
    behind: float = 1.0
    behind_once: float = 2.0
    behind_reads: float = 5.5
    deposed: float = 0.0
    descriptors: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was recorded. Times are seconds of the monotonic clock.

    :param began: when all clients were at work
    :param ended: when they were told to stop
    :param incidents: the faults, in their order
    :param calm: times, from and to, in which nothing was broken
    :param probes: the oracle's, in any order
    :param sightings: of the leader key's holder, or that there was none
    :param operations: of all clients, in any order
    :param rows: what the surviving primary has
    :param before: what the processes held at the beginning
    :param after: what they held at the end
    :param imbalance: what is too much or too little after all transfers, of each book
    """

    began: float
    ended: float
    incidents: tuple[Incident, ...]
    calm: tuple[tuple[float, float], ...]
    probes: tuple[Probe, ...]
    sightings: tuple[Sighting, ...]
    operations: tuple[Operation, ...]
    rows: tuple[Row, ...]
    before: tuple[Census, ...] = ()
    after: tuple[Census, ...] = ()
    imbalance: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Stall:
    """A time in which a lane had no success though it could have had one.

    :param client: whose
    :param lane: which of its workers
    :param gap: from its last success before to its first one after
    :param behind: seconds, without its pace, for which the cluster was well in one go meanwhile
    """

    client: str
    lane: int
    gap: Gap
    behind: float


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that was raised.

    :param operation: what failed
    :param moment: when it had begun
    :param calm: whether nothing was broken from its beginning to its end
    """

    operation: Operation
    moment: Moment
    calm: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """A violation.

    :param rule: which rule was broken
    :param client: by whom; None when nobody in particular
    :param at: when; None when at no time in particular
    :param text: what happened
    """

    rule: str
    client: str | None
    at: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Account:
    """The figures of one client.

    :param client: whose
    :param succeeded: operations that succeeded
    :param behind: seconds that its worst lane was behind the cluster at worst
    :param errors: how many operations failed, by when they had begun
    """

    client: str
    succeeded: int
    behind: float
    errors: Mapping[Moment, int]


@dataclass(frozen=True, slots=True)
class Findings:
    """What became of it all.

    :param violations: none, if all is well
    :param accounts: of all clients
    :param failures: all errors, in the order of their beginning
    :param writes: what became of each write
    :param write_outages: times in which the cluster took no writes
    """

    violations: tuple[Finding, ...]
    accounts: tuple[Account, ...]
    failures: tuple[Failure, ...]
    writes: Verdict
    write_outages: tuple[Outage, ...]


def write_outages(probes: Iterable[Probe], began: float, ended: float) -> tuple[Outage, ...]:
    """Return when the cluster took no writes, and when it changed its primary.

    A write on an earlier timeline than one that was written on already is none: its primary was deposed.
    """
    ordered = sorted(probes, key=lambda probe: probe.ended)
    good: list[Probe] = []
    known = 0
    for probe in ordered:
        if probe.timeline is not None and probe.timeline >= known:
            known = probe.timeline
            good.append(probe)
    failed: dict[str, list[Probe]] = collections.defaultdict(list)
    for probe in sorted(ordered, key=lambda probe: probe.began):
        if probe.timeline is None:
            failed[probe.node].append(probe)
    found = []
    for last, first in itertools.pairwise(good):
        if first.ended - last.ended > _NOTICED or first.timeline != last.timeline:
            found.append(_outage(Gap(last.ended, first.ended), failed[last.node]))
    if not good:
        return (Outage(Gap(began, ended, closed=False), began),)
    if good[0].ended - began > _NOTICED:
        found.insert(0, Outage(Gap(began, good[0].ended), began))
    if ended - good[-1].ended > _NOTICED:
        found.append(_outage(Gap(good[-1].ended, ended, closed=False), failed[good[-1].node]))
    return tuple(found)


def read_outages(probes: Iterable[Probe]) -> tuple[Outage, ...]:
    """Return when a node could not be read from, of all nodes; what is read there just then fails."""
    by_node: dict[str, list[Probe]] = collections.defaultdict(list)
    for probe in sorted(probes, key=lambda probe: probe.ended):
        by_node[probe.node].append(probe)
    found = []
    for probes_of_node in by_node.values():
        refused = [probe for probe in probes_of_node if not probe.answered]
        answered = [probe for probe in probes_of_node if probe.answered]
        failed = sorted(refused, key=lambda probe: probe.began)
        broke = {bisect.bisect(answered, probe.ended, key=lambda a: a.ended) for probe in refused}
        for index, (last, first) in enumerate(itertools.pairwise(answered), start=1):
            # A session that was ended is a break, however soon the node answered again.
            if first.ended - last.ended > _NOTICED or index in broke:
                found.append(_outage(Gap(last.ended, first.ended), failed))
        if refused and (not answered or refused[-1].ended > answered[-1].ended):
            start = answered[-1].ended if answered else refused[0].began
            found.append(_outage(Gap(start, refused[-1].ended, closed=False), failed))
    return tuple(sorted(found, key=lambda outage: outage.gap.start))


def _outage(gap: Gap, failed: Sequence[Probe]) -> Outage:
    """Return an outage, with the moment in which sessions broke.

    :param failed: probes of the node that was well before, by when they began
    """
    index = bisect.bisect_left(failed, gap.start - _SKEW, key=lambda probe: probe.began)
    within = itertools.takewhile(lambda probe: probe.began < gap.end, failed[index:])
    refused = sorted(probe.ended for probe in within)
    # A server ends its sessions one after the other: the first refusal may be the end of the oracle's own. The next
    # one is of a new session.
    down = next(iter(refused[1:] or refused), gap.end)
    return Outage(gap, min(down, gap.end))


def stretches(successes: Iterable[float], began: float, ended: float) -> tuple[tuple[float, float], ...]:
    """Return the times, from and to, in which there was one success soon after the other.

    :param successes: in any order
    """
    found: list[tuple[float, float]] = []
    for time in sorted(time for time in successes if began <= time <= ended):
        if found and time - found[-1][1] <= _NOTICED:
            found[-1] = (found[-1][0], time)
        else:
            found.append((time, time))
    return tuple(found)


def _writable(history: History) -> tuple[tuple[float, float], ...]:
    """Return when the cluster could be written to by who asks Patroni; a change of the primary begins a new stretch.

    A former primary that goes on without the leader key does not count: nobody is to begin to write to it. Nor does
    the time until it is the holder of the key who takes writes.
    """
    found = []
    start = history.began
    holders = sorted(history.sightings, key=lambda sighting: sighting.at)
    seen_at = [sighting.at for sighting in holders]
    led = [
        probe
        for probe in history.probes
        if (index := bisect.bisect(seen_at, probe.ended)) and holders[index - 1].node == probe.node
    ]
    for outage in write_outages(led, history.began, history.ended):
        if outage.gap.start > start:
            found.append((start, outage.gap.start))
        start = max(start, outage.gap.end)
    if start < history.ended:
        found.append((start, history.ended))
    return tuple(found)


def _readable(history: History) -> tuple[tuple[float, float], ...]:
    return stretches((p.ended for p in history.probes if p.answered), history.began, history.ended)


def _worst_stall(
    client: Client, operations: Iterable[Operation], well: Sequence[tuple[float, float]], history: History, least: float
) -> tuple[float, list[Stall]]:
    """Return how far a client was behind at worst, and its stalls longer than `least`."""
    lanes: dict[int, list[float]] = {lane: [] for lane in range(client.lanes)}
    for operation in operations:
        if operation.ended is not None and _worked(operation):
            lanes[operation.lane].append(operation.ended)
    worst, found = 0.0, []
    starts = [start for start, _ in well]
    for lane, successes in lanes.items():
        inside = [history.began, *sorted(t for t in successes if history.began < t < history.ended)]
        gaps = [Gap(start, end) for start, end in itertools.pairwise(inside)]
        gaps.append(Gap(inside[-1], history.ended, closed=False))
        for gap in gaps:
            if gap.seconds - client.pace <= worst and gap.seconds - client.pace <= least:
                continue
            first, last = max(0, bisect.bisect(starts, gap.start) - 1), bisect.bisect(starts, gap.end)
            within = (min(end, gap.end) - max(start, gap.start) for start, end in well[first:last])
            longest = max(within, default=0.0)
            behind = longest - client.pace
            worst = max(worst, behind)
            if behind > least:
                found.append(Stall(client.name, lane, gap, behind))
    return worst, found


def _worked(operation: Operation) -> bool:
    if isinstance(operation, Write):
        return operation.outcome is Outcome.ACKNOWLEDGED
    return operation.error is None


def judge(history: History, clients: Sequence[Client], rules: Rules) -> Findings:
    """Look for violations.

    :param history: what happened
    :param clients: who took part
    :param rules: what counts
    """
    primaries = reigns(history.probes, history.sightings)
    writes = check(
        (o for o in history.operations if isinstance(o, Write)), history.rows, primaries, patience=rules.deposed
    )
    violations = [*_write_violations(writes, rules)]
    outages = {True: write_outages(history.probes, history.began, history.ended), False: read_outages(history.probes)}
    well = {True: _writable(history), False: _readable(history)}
    accounts, failures = [], []
    for client in clients:
        operations = [operation for operation in history.operations if operation.client == client.name]
        allowed = _allowed(client, rules)
        worst, stalls = _worst_stall(client, operations, well[client.writes], history, allowed)
        for stall in stalls:
            text = (
                f"worker {stall.lane} {'had no success for' if stall.gap.closed else 'never had success again, for'} "
                f"{stall.gap.seconds:.2f} s, {stall.behind:.2f} s of which the cluster was well"
            )
            violations.append(Finding("behind", client.name, stall.gap.start, text))
        failed = [_failure(o, outages[client.writes], history) for o in operations if _error(o) is not None]
        for failure in failed:
            if client.once:
                text = f"a transaction failed that was to be run again: {_error(failure.operation)}"
                violations.append(Finding("failed", client.name, failure.operation.began, text))
            elif failure.calm:
                text = f"an error while nothing was broken: {_error(failure.operation)}"
                violations.append(Finding("error", client.name, failure.operation.began, text))
        failures += failed
        counted = collections.Counter(failure.moment for failure in failed)
        succeeded = sum(_worked(operation) for operation in operations)
        accounts.append(Account(client.name, succeeded, worst, {moment: counted[moment] for moment in Moment}))
    violations += [
        Finding("imbalance", None, None, f"{book}: {amount:+}") for book, amount in history.imbalance.items() if amount
    ]
    violations += _leaks(clients, history.before, history.after, rules)
    return Findings(
        violations=tuple(violations),
        accounts=tuple(accounts),
        failures=tuple(sorted(failures, key=lambda failure: failure.operation.began)),
        writes=writes,
        write_outages=outages[True],
    )


def _allowed(client: Client, rules: Rules) -> float:
    if client.once:
        return rules.behind_once
    return rules.behind if client.writes else rules.behind_reads


def _write_violations(writes: Verdict, rules: Rules) -> Iterable[Finding]:
    kinds = {"doubled": writes.duplicated, "wrong node": writes.wrong_node, "unexplained": writes.unexplained}
    if rules.synchronous:
        kinds = {"lost": writes.lost, **kinds}
    for rule, findings in kinds.items():
        for finding in findings:
            yield Finding(rule, finding.client, None, f"{finding.reference}: {finding.problem}")


def _error(operation: Operation) -> str | None:
    return operation.error


def _failure(operation: Operation, outages: Sequence[Outage], history: History) -> Failure:
    ended = history.ended if operation.ended is None else operation.ended
    calm = any(since < operation.began and ended < until for since, until in history.calm)
    return Failure(operation, moment_of(operation.began, ended, outages), calm)


def _leaks(
    clients: Sequence[Client], before: Iterable[Census], after: Iterable[Census], rules: Rules
) -> Iterable[Finding]:
    """Find what was not given back: threads, descriptors, sessions on either side."""
    earlier = {census.client: census for census in before}
    bounds = {client.name: client.sessions for client in clients}
    spare = {client.name: client.spare_threads for client in clients}
    for census in after:
        was = earlier[census.client]
        if census.threads > was.threads + spare[census.client]:
            yield Finding("leak", census.client, None, f"{census.threads} threads, {was.threads} at the beginning")
        if census.descriptors > was.descriptors + rules.descriptors:
            text = f"{census.descriptors} descriptors beside its sessions, {was.descriptors} at the beginning"
            yield Finding("leak", census.client, None, text)
        for name, count in (("sessions", census.sessions), ("sessions by the servers' word", census.backends)):
            if count > bounds[census.client]:
                yield Finding("leak", census.client, None, f"{count} {name}, at most {bounds[census.client]} are due")
