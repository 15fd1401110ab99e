"""``manage.py patroni status``: the clusters behind ``DATABASES``, as ``patroni-db status`` shows them."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from django_backend.mixin import PatroniMixin
from patroni_db.cli.document import error_document, status_document
from patroni_db.cli.text import plain, size, tags
from patroni_db.cli.view import View, look
from patroni_db.errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from django.core.management.base import CommandParser

__all__ = ["Command"]

_HEADINGS = ("member", "role", "state", "address", "lag", "timeline", "tags", "problem")


class Command(BaseCommand):
    """Show the clusters of the project."""

    help = "Show the Patroni clusters behind DATABASES."
    # It must work where the settings or the database do not.
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's way

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare ``status`` and its options."""
        status = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
            "status",
            help="show members, roles and lag; exit with 1 when a cluster has no leader, or none answers",
            description="Show members, roles and lag. Exits with 1 when a cluster has no leader, or does not answer.",
        )
        status.add_argument("--json", action="store_true", help="one object, by alias")
        status.add_argument(
            "--database", action="append", metavar="ALIAS", help="by default every alias with a cluster"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        """Carry out the action."""
        results = _looks(_chosen(options["database"]))
        if options["json"]:
            self.stdout.write(json.dumps(_documents(results), indent=2))
        else:
            for aliases, result in results:
                self._show(aliases, result)
        if any(isinstance(result, DiscoveryError) or not result.leads for _, result in results):
            raise SystemExit(1)

    def _show(self, aliases: Sequence[str], result: View | DiscoveryError) -> None:
        names = ", ".join(aliases)
        if isinstance(result, DiscoveryError):
            self.stderr.write(self.style.ERROR(f"{names}: {plain(str(result))}"))
            return
        scope = plain(result.topology.scope or "unnamed cluster")
        self.stdout.write(f"{self.style.MIGRATE_HEADING(scope)} ({names}), as told by {result.source}")
        if importlib.util.find_spec("rich") is not None:
            from rich.console import Console  # noqa: PLC0415 - of the extra "cli"

            from patroni_db.cli.render import ViewDisplay  # noqa: PLC0415 - the same

            Console(file=self.stdout).print(ViewDisplay(result))
        else:
            self.stdout.write("\n".join(_table(_rows(result))))


def _chosen(aliases: Sequence[str] | None) -> list[str]:
    """Return the aliases asked for, or all that follow a cluster.

    :raises CommandError: there is no such alias, or it follows no cluster
    """
    for alias in aliases or ():
        if alias not in connections:
            raise CommandError(f"There is no alias {alias!r} in DATABASES.")
        if not isinstance(connections[alias], PatroniMixin):
            raise CommandError(f"Alias {alias!r} does not have the engine django_backend.")
    chosen = list(dict.fromkeys(aliases or (a for a in connections if isinstance(connections[a], PatroniMixin))))
    if not chosen:
        raise CommandError("No alias in DATABASES has the engine django_backend.")
    return chosen


def _looks(aliases: Iterable[str]) -> list[tuple[list[str], View | DiscoveryError]]:
    """Look at each cluster once, and return what was seen with the aliases that use it."""
    groups: dict[Any, list[str]] = {}
    for alias in aliases:
        groups.setdefault(connections[alias].patroni_config.discovery_key, []).append(alias)
    results: list[tuple[list[str], View | DiscoveryError]] = []
    for group in groups.values():
        try:
            results.append((group, look(connections[group[0]].patroni_config)))
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
    """Return a table of the members as text, with its headings."""
    primary = view.topology.primary
    members = (
        (
            f"{'*' if primary and member.name == primary.name else ' '} {plain(member.name)}",
            plain(member.role),
            plain(member.state),
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
