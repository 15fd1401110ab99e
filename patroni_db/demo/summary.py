"""The figures as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from patroni_db.demo.history import FaultKind
from patroni_db.demo.pulse import bars
from patroni_db.demo.report import Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from patroni_db.demo.checker import Finding
    from patroni_db.demo.outages import Gap
    from patroni_db.demo.report import Report

__all__ = ["summary"]

_NAME = 25
_SHOWN_FINDINGS = 5
# Characters that the time behind the cluster takes, a blank before it included.
_BEHIND = 6
_FAULT_NAMES = {FaultKind.SWITCHOVER: "switchover", FaultKind.FAILOVER: "crash"}


def summary(report: Report) -> RenderableType:
    """Return what is shown at the end."""
    parts: list[RenderableType] = [
        _title(report),
        Text(),
        _pulses(report),
        Text(),
        _table(report),
        Text(),
        _legend(),
        Text(),
        _account(report),
        *_problems(report),
        Text(),
        _verdict(report),
        Text(),
    ]
    return Padding(Group(*parts), (1, 0, 0, 0), expand=False)


def _title(report: Report) -> Text:
    kind = report.cluster
    replication = "synchronous" if kind["synchronous"] else "asynchronous"
    text = Text("Applications on a Patroni cluster, through a switchover and a crash", "bold")
    text.append(
        f"\n{kind['nodes']} nodes, {replication} replication; measured for {report.ended - report.began:.0f} s", "dim"
    )
    text.append(f"\nPatroni {kind['patroni']}, Django {kind['django']}, SQLAlchemy {kind['sqlalchemy']}", "dim")
    return text


def _pulses(report: Report) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(min_width=_NAME, no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_row(Text("  the cluster itself", "italic green"), bars(report.pulse, "green"))
    for client in report.clients:
        table.add_row(f"  {client.spec.label}", bars(client.pulse, "cyan" if client.spec.writes else "blue"))
    table.add_row("", _marks(report))
    return table


def _marks(report: Report) -> Text:
    """Return the faults' names below the moments they happened."""
    cells = len(report.pulse)
    line = ""
    for fault in report.faults:
        position = min(int((fault.at - report.began) / (report.ended - report.began) * cells), cells - 1)
        name = _FAULT_NAMES[fault.kind]
        # On the left of its arrow where it would run over the end.
        label = f"↑ {name}" if position + len(name) + 2 <= cells else f"{name} ↑"
        start = position if label.startswith("↑") else position - len(label) + 1
        line = line.ljust(max(start, 0)) + label + " "
    return Text(line.rstrip(), "dim", no_wrap=True)


def _table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("  Time without success", min_width=_NAME - 2, no_wrap=True)
    table.add_column("done", justify="right")
    for fault in report.faults:
        table.add_column(_FAULT_NAMES[fault.kind], justify="right", no_wrap=True)
    table.add_column("failed\nin flight", justify="right")
    table.add_column("failed\nlater", justify="right")
    clusters = [outage.gap if outage else None for outage in report.outages]
    own = [_seconds(gap).append(" " * _BEHIND) for gap in clusters]
    table.add_row(Text("  the cluster itself", "italic green"), "", *own, "", "", end_section=True)
    for client in report.clients:
        gaps = [
            _seconds(gap).append(_behind(gap, cluster) if client.spec.writes else " " * _BEHIND, "dim")
            for gap, cluster in zip(client.outages, clusters, strict=True)
        ]
        late = client.errors[Moment.DURING_OUTAGE] + client.errors[Moment.OTHERWISE]
        failed = _number(client.errors[Moment.IN_FLIGHT], "yellow"), _number(late, "bold red")
        table.add_row(f"  {client.spec.label}", f"{client.succeeded:,}", *gaps, *failed)
    return table


def _seconds(gap: Gap | None) -> Text:
    if gap is None or not gap.closed:
        return Text("never", "bold red")
    return Text(f"{gap.seconds:.2f} s")


def _behind(gap: Gap | None, cluster: Gap | None) -> str:
    """Return by how much a client's outage was longer than the cluster's own, in `_BEHIND` characters."""
    if gap is None or cluster is None or not (gap.closed and cluster.closed):
        return " " * _BEHIND
    return f"{gap.seconds - cluster.seconds:+{_BEHIND}.2f}"


def _number(number: int, style: str) -> Text:
    return Text(f"{number:,}", style if number else "dim")


def _legend() -> Text:
    return Text(
        "  Each client's slowest thread or task, and how much longer than the cluster\n"
        "  itself, where no node took a write sent by psycopg alone. In flight: begun\n"
        "  before the primary went. Later: should have waited for the next; must be 0.",
        "dim",
    )


def _account(report: Report) -> Table:
    verdict, books = report.verdict, report.books
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    writes = Text(f"{verdict.acknowledged:,} acknowledged: ")
    for count, word in (
        (len(verdict.lost), "lost"),
        (len(verdict.duplicated), "duplicated"),
        (len(verdict.wrong_node), "on a wrong node"),
    ):
        writes.append(f"{count:,} {word}", "bold red" if count else "green")
        writes.append(", ")
    writes.right_crop(2)
    table.add_row("  Writes", writes)
    if verdict.unknown:
        absent = verdict.unknown - verdict.unknown_stored
        known = f"{verdict.unknown:,} ended in an error: {verdict.unknown_stored:,} of them stored, {absent:,} not"
        table.add_row("", Text(known))
    stock = f"{books.stock_before:,} pieces - {books.sold:,} in {books.orders:,} orders"
    line = Text(f"{stock} = {books.stock_after:,} left" if books.balanced else f"{stock}, but ")
    if not books.balanced:
        line.append(f"{books.stock_after:,} left and {books.half_written:,} orders half written", "bold red")
    table.add_row("  Books", line)
    reads = sum(report.reads.values())
    shares = ", ".join(f"{node} {count:,}" for node, count in report.reads.items())
    table.add_row("  Reads", Text(f"{reads:,} answered: {shares}"))
    reigns = " → ".join(f"{reign.node} (timeline {reign.timeline})" for reign in report.primaries)
    table.add_row("  Primaries", Text(reigns))
    return table


def _problems(report: Report) -> Iterable[RenderableType]:
    verdict = report.verdict
    for title, findings in (
        ("Lost", verdict.lost),
        ("Duplicated", verdict.duplicated),
        ("On a wrong node", verdict.wrong_node),
        ("Unexplained", verdict.unexplained),
    ):
        yield from _findings(title, findings)
    for client in report.clients:
        if client.errors[Moment.DURING_OUTAGE] or client.errors[Moment.OTHERWISE]:
            yield Text(f"\n  Errors of {client.spec.label}", "yellow")
            for message, count in list(client.messages.items())[:_SHOWN_FINDINGS]:
                yield Text(f"    {count:,} x {message}")


def _findings(title: str, findings: Sequence[Finding]) -> Iterable[RenderableType]:
    if findings:
        yield Text(f"\n  {title}", "bold red")
        for finding in findings[:_SHOWN_FINDINGS]:
            yield Text(f"    {finding.reference} ({finding.client or 'nobody'}): {finding.problem}")
        if len(findings) > _SHOWN_FINDINGS:
            yield Text(f"    and {len(findings) - _SHOWN_FINDINGS:,} more")


def _verdict(report: Report) -> Text:
    if not report.passed:
        return Text("✗ Not every write is as it must be.", "bold red")
    text = Text("✓ Every acknowledged write is there, once, made on the primary of its time.", "bold green")
    if not report.errors(Moment.DURING_OUTAGE) and not report.errors(Moment.OTHERWISE):
        text.append("\n✓ Nothing that began while there was no primary failed: it waited.", "bold green")
    return text
