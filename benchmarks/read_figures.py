"""What the read benchmark makes of what it counted. Pure."""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Done", "Figures", "Load", "figures_of", "median_of", "percentile", "table"]

_PER = 1000


class Done(NamedTuple):
    """A transaction of a client.

    :param writes: whether it wrote
    :param began: in seconds of the system's monotonic clock
    :param ended: in seconds of the same clock
    :param node: the server it ran on, as ``host:port``
    :param follows: whether it is the first read of a user since that user wrote
    """

    writes: bool
    began: float
    ended: float
    node: str
    follows: bool


@dataclass(frozen=True, slots=True)
class Load:
    """What the servers had to do.

    :param primary: the server that takes writes, as ``host:port``
    :param transactions: that each server counted itself, from the clients' start to their end
    :param cpu: seconds that each server's processes were on a processor, in the time that was measured
    :param clients_cpu: seconds of the clients' processes in that time
    """

    primary: str
    transactions: Mapping[str, int]
    cpu: Mapping[str, float]
    clients_cpu: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One cell: one way to read from one set of servers. Times are in seconds, shares from 0 to 1.

    :param rate: transactions a second
    :param read_rate: those of them that read, a second
    :param read_p50: median time of a read
    :param read_p95: time within which 95 of 100 reads were done
    :param write_p50: median time of a transaction that writes
    :param write_p95: time within which 95 of 100 of those were done
    :param primary_transactions: the primary's share of what the servers counted: writes and reads, and questions asked
        for causal tokens
    :param primary_cpu: the primary's share of the servers' processor time; copying to replicas is in it
    :param primary_cost: processor seconds of the primary for 1000 transactions of the clients
    :param servers_cost: the same of all servers
    :param clients_cost: the same of the clients' processes
    :param reads_on_primary: share of the reads
    :param spread: shares of the reads that were not on the primary, of each server that had any, largest first
    :param questions: server transactions that are no transaction of a client, for 1000 of those: asking for and about
        causal tokens, and setting connections up
    :param follows_on_primary: share of the first reads after a user's own write that were on the primary
    :param follows_p50: median time of those reads; nan when there was none
    :param follows_p95: time within which 95 of 100 of them were done; nan when there was none
    """

    rate: float
    read_rate: float
    read_p50: float
    read_p95: float
    write_p50: float
    write_p95: float
    primary_transactions: float
    primary_cpu: float
    primary_cost: float
    servers_cost: float
    clients_cost: float
    reads_on_primary: float
    spread: tuple[float, ...]
    questions: float
    follows_on_primary: float
    follows_p50: float
    follows_p95: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least of `values` that `percent` of 100 of them do not exceed; nan of none.

    :param values: in any order
    :param percent: over 0, up to 100
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def figures_of(done: Iterable[Done], load: Load, began: float, ended: float) -> Figures:
    """Return the figures of one turn.

    :param done: everything the clients did, also before and after the time that is measured
    :param load: of the servers
    :param began: when measuring began, in seconds of the system's monotonic clock
    :param ended: when it ended; a transaction counts if it ended between the two
    :raises ValueError: nothing was read in that time
    """
    everything = list(done)
    counted = [one for one in everything if began <= one.ended < ended]
    reads = [one for one in counted if not one.writes]
    if not reads:
        raise ValueError("nothing was read")
    follows = [one for one in reads if one.follows]
    elsewhere = [one.node for one in reads if one.node != load.primary]
    spread = sorted((elsewhere.count(node) / len(elsewhere) for node in set(elsewhere)), reverse=True)
    served = sum(load.transactions.values())
    thousands = len(counted) / _PER
    return Figures(
        rate=len(counted) / (ended - began),
        read_rate=len(reads) / (ended - began),
        read_p50=percentile(_times(reads), 50),
        read_p95=percentile(_times(reads), 95),
        write_p50=percentile(_times(one for one in counted if one.writes), 50),
        write_p95=percentile(_times(one for one in counted if one.writes), 95),
        primary_transactions=_share(load.transactions[load.primary], served),
        primary_cpu=_share(load.cpu[load.primary], sum(load.cpu.values())),
        primary_cost=load.cpu[load.primary] / thousands,
        servers_cost=sum(load.cpu.values()) / thousands,
        clients_cost=load.clients_cpu / thousands,
        reads_on_primary=_share(len(reads) - len(elsewhere), len(reads)),
        spread=tuple(spread),
        questions=max(0, served - len(everything)) / len(everything) * _PER,
        follows_on_primary=_share(sum(one.node == load.primary for one in follows), len(follows)),
        follows_p50=percentile(_times(follows), 50),
        follows_p95=percentile(_times(follows), 95),
    )


def median_of(turns: Sequence[Figures]) -> Figures:
    """Return the median of each figure, each for itself.

    :param turns: of the same cell, one at least
    """
    values = {
        field.name: statistics.median(getattr(turn, field.name) for turn in turns)
        for field in dataclasses.fields(Figures)
        if field.name != "spread"
    }
    longest = max(len(turn.spread) for turn in turns)
    padded = [(*turn.spread, *(0.0 for _ in range(longest - len(turn.spread)))) for turn in turns]
    spread = tuple(statistics.median(shares) for shares in zip(*padded, strict=True))
    return Figures(spread=spread, **values)


def table(rows: Iterable[tuple[str, Sequence[Figures]]], *, causal: bool) -> str:
    """Return the figures as a table in Markdown: medians, and of some the least and the most.

    :param rows: what to call each, and its turns
    :param causal: whether users honoured causal tokens: more columns then
    """
    heads = [
        "transactions/s",
        "reads/s",
        "read p50, ms",
        "p95",
        "write p50, ms",
        "p95",
        "transactions on the primary",
        "CPU on the primary",
        "primary, CPU s per 1000",
        "all servers",
        "clients",
        "replicas' reads",
    ]
    if causal:
        heads += ["reads on the primary", "of those after a write", "those p50, ms", "p95", "questions per 1000"]
    lines = [f"| | {' | '.join(heads)} |", f"| --- {'| --: ' * len(heads)}|"]
    for name, turns in rows:
        found = median_of(turns)
        cells = [
            _ranged(turns, lambda turn: turn.rate, "{:,.0f}".format),
            f"{found.read_rate:,.0f}",
            *map(_milliseconds, (found.read_p50, found.read_p95, found.write_p50, found.write_p95)),
            _percent(found.primary_transactions),
            _ranged(turns, lambda turn: turn.primary_cpu, _percent),
            _ranged(turns, lambda turn: turn.primary_cost, "{:.2f}".format),
            f"{found.servers_cost:.2f}",
            f"{found.clients_cost:.2f}",
            " / ".join(map(_percent, found.spread)) or "none",
        ]
        if causal:
            cells += [
                _percent(found.reads_on_primary),
                _percent(found.follows_on_primary),
                _milliseconds(found.follows_p50),
                _milliseconds(found.follows_p95),
                f"{found.questions:.0f}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ranged(turns: Sequence[Figures], value: Callable[[Figures], float], shown: Callable[[float], str]) -> str:
    """Return the median, and the least and the most where there are several."""
    values = [value(turn) for turn in turns]
    median = shown(statistics.median(values))
    return median if len(values) == 1 else f"{median} ({shown(min(values))} to {shown(max(values))})"


def _times(done: Iterable[Done]) -> list[float]:
    return [one.ended - one.began for one in done]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{share * 100:.0f} %"


def _milliseconds(seconds: float) -> str:
    return "" if math.isnan(seconds) else f"{seconds * 1e3:.2f}"
