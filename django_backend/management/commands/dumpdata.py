"""``manage.py dumpdata``, also of the alias that reads from replicas."""

from __future__ import annotations

from typing import Any

from django.core.management.commands import dumpdata

from django_backend.aliases import following
from django_backend.pairing import pair
from django_backend.router import tables_of_replicas
from django_backend.routing import use_primary, use_replica

__all__ = ["Command"]


class Command(dumpdata.Command):
    """Django's command, which asks the router which tables an alias has, and where related objects are."""

    def handle(self, *app_labels: Any, **options: Any) -> Any:
        """Dump what ``--database`` shows, related objects included, all from its server."""
        primary = pair(following()).get(options["database"])
        if primary is None:
            with use_primary():
                return super().handle(*app_labels, **options)
        with tables_of_replicas(), use_replica(primary):
            return super().handle(*app_labels, **options)
