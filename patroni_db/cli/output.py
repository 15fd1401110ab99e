"""Where output goes: a person's terminal, a pipe, or a program that reads JSON."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any, Final

import click
from rich.console import Console

from patroni_db.cli.document import error_document, json_text
from patroni_db.cli.exits import DiscoveryFailure
from patroni_db.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["console_for", "json_option", "print_json", "told_as_json"]

# A pipe has no width: lines must not be wrapped or cut for a terminal that is not there.
_UNBOUNDED: Final = 1000


def console_for(stream: IO[str]) -> Console:
    """Return a console on `stream` that prints text as it is; with colour only on a terminal, NO_COLOR respected."""
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def print_json(document: Mapping[str, Any], *, lines: bool = False) -> None:
    """Print `document` on stdout: indented, or with `lines` in one line."""
    click.echo(json_text(document, indent=None if lines else 2))
    sys.stdout.flush()


def told_as_json(call: Callable[[], Any], *, as_json: bool) -> Any:
    """Return the result of `call`; a failed discovery ends the command, told as JSON too if wanted.

    :raises DiscoveryFailure: no API gave a usable answer
    """
    try:
        return call()
    except DiscoveryError as exc:
        if as_json:
            print_json(error_document(exc))
        raise DiscoveryFailure(exc) from exc


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (described in docs/cli.md).")
