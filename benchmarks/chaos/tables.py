"""Findings as tables, for a terminal or a file."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from benchmarks.chaos.clients import CLIENTS
from patroni_db.demo.report import Moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from benchmarks.chaos.verdict import Failure, Findings, History, Rules

__all__ = ["show"]

# Of errors that are alike, and of violations.
_SHOWN = 12

_TITLES = {Moment.IN_FLIGHT: "in flight", Moment.DURING_OUTAGE: "in an outage", Moment.OTHERWISE: "afterwards"}


def show(console: Console, seed: int, history: History, findings: Findings, rules: Rules) -> None:
    """Print what was found."""
    for part in _parts(seed, history, findings, rules):
        console.print(part)


def _parts(seed: int, history: History, findings: Findings, rules: Rules) -> Iterator[RenderableType]:
    yield ""
    yield _clients(history, findings)
    outages = [outage.gap.seconds for outage in findings.write_outages]
    kinds = collections.Counter(incident.kind for incident in history.incidents)
    yield f"{len(history.incidents)} faults in {history.ended - history.began:.0f} s: " + ", ".join(
        f"{count} {kind}" for kind, count in sorted(kinds.items())
    )
    longest = max(outages, default=0.0)
    yield f"the cluster itself took no writes for {sum(outages):.1f} s in all, {longest:.1f} s at most"
    writes = findings.writes
    yield (
        f"{writes.acknowledged:,} acknowledged writes: {len(writes.lost)} lost, {len(writes.duplicated)} doubled, "
        f"{len(writes.wrong_node)} on a wrong node; {writes.unknown} of unknown outcome, "
        f"{writes.unknown_stored} of them stored"
    )
    if writes.lost and not rules.synchronous:
        yield "with asynchronous replication a crash may lose what only the dead primary had, whatever a client does"
    yield from _errors(history, findings)
    for finding in findings.violations[:_SHOWN]:
        at = "" if finding.at is None else f" at {finding.at - history.began:.1f} s"
        yield Text(f"VIOLATION ({finding.rule}) {finding.client or ''}{at}: {finding.text}", "bold red")
    if len(findings.violations) > _SHOWN:
        yield Text(f"and {len(findings.violations) - _SHOWN} more, in history.jsonl", "bold red")
    if findings.violations:
        yield Text(f"seed {seed}: {len(findings.violations)} violations", "bold red")
    else:
        yield Text(f"seed {seed}: no violation", "bold green")


def _clients(history: History, findings: Findings) -> Table:
    labels = {application.name: application.label for application in CLIENTS}
    before = {census.client: census for census in history.before}
    after = {census.client: census for census in history.after}
    table = Table()
    table.add_column("client")
    columns = ("succeeded", "worst behind, s", *(f"errors {title}" for title in _TITLES.values()))
    for title in (*columns, "threads", "descriptors", "sessions"):
        table.add_column(title, justify="right")
    for account in findings.accounts:
        was, now = before.get(account.client), after.get(account.client)
        held = ("", "", "")
        if was is not None and now is not None:
            held = (
                f"{was.threads} → {now.threads}",
                f"{was.descriptors} → {now.descriptors}",
                f"{was.sessions} → {now.sessions}",
            )
        errors = (f"{account.errors[moment]:,}" for moment in _TITLES)
        table.add_row(labels[account.client], f"{account.succeeded:,}", f"{account.behind:.2f}", *errors, *held)
    return table


def _errors(history: History, findings: Findings) -> Iterator[str]:
    """Tell the errors of transactions that began when there was, or already had been, a fault."""
    late = [failure for failure in findings.failures if failure.moment is not Moment.IN_FLIGHT]
    alike: dict[tuple[str, Moment, str], list[Failure]] = collections.defaultdict(list)
    for failure in late:
        key = (failure.operation.client, failure.moment, (failure.operation.error or "")[:100])
        alike[key].append(failure)
    for (client, moment, message), failures in list(alike.items())[: 2 * _SHOWN]:
        at = failures[0].operation.began - history.began
        times = f"{len(failures)} times, first" if len(failures) > 1 else "once,"
        yield f"error {_TITLES[moment]}, {times} at {at:.1f} s, {client}: {message}"
    if len(alike) > 2 * _SHOWN:
        yield f"and {len(alike) - 2 * _SHOWN} more kinds of errors, in history.jsonl"
