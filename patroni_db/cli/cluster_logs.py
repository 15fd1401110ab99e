"""``patroni-db cluster logs``: what the servers of a local cluster wrote."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from patroni_db.cli.cluster_options import name_option
from patroni_db.cluster import LocalCluster
from patroni_db.cluster.logs import LogFile, chosen_logs, logs_of
from patroni_db.escaping import plain

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["logs"]

_POLL: Final = 0.2


@click.command()
@click.argument("which", nargs=-1, metavar="[LOG]...")
@click.option(
    "-n", "--lines", type=click.IntRange(min=0), default=20, show_default=True, help="The last lines of each."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C or the cluster's end.")
@name_option
def logs(*, which: tuple[str, ...], lines: int, follow: bool, name: str) -> None:
    """Print the logs of a cluster: all, or each LOG.

    LOG is a node (n1), a program (etcd, patroni, postgres) or one log (n1/postgres).
    """
    running = LocalCluster.attach(name)
    control = running.control
    files = {log: LogFile(path) for log, path in chosen_logs(logs_of(running), which).items()}
    width = max(map(len, files)) if len(files) > 1 else 0
    for log, file in files.items():
        _print(log, file.last(lines), width)
    try:
        while follow and control.exists():
            time.sleep(_POLL)
            for log, file in files.items():
                _print(log, file.fresh(), width)
    except KeyboardInterrupt:
        return  # the ordinary end


def _print(log: str, lines: Iterable[str], width: int) -> None:
    prefix = f"{log:<{width}} | " if width else ""
    for line in lines:
        click.echo(prefix + plain(line))
