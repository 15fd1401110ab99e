"""``manage.py patroni``: the clusters behind ``DATABASES``, and the commit markers in them.

``status`` shows what ``patroni-db status`` shows; ``prune-markers`` does what ``patroni-db prune-markers`` does.
"""

from __future__ import annotations

import importlib.util
from typing import IO, TYPE_CHECKING, Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, Error, connections

from django_backend.aliases import wrappers
from django_backend.transaction import run_atomic
from patroni_db.cli.document import error_document, json_text, status_document
from patroni_db.cli.text import size, tags
from patroni_db.cli.view import View, look
from patroni_db.errors import CommitOutcomeUnknown, DiscoveryError
from patroni_db.escaping import plain
from patroni_db.markers import PRUNE, seconds_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from django.core.management.base import CommandParser

    from patroni_db.config import PatroniConfig

__all__ = ["Command"]

# Markers that go in one transaction.
_BATCH = 5000
# Seconds. A marker is needed for as long as its transaction may still be in doubt, or its work come again.
_LEAST_AGE = 3600.0
_HEADINGS = ("member", "role", "state", "address", "lag", "timeline", "tags", "problem")


class Command(BaseCommand):
    """Show the clusters of the project."""

    help = "Show the Patroni clusters behind DATABASES."
    # It must work where the settings or the database do not.
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's way

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions and their options."""
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        status = actions.add_parser(
            "status",
            help="show members, roles and lag; exit with 1 when a cluster has no leader, or none answers",
            description="Show members, roles and lag. Exits with 1 when a cluster has no leader, or does not answer.",
        )
        status.add_argument("--json", action="store_true", help="one object, by alias")
        status.add_argument(
            "--database", action="append", metavar="ALIAS", help="by default every alias with a cluster"
        )
        prune = actions.add_parser(
            "prune-markers",
            help="delete the commit markers of long ago",
            description="Delete commit markers through the primary, a few thousand at a time.",
        )
        prune.add_argument(
            "--older-than", default="7d", metavar="AGE", help="as 12h, 7d, 2w; 1h at least (default: 7d)"
        )
        prune.add_argument("--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="an alias for the primary")
        prune.add_argument("--json", action="store_true", help="one object")

    def handle(self, *_args: Any, **options: Any) -> None:
        """Carry out the action."""
        if options["action"] == "prune-markers":
            self._prune(options["older_than"], options["database"], as_json=options["json"])
            return
        given: str | Sequence[str] | None = options["database"]
        # One name where call_command() was given one.
        results = _looks(_chosen([given] if isinstance(given, str) else given))
        if options["json"]:
            self.stdout.write(json_text(_documents(results)))
        else:
            for aliases, result in results:
                self._show(aliases, result)
        if any(isinstance(result, DiscoveryError) or not result.leads for _, result in results):
            raise SystemExit(1)

    def _prune(self, age: str, alias: str, *, as_json: bool) -> None:
        try:
            seconds = seconds_of(age)
        except ValueError as exc:
            raise CommandError(f"--older-than: {exc}") from exc
        if seconds < _LEAST_AGE:
            raise CommandError(f"--older-than: {age} is less than 1h: transactions that young may need their markers.")
        if alias not in connections:
            raise CommandError(f"There is no alias {alias!r} in DATABASES.")

        def batch() -> int:
            with connections[alias].cursor() as cursor:
                cursor.execute(PRUNE, [seconds, _BATCH])
                deleted: int = cursor.rowcount
            return deleted

        deleted, count = 0, _BATCH
        while count == _BATCH:
            try:
                count = run_atomic(batch, using=alias)
            except CommitOutcomeUnknown:
                continue  # what is still there is deleted now
            except Error as exc:
                told = " ".join([str(exc).strip(), *getattr(exc, "__notes__", ())])
                raise CommandError(plain(told)) from exc
            deleted += count
        if as_json:
            self.stdout.write(json_text({"database": alias, "deleted": deleted, "older_than": seconds}))
        else:
            self.stdout.write(f"deleted {deleted} commit markers older than {age}")

    def _show(self, aliases: Sequence[str], result: View | DiscoveryError) -> None:
        names = ", ".join(aliases)
        if isinstance(result, DiscoveryError):
            self.stderr.write(self.style.ERROR(f"{names}: {result}"))
            return
        self.stdout.write(self.style.MIGRATE_HEADING(names))
        if importlib.util.find_spec("rich") is not None:
            from rich.console import Console  # noqa: PLC0415 - of the extra "cli"

            from patroni_db.cli.render import ViewDisplay  # noqa: PLC0415 - the same

            Console(file=cast("IO[str]", self.stdout)).print(ViewDisplay(result))
        else:
            self.stdout.write(f"cluster {plain(result.topology.scope or 'without a name')}")
            self.stdout.write("\n".join(_table(_rows(result))))


def _chosen(aliases: Sequence[str] | None) -> dict[str, PatroniConfig]:
    """Return the aliases asked for, or all that follow a cluster, with their settings.

    :raises CommandError: there is no such alias, it follows no cluster, or a setting is wrong
    """
    known = wrappers()
    for alias in aliases or ():
        if alias not in connections:
            raise CommandError(f"There is no alias {alias!r} in DATABASES.")
        if alias not in known:
            raise CommandError(f"Alias {alias!r} does not have the engine django_backend.")
    if not known:
        raise CommandError("No alias in DATABASES has the engine django_backend.")
    try:
        return {alias: known[alias].patroni_config for alias in aliases or known}
    except ImproperlyConfigured as exc:
        raise CommandError(str(exc)) from exc


def _looks(chosen: Mapping[str, PatroniConfig]) -> list[tuple[list[str], View | DiscoveryError]]:
    """Look at each cluster once, and return what was seen with the aliases that use it."""
    groups: dict[Hashable, list[str]] = {}
    for alias, config in chosen.items():
        groups.setdefault(config.discovery_key, []).append(alias)
    results: list[tuple[list[str], View | DiscoveryError]] = []
    for group in groups.values():
        try:
            results.append((group, look(chosen[group[0]])))
        except DiscoveryError as exc:
            results.append((group, exc))
    return results


def _documents(results: Iterable[tuple[list[str], View | DiscoveryError]]) -> dict[str, Any]:
    return {
        alias: error_document(result) if isinstance(result, DiscoveryError) else status_document(result)
        for aliases, result in results
        for alias in aliases
    }


def _rows(view: View) -> list[tuple[str, ...]]:
    """Return a table of the members, with its headings."""
    primary = view.topology.primary
    members = (
        (
            f"{'*' if primary and member.name == primary.name else ' '} {member.name}",
            member.role,
            member.state,
            str(view.address_of(member) or "-"),
            "-" if member.is_leader or member.lag is None else size(member.lag),
            "-" if member.timeline is None else str(member.timeline),
            tags(member.tags) or "-",
            view.doubt(member) or "-",
        )
        for member in view.topology.members
    )
    return [_HEADINGS, *members]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, fit for a terminal whoever wrote its cells."""
    shown = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]
