"""The figures of a demo. Pure."""

from __future__ import annotations

import collections
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patroni_db.demo.checker import check
from patroni_db.demo.history import Outcome
from patroni_db.demo.outages import outage_of, worst_gap
from patroni_db.demo.reigns import reigns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from patroni_db.demo.checker import Finding, Verdict
    from patroni_db.demo.clients import ClientSpec
    from patroni_db.demo.history import Fault, History, Read, Row, Write
    from patroni_db.demo.ledger import Books
    from patroni_db.demo.outages import Gap, Outage
    from patroni_db.demo.reigns import Reign

__all__ = ["ClientReport", "Failure", "Moment", "Report", "make_report", "moment_of"]

# Version of the JSON document; it grows when a key changes its meaning.
_VERSION = 1
# Seconds in which a server ends its sessions, the oracle's and others, one after the other: 0.09 s was seen on a busy
# machine.
_SPREAD = 0.5


class Moment(enum.StrEnum):
    """When an operation that failed had begun."""

    IN_FLIGHT = "in_flight"
    """Before its session with the primary went: nothing can save it without running it again."""
    DURING_OUTAGE = "during_outage"
    """While there was no primary: it should have waited for one."""
    OTHERWISE = "otherwise"
    """At any other time: it should have worked."""


def moment_of(began: float, ended: float, outages: Iterable[Outage], failed_before: float | None = None) -> Moment:
    """Return when an operation that failed had begun.

    A session may outlive the oracle's by a moment, and be lost under an operation that began in this moment. A thread
    loses only one: what it begins after that has to wait.

    :param began: when it began
    :param ended: when the error was raised
    :param outages: in any order
    :param failed_before: when the thread's failure before this one was raised; None when there was none
    """
    for outage in outages:
        start = outage.gap.start - _SPREAD
        again = failed_before is not None and failed_before >= start
        latest = outage.down if again else min(outage.down + _SPREAD, outage.gap.end)
        if ended >= start and began <= latest:
            return Moment.IN_FLIGHT
        if outage.down < began <= outage.gap.end:
            return Moment.DURING_OUTAGE
    return Moment.OTHERWISE


@dataclass(frozen=True, slots=True)
class Failure:
    """An operation that failed.

    :param lane: the thread or task
    :param began: when it began
    :param ended: when the error was raised
    :param moment: when it had begun, compared with the outages
    :param error: what was raised
    """

    lane: int
    began: float
    ended: float
    moment: Moment
    error: str


@dataclass(frozen=True, slots=True)
class ClientReport:
    """The figures of one client.

    :param spec: which
    :param succeeded: operations that succeeded
    :param outages: around each fault, the longest time in which a lane of it had no success
    :param failures: operations that failed, in the order in which they began
    :param nodes: operations by the node that served them
    :param pulse: successes in each of many equal spans of time, all lanes together
    """

    spec: ClientSpec
    succeeded: int
    outages: tuple[Gap | None, ...]
    failures: tuple[Failure, ...]
    nodes: Mapping[str, int]
    pulse: tuple[int, ...]

    @property
    def errors(self) -> Mapping[Moment, int]:
        """How many operations failed, by when they had begun."""
        counts = collections.Counter(failure.moment for failure in self.failures)
        return {moment: counts[moment] for moment in Moment}

    @property
    def messages(self) -> Mapping[str, int]:
        """The errors, and how often each was raised; the most frequent first."""
        return dict(collections.Counter(failure.error for failure in self.failures).most_common())


@dataclass(frozen=True, slots=True)
class Report:
    """All figures.

    :param cluster: what kind of cluster it was
    :param began: start of the measured time
    :param ended: end of it
    :param faults: what was done
    :param outages: what each did to the cluster itself
    :param primaries: who was primary
    :param clients: the figures of each client
    :param pulse: as of a client, for the oracle: the cluster's own
    :param verdict: what became of each write
    :param books: whether the shop's books balance
    """

    cluster: Mapping[str, Any]
    began: float
    ended: float
    faults: tuple[Fault, ...]
    outages: tuple[Outage | None, ...]
    primaries: tuple[Reign, ...]
    clients: tuple[ClientReport, ...]
    pulse: tuple[int, ...]
    verdict: Verdict
    books: Books

    @property
    def passed(self) -> bool:
        """Whether every write is as it must be, and the books balance."""
        return self.verdict.clean and self.books.balanced

    @property
    def reads(self) -> Mapping[str, int]:
        """Answered reads by node."""
        total: collections.Counter[str] = collections.Counter()
        for client in self.clients:
            if not client.spec.writes:
                total.update(client.nodes)
        return dict(sorted(total.items()))

    def errors(self, moment: Moment) -> int:
        """Return how many operations failed that had begun at such a moment."""
        return sum(client.errors[moment] for client in self.clients)

    def to_json(self) -> dict[str, Any]:
        """Return the document described in docs/demo.md."""
        return {
            "version": _VERSION,
            "passed": self.passed,
            "seconds": round(self.ended - self.began, 3),
            "cluster": dict(self.cluster),
            "faults": [self._fault(index) for index in range(len(self.faults))],
            "primaries": [
                {
                    "node": reign.node,
                    "timeline": reign.timeline,
                    "from": self._at(reign.first),
                    "to": self._at(reign.last),
                    "held_leader_key": reign.led,
                }
                for reign in self.primaries
            ],
            "clients": [self._client(client) for client in self.clients],
            "writes": {
                "acknowledged": self.verdict.acknowledged,
                "lost": _findings(self.verdict.lost),
                "duplicated": _findings(self.verdict.duplicated),
                "wrong_node": _findings(self.verdict.wrong_node),
                "unexplained": _findings(self.verdict.unexplained),
                "unknown": {"stored": self.verdict.unknown_stored, "total": self.verdict.unknown},
            },
            "reads": {"answered": sum(self.reads.values()), "nodes": dict(self.reads)},
            "errors": {moment.value: self.errors(moment) for moment in Moment},
            "books": {
                "balanced": self.books.balanced,
                "orders": self.books.orders,
                "half_written": self.books.half_written,
                "sold": self.books.sold,
                "stock_before": self.books.stock_before,
                "stock_after": self.books.stock_after,
            },
        }

    def _at(self, time: float) -> float:
        return round(time - self.began, 3)

    def _fault(self, index: int) -> dict[str, Any]:
        fault, outage = self.faults[index], self.outages[index]
        return {
            "kind": fault.kind.value,
            "at": self._at(fault.at),
            "old_primary": fault.old,
            "new_primary": fault.new,
            "cluster_outage": None if outage is None or not outage.gap.closed else round(outage.gap.seconds, 3),
        }

    def _client(self, client: ClientReport) -> dict[str, Any]:
        return {
            "name": client.spec.name,
            "kind": "write" if client.spec.writes else "read",
            "lanes": client.spec.lanes,
            "succeeded": client.succeeded,
            "outages": [None if gap is None or not gap.closed else round(gap.seconds, 3) for gap in client.outages],
            "errors": {moment.value: count for moment, count in client.errors.items()},
            "error_messages": dict(client.messages),
            "failures": [
                {
                    "lane": failure.lane,
                    "began": self._at(failure.began),
                    "ended": self._at(failure.ended),
                    "moment": failure.moment.value,
                    "error": failure.error,
                }
                for failure in client.failures
            ],
            "nodes": dict(client.nodes),
        }


def make_report(
    history: History,
    rows: Iterable[Row],
    books: Books,
    clients: Sequence[ClientSpec],
    cluster: Mapping[str, Any],
    cells: int = 50,
) -> Report:
    """Work out the figures.

    :param history: what happened
    :param rows: what the surviving primary has
    :param books: the shop's books
    :param clients: who took part
    :param cluster: what kind of cluster it was
    :param cells: number of spans that the pulses have
    """
    until = [fault.at for fault in history.faults[1:]] + [history.ended]
    outages = tuple(
        outage_of(fault, history.probes, end, history.ended) for fault, end in zip(history.faults, until, strict=False)
    )
    primaries = reigns(history.probes, history.sightings)
    known = [outage for outage in outages if outage is not None]
    return Report(
        cluster=cluster,
        began=history.began,
        ended=history.ended,
        faults=history.faults,
        outages=outages,
        primaries=primaries,
        clients=tuple(_client_report(spec, history, known, until, cells) for spec in clients),
        pulse=_pulse((p.ended for p in history.probes if p.timeline is not None), history, cells),
        verdict=check(history.writes, rows, primaries),
        books=books,
    )


def _client_report(
    spec: ClientSpec, history: History, outages: Sequence[Outage], until: Sequence[float], cells: int
) -> ClientReport:
    operations: list[Write | Read] = [write for write in history.writes if write.client == spec.name]
    operations += [read for read in history.reads if read.client == spec.name]
    operations.sort(key=lambda operation: operation.began)
    lanes: dict[int, list[float]] = {lane: [] for lane in range(spec.lanes)}
    nodes: collections.Counter[str] = collections.Counter()
    failures: list[Failure] = []
    latest: dict[int, float] = {}
    for operation in operations:
        if _worked(operation):
            if operation.ended is not None:
                lanes.setdefault(operation.lane, []).append(operation.ended)
            nodes[operation.node or "unknown"] += 1
        elif operation.error is not None:
            ended = history.ended if operation.ended is None else operation.ended
            moment = moment_of(operation.began, ended, outages, latest.get(operation.lane))
            latest[operation.lane] = ended
            failures.append(Failure(operation.lane, operation.began, ended, moment, operation.error))
    return ClientReport(
        spec=spec,
        succeeded=sum(map(len, lanes.values())),
        outages=tuple(
            worst_gap(lanes.values(), fault.at, end, history.ended)
            for fault, end in zip(history.faults, until, strict=False)
        ),
        failures=tuple(failures),
        nodes=dict(sorted(nodes.items())),
        pulse=_pulse((time for lane in lanes.values() for time in lane), history, cells),
    )


def _worked(operation: Write | Read) -> bool:
    outcome = getattr(operation, "outcome", Outcome.ACKNOWLEDGED)
    return outcome is Outcome.ACKNOWLEDGED and operation.error is None


def _pulse(successes: Iterable[float], history: History, cells: int) -> tuple[int, ...]:
    counts = [0] * cells
    width = (history.ended - history.began) / cells
    for time in successes:
        index = int((time - history.began) / width)
        if 0 <= index < cells:
            counts[index] += 1
    return tuple(counts)


def _findings(findings: Iterable[Finding]) -> list[dict[str, str | None]]:
    return [{"reference": f.reference, "client": f.client, "problem": f.problem} for f in findings]
