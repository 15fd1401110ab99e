"""The root of ``patroni-db``: its subcommands, each imported when it is used, and what becomes of their errors."""

from __future__ import annotations

import importlib
import io
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from patroni_db import __version__
from patroni_db.cli.exits import EPILOG, DiscoveryFailure, ExitCode, Failure, SettingFailure
from patroni_db.errors import ConfigError, DiscoveryError, PatroniError
from patroni_db.escaping import plain, without_passwords

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["app", "run"]

_PROGRAM: Final = "patroni-db"


class _Lazy(NamedTuple):
    """A subcommand that is not imported yet."""

    module: str
    attribute: str
    help: str
    extra: str


_COMMANDS: Final[Mapping[str, _Lazy]] = {
    "status": _Lazy("patroni_db.cli.status", "status", "Show the cluster and who is primary.", "cli"),
    "watch": _Lazy("patroni_db.cli.watch", "watch", "Show the cluster live, and what changes.", "cli"),
    "dsn": _Lazy("patroni_db.cli.dsn", "dsn", "Print a connection string for the primary or a replica.", "cli"),
    "wait": _Lazy("patroni_db.cli.wait", "wait", "Wait until there is a primary, or replicas.", "cli"),
    "prune-markers": _Lazy("patroni_db.cli.prune", "prune_markers", "Forget commit markers of long ago.", "cli"),
    "cluster": _Lazy("patroni_db.cli.cluster", "cluster", "Run a real Patroni cluster on this machine.", "cluster"),
    "demo": _Lazy("patroni_db.cli.demo", "demo", "See applications live through failovers.", "cluster"),
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and imports only the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = _COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        try:
            command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        except ImportError as exc:  # also of libpq, which psycopg needs
            return _unavailable(cmd_name, lazy, exc)
        if not isinstance(command, click.Command):
            message = f"{lazy.module}.{lazy.attribute} is no command"
            raise TypeError(message)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in _COMMANDS.items()])


def _unavailable(name: str, lazy: _Lazy, cause: ImportError) -> click.Command:
    """Return a command that says what is missing: help and completion must work without it."""
    missing = " ".join(str(cause).split())

    def say(**_ignored: Any) -> None:
        raise SettingFailure(f"'{name}' is not available ({missing}): pip install 'patroni-db[{lazy.extra}]'")

    return click.Command(
        name,
        callback=say,
        params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        help=f"{lazy.help} Not available: {missing}.",
    )


@click.group(
    _PROGRAM,
    cls=_LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name=_PROGRAM, message="%(prog)s %(version)s")
def app() -> None:
    """Look at a Patroni cluster, find its primary, wait for it, or run one on this machine.

    Where to ask is told by --url, or by the environment variable PATRONI_API_URL.
    """


def run(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In a locale without UTF-8 a member's name must not end in a traceback.
            stream.reconfigure(errors="backslashreplace")
    # What the library would log is shown by the commands themselves.
    logging.getLogger("patroni_db").addHandler(logging.NullHandler())
    try:
        result = app.main(list(arguments), prog_name=_PROGRAM, standalone_mode=False)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as exc:
        _show(exc)
        return exc.exit_code
    except PatroniError as exc:
        failure = _failure(exc)
        failure.show()
        return failure.exit_code
    return result if isinstance(result, int) else ExitCode.OK


def _show(error: click.ClickException) -> None:
    """Print an error. click repeats what it does not understand, which may be a URL in the wrong place."""
    if isinstance(error, Failure):  # our own
        error.show()
        return
    told = io.StringIO()
    error.show(told)
    click.echo("\n".join(plain(without_passwords(line)) for line in told.getvalue().rstrip().split("\n")), err=True)


def _failure(error: PatroniError) -> Failure:
    if isinstance(error, ConfigError):
        return SettingFailure(str(error))
    return DiscoveryFailure(error) if isinstance(error, DiscoveryError) else Failure(str(error))
