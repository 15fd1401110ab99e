"""``patroni-db demo``: applications at work through a switchover and a crash, and every write accounted for."""

from __future__ import annotations

import json
from typing import Any, Final

import click
from rich.console import Console

from patroni_db.cli.exits import ExitCode, SettingFailure
from patroni_db.cli.leaving import in_order
from patroni_db.cli.seconds import Seconds
from patroni_db.demo.run import Demo, Settings
from patroni_db.demo.screen import LiveScreen, PlainScreen
from patroni_db.demo.summary import summary
from patroni_db.errors import ClusterError, ConfigError

__all__ = ["demo"]

# The demo itself could not be carried out: nothing is known about writes.
_NOT_CARRIED_OUT: Final = 4

_EPILOG = """\b
Exit codes:
  0    every acknowledged write is there, once, made on the primary of its time
  1    one is not, or the shop's books do not balance
  2    wrong usage, not in a checkout, or something is not installed
  4    the demo could not be carried out
  130  interrupted
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--json", "document", type=click.File("w", lazy=True), metavar="FILE", help="Write the figures there too."
)
@click.option(
    "--seconds",
    type=Seconds(least=1.5, most=3600),
    default=24.0,
    show_default=True,
    help="Calm time in all: a third each before, between and after the faults.",
)
@click.option("--nodes", type=click.IntRange(2, 9), default=3, show_default=True, help="Patroni nodes.")
@click.option(
    "--synchronous/--no-synchronous",
    default=True,
    show_default=True,
    help="Whether a commit is acknowledged only when a replica has it too. Without, a crash may lose some.",
)
def demo(*, document: Any, seconds: float, nodes: int, synchronous: bool) -> int:
    """See applications live through failovers.

    Starts a real Patroni cluster on this machine, runs Django and SQLAlchemy clients of the example project on
    it, switches over, kills the primary's PostgreSQL, and then looks for every write in the surviving primary.
    """
    console = Console(highlight=False)
    course = Demo(Settings(nodes=nodes, synchronous=synchronous, seconds=seconds))
    screen: LiveScreen | PlainScreen = (
        LiveScreen(console, course.stage) if console.is_terminal else PlainScreen(console, course.stage.began)
    )
    try:
        with in_order(), screen:
            report = course.run(screen)
    except ConfigError as exc:
        raise SettingFailure(str(exc)) from exc
    except ClusterError as exc:
        click.echo(f"patroni-db: {exc}", err=True)
        return _NOT_CARRIED_OUT
    console.print(summary(report))
    if document is not None:
        json.dump(report.to_json(), document, indent=2)
        document.write("\n")
    return ExitCode.OK if report.passed else ExitCode.NOT_MET
