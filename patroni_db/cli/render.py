"""Views as something a person likes to look at. Makes renderables; prints nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from patroni_db.cli.text import size, tags
from patroni_db.errors import DiscoveryError
from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from patroni_db.cli.view import View
    from patroni_db.topology import Member, ScheduledSwitchover

__all__ = ["ViewDisplay", "headline", "planned"]

_STATE_STYLES: Final = {
    "running": "green",
    "streaming": "green",
    "in archive recovery": "green",
    "starting": "yellow",
    "restarting": "yellow",
    "stopping": "yellow",
    "creating replica": "yellow",
    "initializing new cluster": "yellow",
    "running custom bootstrap script": "yellow",
}
_MUCH_LAG: Final = 16 << 20  # one WAL segment
_UNBOUNDED: Final = 10_000
_HEADINGS: Final = ("MEMBER", "ROLE", "STATE", "ADDRESS", "LAG", "TL")
_RIGHT: Final = frozenset({"LAG", "TL"})
_TAGS: Final = "TAGS"
_RULED: Final = box.SIMPLE_HEAD
_RULED_ASCII: Final = box.Box(str(_RULED).replace("─", "-"), ascii=True)


class ViewDisplay:
    """A view as header, notes and table; narrower terminals get the tags below it, narrow ones a list of blocks.

    :param view: what to show
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render for the width and the character set at hand."""
        marker = "*" if options.ascii_only else "★"
        yield headline(self._view)
        yield from _notes(self._view)
        yield Text("")
        wide, narrow = (_table(self._view, marker, options, with_tags=tagged) for tagged in (True, False))
        if _fits(console, options, wide):
            yield wide
        elif _fits(console, options, narrow):
            yield narrow
            yield from _tags_below(self._view)
        else:
            yield from _blocks(self._view, marker)
        yield from _problems(self._view)


def _fits(console: Console, options: ConsoleOptions, table: Table) -> bool:
    unbounded = options.update(max_width=_UNBOUNDED)
    return Measurement.get(console, unbounded, table).maximum <= options.max_width


def headline(view: View) -> Text:
    """Return the line that says it all: which cluster, who is primary, how many replicas, which timeline."""
    topology = view.topology
    text = Text.assemble("Cluster ", (plain(topology.scope or "(unnamed)"), "bold"), ": ")
    leader = topology.leader
    if leader is None:
        text.append("no leader", "bold red")
    else:
        text.append("standby cluster, leader " if leader.is_standby_leader else "primary ")
        text.append(plain(leader.name), "bold green" if view.leads else "bold red")
        doubt = view.doubt(leader)
        if doubt:
            text.append(f" ({plain(doubt)})", "bold red")
    others = len(topology.members) - (leader is not None)
    text.append(f", {others} {'replica' if others == 1 else 'replicas'}")
    if topology.timeline is not None:
        text.append(f", timeline {topology.timeline}")
    return text


def planned(switchover: ScheduledSwitchover) -> str:
    """Return a planned switchover in words."""
    words = [f"at {switchover.at}" if switchover.at else "soon"]
    if switchover.from_:
        words.append(f"from {switchover.from_}")
    if switchover.to:
        words.append(f"to {switchover.to}")
    return plain(" ".join(words))


def _notes(view: View) -> Iterator[RenderableType]:
    yield Text(f"Seen through {view.source}", "dim")
    if view.topology.paused:
        yield Text("Paused (maintenance mode): Patroni makes no failover by itself.", "yellow")
    if view.topology.scheduled_switchover:
        yield Text(f"Switchover scheduled {planned(view.topology.scheduled_switchover)}.", "yellow")


def _table(view: View, marker: str, options: ConsoleOptions, *, with_tags: bool) -> Table:
    members = view.topology.members
    with_tags = with_tags and any(member.tags for member in members)
    ruled = _RULED_ASCII if options.ascii_only else _RULED
    table = Table(box=ruled, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in (*_HEADINGS, *([_TAGS] if with_tags else [])):
        table.add_column(heading, justify="right" if heading in _RIGHT else "left", no_wrap=True)
    for member in members:
        table.add_row(*_cells(view, member, marker), *([_tags(member)] if with_tags else []))
    return table


def _cells(view: View, member: Member, marker: str) -> list[Text]:
    leads = member is view.topology.leader
    style = "bold" if leads else ""
    address = view.address_of(member)
    mark = (f"{marker} ", "bold green" if view.leads else "bold red") if leads else "  "
    return [
        Text.assemble(mark, (plain(member.name), style)),
        Text(plain(member.role.replace("_", " ")) or "?", style),
        _state(view, member),
        Text(plain(str(address)) if address else "-"),
        _lag(member),
        Text("-" if member.timeline is None else str(member.timeline)),
    ]


def _tags(member: Member) -> Text:
    return Text(tags(member.tags), "dim")


def _state(view: View, member: Member) -> Text:
    doubt = view.doubt(member)
    text = Text(plain(member.state) or "?", "red" if doubt else _STATE_STYLES.get(member.state, "red"))
    if doubt:
        text.append(f" ({plain(doubt)})", "bold red")
    return text


def _lag(member: Member) -> Text:
    if member.is_leader or member.is_standby_leader:
        return Text("-" if member.lag is None else size(member.lag))
    if member.lag is None:
        return Text("unknown", "yellow")
    return Text(size(member.lag), "yellow" if member.lag > _MUCH_LAG else "")


def _tags_below(view: View) -> Iterator[Text]:
    yield Text("")
    for member in view.topology.members:
        if member.tags:
            yield Text.assemble(f"{plain(member.name)} tags ", _tags(member), overflow="fold")


def _blocks(view: View, marker: str) -> Iterator[Text]:
    for member in view.topology.members:
        name, role, state, *rest = _cells(view, member, marker)
        yield Text(" ", overflow="fold").join([name, role, state])
        for heading, cell in zip((*_HEADINGS[3:], _TAGS), (*rest, _tags(member)), strict=True):
            if cell and cell.plain != "-":
                yield Text.assemble(f"  {heading.lower()} ", cell, overflow="fold")


def _problems(view: View) -> Iterator[RenderableType]:
    problems = [(name, str(answer)) for name, answer in view.answers.items() if isinstance(answer, DiscoveryError)]
    problems += [(member.name, f"refused: {why}") for member in view.topology.members for why in member.refused]
    if problems:
        yield Text("")
    for name, problem in problems:
        yield Text(plain(f"{name}: {problem}"), "red")
