"""Accounts as Markdown tables, and as JSON. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.accounting import account_of, recovery_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.accounting import Account
    from benchmarks.records import Observation

__all__ = ["Result", "as_json", "overview", "result_of", "table"]

_HEADER = (
    "| client | behind the cluster, s | errors: in flight | in the outage | afterwards | connection attempts "
    "| acknowledged | lost | doubled |\n| --- | --: | --: | --: | --: | --: | --: | --: | --: |"
)
_NEVER = "**never**"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one fault, made once.

    :param fault: its name
    :param outage: seconds from the fault until the cluster could be written to; None when it always could
    :param unwritable: seconds in which it could not: less, where the former primary goes on for a time
    :param accounts: of all clients
    """

    fault: str
    outage: float | None
    unwritable: float
    accounts: tuple[Account, ...]


def result_of(observation: Observation) -> Result:
    """Return what became of the fault."""
    recovery = recovery_of(observation.probes, observation.old, observation.at)
    return Result(
        fault=observation.fault,
        outage=None if recovery is None else recovery.at - observation.at,
        unwritable=0.0 if recovery is None else recovery.outage,
        accounts=tuple(account_of(client, observation) for client in observation.clients),
    )


def table(results: Sequence[Result], labels: Mapping[str, str]) -> str:
    """Return the table of one fault: medians, and in parentheses the worst where it differs.

    :param results: of the same fault and the same clients
    :param labels: of the clients
    """
    lines = [_HEADER]
    for accounts in zip(*(result.accounts for result in results), strict=True):
        cells = [
            labels[accounts[0].client],
            _seconds([account.behind for account in accounts]),
            *(_count(values) for values in _counts(accounts)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def overview(results: Mapping[str, Sequence[Result]], labels: Mapping[str, str], faults: Mapping[str, str]) -> str:
    """Return one table of all faults: seconds behind the cluster.

    :param results: by fault
    :param labels: of the clients
    :param faults: labels of the faults
    """
    names = list(results)
    lines = [
        f"| | {' | '.join(faults[name] for name in names)} |",
        f"| --- | {' | '.join('--:' for _ in names)} |",
        f"| *until the cluster took writes* | {' | '.join(outage(results[name]) for name in names)} |",
    ]
    for client, label in labels.items():
        cells = [
            _seconds([a.behind for r in results[name] for a in r.accounts if a.client == client]) for name in names
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def outage(results: Iterable[Result]) -> str:
    """Return how long it took until the cluster could be written to."""
    values = [result.outage for result in results]
    known = [value for value in values if value is not None]
    return f"{_seconds(known)} s" if known else "no outage"


def as_json(result: Result) -> dict[str, Any]:
    """Return a result as JSON has it: a client that never came back is behind by null."""
    answer = asdict(result)
    for account in answer["accounts"]:
        if math.isinf(account["behind"]):
            account["behind"] = None
    return answer


def _counts(accounts: Iterable[Account]) -> Iterable[tuple[int, ...]]:
    rows = [
        (
            account.errors.in_flight,
            account.errors.in_outage,
            account.errors.afterwards,
            account.attempts,
            account.acknowledged,
            account.lost,
            account.doubled,
        )
        for account in accounts
    ]
    return zip(*rows, strict=True)


def _seconds(values: Sequence[float]) -> str:
    if not values:
        return ""
    median, worst = (_second(value) for value in (statistics.median_low(values), max(values)))
    return median if median == worst else f"{median} ({worst})"


def _second(value: float) -> str:
    # A client can be ahead of the oracle by the oracle's own pace.
    return _NEVER if math.isinf(value) else f"{max(0.0, value):.2f}"


def _count(values: Sequence[int]) -> str:
    median, worst = statistics.median_low(values), max(values)
    return f"{median:,}" if median == worst else f"{median:,} ({worst:,})"
