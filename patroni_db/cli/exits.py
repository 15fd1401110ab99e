"""The exit codes of ``patroni-db``, and the errors that end a command with one of them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

import click

from patroni_db.escaping import plain

if TYPE_CHECKING:
    from patroni_db.errors import DiscoveryError

__all__ = ["EPILOG", "DiscoveryFailure", "ExitCode", "Failure", "SettingFailure", "warn"]


class ExitCode(enum.IntEnum):
    """What the exit code tells."""

    OK = 0
    NOT_MET = 1
    USAGE = 2
    DISCOVERY_FAILED = 3
    INTERRUPTED = 130


EPILOG: Final = """\b
Exit codes:
  0    it worked, and what was asked for is there
  1    it is not there: no primary, no eligible server, the time is up
  2    wrong usage, or a wrong setting
  3    no Patroni API gave a usable answer
  130  interrupted
"""


class Failure(click.ClickException):
    """Ends the command with one line on stderr and :attr:`ExitCode.NOT_MET`."""

    exit_code = ExitCode.NOT_MET

    def show(self, file: Any = None) -> None:
        """Print the message, fit for a terminal whoever wrote its parts."""
        lines = map(plain, f"patroni-db: {self.message}".split("\n"))
        click.echo("\n".join(lines), err=file is None, file=file)


class SettingFailure(Failure):
    """A setting is wrong. The message begins with the option or variable that holds it."""

    exit_code = ExitCode.USAGE


class DiscoveryFailure(Failure):
    """No API gave a usable answer: one line for each that was asked.

    :param error: one failure, or several combined
    """

    exit_code = ExitCode.DISCOVERY_FAILED

    def __init__(self, error: DiscoveryError) -> None:
        lines = ["no Patroni API gave a usable answer", *map(str, error.failures)]
        super().__init__("\n  ".join(lines) if error.failures else str(error))
        self.error = error


def warn(message: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"patroni-db: warning: {plain(message)}", err=True)
