"""``patroni-db status``: one look at the cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from patroni_db.cli.document import status_document
from patroni_db.cli.exits import EPILOG, ExitCode, warn
from patroni_db.cli.output import console_for, json_option, print_json, told_as_json
from patroni_db.cli.settings import config_options
from patroni_db.cli.view import View, look

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig

__all__ = ["check_option", "status"]

check_option = click.option(
    "--check/--no-check",
    default=True,
    help="Ask each member itself too; the cluster's list names a dead leader until its ttl is over.  [default: check]",
)


@click.command(epilog=EPILOG)
@config_options()
@check_option
@json_option
@click.pass_context
def status(context: click.Context, *, config: PatroniConfig, check: bool, as_json: bool) -> None:
    """Show the members, who is primary, and what is wrong.

    Exits with 1 when nobody leads, or the leader does not confirm it.
    """
    view: View = told_as_json(lambda: look(config, check=check), as_json=as_json)
    for failure in view.failures:
        warn(str(failure))
    if as_json:
        print_json(status_document(view))
    else:
        from patroni_db.cli.render import ViewDisplay  # noqa: PLC0415 - tables are not needed for JSON

        console_for(sys.stdout).print(ViewDisplay(view))
    context.exit(ExitCode.OK if view.leads else ExitCode.NOT_MET)
