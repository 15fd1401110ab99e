"""Options that the commands of ``patroni-db cluster`` share."""

from __future__ import annotations

import click

from patroni_db.cluster.registry import DEFAULT_NAME

__all__ = ["json_option", "name_option"]

name_option = click.option(
    "--name", default=DEFAULT_NAME, show_default=True, metavar="NAME", help="Which cluster, when several run."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
