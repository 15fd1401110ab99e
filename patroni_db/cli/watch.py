"""``patroni-db watch``: the cluster as it changes."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from patroni_db.cli.changes import changes
from patroni_db.cli.document import error_document, status_document
from patroni_db.cli.exits import EPILOG, DiscoveryFailure
from patroni_db.cli.leaving import in_order
from patroni_db.cli.observer import Observer
from patroni_db.cli.output import console_for, json_option, print_json
from patroni_db.cli.render import ViewDisplay
from patroni_db.cli.settings import config_options, setting
from patroni_db.cli.status import check_option
from patroni_db.cli.text import age
from patroni_db.escaping import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from patroni_db.cli.view import View
    from patroni_db.config import PatroniConfig
    from patroni_db.errors import DiscoveryError

__all__ = ["watch"]

_KEPT: Final = 100
_REFRESHES: Final = 4  # a second


class _Screen(Protocol):
    """Where what is seen goes."""

    def show(self, view: View | None, seen: float, failure: DiscoveryError | None, news: tuple[str, ...]) -> None:
        """Show the outcome of one look.

        :param view: the last good view
        :param seen: its age in seconds
        :param failure: why the look failed
        :param news: what changed since the look before, in words
        """


@click.command(epilog=EPILOG)
@setting("--interval", "patroni_refresh", metavar="SECONDS", help="Between two looks; 1 by default.")
@config_options(patroni_refresh=1.0)
@check_option
@json_option
def watch(*, config: PatroniConfig, check: bool, as_json: bool) -> None:
    """Show the cluster live, and what changes, until Ctrl-C.

    While no API answers, the last good view stays, with its age. On a terminal it is one picture that renews
    itself; into a pipe it is a line for each change, with --json a document for each.
    """
    console = console_for(sys.stdout)
    live = console.is_terminal and not console.is_dumb_terminal and not as_json
    try:
        with in_order(), Observer(config, check=check) as observer:
            if live:
                picture = _Picture()
                with Live(picture, console=console, refresh_per_second=_REFRESHES, vertical_overflow="crop"):
                    _follow(observer, picture, config.refresh)
            else:
                _follow(observer, _JsonLines() if as_json else _Lines(console), config.refresh)
    except KeyboardInterrupt:
        return  # the way to end it


def _follow(observer: Observer, screen: _Screen, interval: float) -> None:
    before: View | None = None
    failing = False
    while True:
        view = observer.look()
        failure = observer.failure
        if view is None and failure is not None and not failure.transient:
            raise DiscoveryFailure(failure)
        news = [] if before is None or view is None else [*changes(before, view)]
        if (failure is not None) != failing:
            failing = failure is not None
            news.append(f"no API answers: {_why(failure)}" if failure else "the API answers again")
        screen.show(view, observer.age, failure, tuple(news))
        before = view
        time.sleep(interval)


class _Picture:
    """One picture of the cluster, with the latest changes, whose ages grow between the looks."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._seen_at = time.monotonic()
        self._failure: DiscoveryError | None = None
        self._news: deque[tuple[str, str]] = deque(maxlen=_KEPT)

    def show(self, view: View | None, seen: float, failure: DiscoveryError | None, news: tuple[str, ...]) -> None:
        self._seen_at = time.monotonic() - seen
        self._failure = failure
        self._news.extend((_clock_time(), text) for text in news)
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render what is known now."""
        view, failure = self._view, self._failure
        if view is None:
            yield Text(f"No answer yet: {_why(failure)}", "red") if failure else Text("Looking ...", "dim")
            return
        yield ViewDisplay(view)
        yield Text("")
        seen = age(time.monotonic() - self._seen_at)
        if failure is not None:
            yield Text(f"No API answers. The view is {seen} old.", "bold red")
            for each in failure.failures or (failure,):
                yield Text(plain(str(each)), "red")
        else:
            yield Text(f"Seen {seen} ago. Ctrl-C ends.", "dim")
        latest = list(self._news)[-self._room(console, view) :]
        if latest:
            yield Text("")
            yield Group(
                *(Text.assemble((f"{at}  ", "dim"), text, overflow="ellipsis", no_wrap=True) for at, text in latest)
            )

    def _room(self, console: Console, view: View) -> int:
        """Return how many lines of changes fit under the table; always a few."""
        taken = len(view.topology.members) + 10
        return max(3, min(_KEPT, console.size.height - taken))


class _Lines:
    """The view once, then a line for each change: for pipes, files and dumb terminals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = False

    def show(self, view: View | None, seen: float, failure: DiscoveryError | None, news: tuple[str, ...]) -> None:
        if view is not None and not self._shown:
            self._shown = True
            self._console.print(ViewDisplay(view))
            self._console.print("")
        for text in news:
            self._console.print(Text(f"{_clock_time()}  {text}"), soft_wrap=True)
        self._console.file.flush()


class _JsonLines:
    """A document, in one line, for the first look and each that shows a change."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, view: View | None, seen: float, failure: DiscoveryError | None, news: tuple[str, ...]) -> None:
        if not news and self._shown:
            return
        document: dict[str, Any] = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "changes": list(news),
            "age": round(seen, 3) if view else None,
            "cluster": status_document(view) if view else None,
            **(error_document(failure) if failure else {"error": None, "failures": []}),
        }
        self._shown = True
        print_json(document, lines=True)


def _why(failure: DiscoveryError) -> str:
    return plain("; ".join(str(each) for each in failure.failures or (failure,)))


def _clock_time() -> str:
    return dt.datetime.now(dt.UTC).astimezone().strftime("%H:%M:%S")
