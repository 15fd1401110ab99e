"""The demo while it runs: live on a terminal, in plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from patroni_db.demo.pulse import bars
from patroni_db.demo.stage import StepState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from patroni_db.demo.stage import ClientView, Stage, Step

__all__ = ["LiveScreen", "PlainScreen"]

_REFRESH = 8
# Columns that everything beside the bars takes, and the bars themselves.
_BESIDE = 58
_FEWEST_CELLS, _MOST_CELLS = 16, 60
_CELL = 0.5
# Seconds without success that are worth a word; a healthy lane has some dozens of successes in that time.
_NOTICEABLE = 0.5
_NAME = 24


class PlainScreen:
    """One line for each piece of news, with the seconds since the beginning.

    :param console: where they go
    :param began: the beginning, on the monotonic clock
    """

    def __init__(self, console: Console, began: float) -> None:
        self._console = console
        self._began = began

    def __enter__(self) -> Self:
        """Return the screen itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing: what was printed stays."""

    def step(self, step: Step) -> None:
        """Print the step's title when it begins, its news, and how long it took."""
        if step.state is StepState.DONE:
            self._print(f"  done in {step.ended - step.began:.1f} s")
        else:
            self._print(f"  {step.note}" if step.note else step.title)

    def watch(self, stage: Stage) -> None:
        """Name the clients."""
        self._print("  at work: " + ", ".join(f"{view.spec.label} x{view.spec.lanes}" for view in stage.clients))

    def _print(self, text: str) -> None:
        self._console.print(
            f"{time.monotonic() - self._began:6.1f} s  {text}", markup=False, highlight=False, soft_wrap=True
        )


class LiveScreen:
    """Everything at once, several times a second, on a terminal. It leaves no trace when it ends.

    :param console: the terminal
    :param stage: what is going on
    """

    def __init__(self, console: Console, stage: Stage) -> None:
        self._stage = stage
        self._spinner = Spinner("dots", style="cyan")
        self._watching = False
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=_REFRESH, transient=True, screen=False
        )

    def __enter__(self) -> Self:
        """Take the terminal."""
        self._live.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Give it back."""
        self._live.stop()

    def step(self, step: Step) -> None:
        """Nothing to do: the next picture shows it."""

    def watch(self, stage: Stage) -> None:
        """Show the clients too."""
        self._watching = True

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [Text(), self._steps()]
        if self._watching:
            parts += [Text(), self._members(), Text(), self._clients()]
        return Padding(Group(*parts), (0, 1))

    def _steps(self) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column()
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        for step in self._stage.steps:
            if step.state is StepState.DONE:
                took = Text(f"{step.ended - step.began:.1f} s", "dim")
                table.add_row(Text("✓", "green"), Text(step.title), took, Text(step.note, "dim"))
            elif step.state is StepState.UNDER_WAY:
                took = Text(f"{now - step.began:.1f} s", "cyan")
                table.add_row(self._spinner, Text(step.title, "bold"), took, Text(step.note, "cyan"))
            else:
                table.add_row(Text("·", "dim"), Text(step.title, "dim"), "", "")
        return table

    def _members(self) -> Table:
        table = Table.grid(padding=(0, 2))
        topology = self._stage.watch.topology if self._stage.watch else None
        for member in topology.members if topology else ():
            style = "bold green" if member.is_leader else ""
            lag = "" if member.is_leader or member.lag is None else f"{member.lag:,} bytes behind"
            state = Text(member.state or "?", "" if member.state in ("running", "streaming") else "yellow")
            table.add_row(
                Text(("● " if member.is_leader else "○ ") + member.name, style),
                Text(member.role.replace("_", " ") or "?", style),
                state,
                Text(member.host or "", "dim"),
                Text(f"timeline {member.timeline or '?'}", "dim"),
                Text(lag, "dim"),
            )
        return table

    def _clients(self) -> Table:
        now = time.monotonic()
        cells = min(max(self._live.console.width - _BESIDE, _FEWEST_CELLS), _MOST_CELLS)
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("", min_width=_NAME, no_wrap=True)
        table.add_column(f"last {cells * _CELL:.0f} s", min_width=cells, no_wrap=True, justify="right")
        table.add_column("/s", justify="right", min_width=3)
        table.add_column("done", justify="right")
        table.add_column("errors", justify="right")
        table.add_column("", no_wrap=True, min_width=13)
        table.add_row(Text("the cluster itself", "italic green"), "", "", "", "", self._clusters_outage(now))
        for view in self._stage.clients:
            table.add_row(*self._client(view, now, cells))
        return table

    def _clusters_outage(self, now: float) -> Text:
        latest = self._stage.oracle.last_success() if self._stage.oracle else None
        if latest is None or now - latest < _NOTICEABLE:
            return Text("up", "green")
        return Text(f"down {now - latest:.1f} s", "bold red")

    def _client(self, view: ClientView, now: float, cells: int) -> tuple[RenderableType, ...]:
        counts = view.pulse(now, cells, _CELL)
        waiting = view.waiting(now)
        errors = view.reader.errors
        return (
            view.spec.label,
            bars(counts, "cyan" if view.spec.writes else "blue"),
            f"{sum(counts[-3:-1]) / (2 * _CELL):,.0f}",
            f"{view.reader.operations:,}",
            Text(str(errors), "yellow" if errors else "dim"),
            Text(f"waits {waiting:.1f} s", "red") if waiting > _NOTICEABLE else Text("at work", "green"),
        )
