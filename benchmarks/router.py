"""What asking the router costs per query: ours, beside one that only names an alias. Needs no cluster.

``python -m benchmarks.router`` prints microseconds, the best of several rounds: what the machine does beside is no
part of it.
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import django
from django.conf import settings

if __name__ == "__main__" and not __package__:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from django_backend.config import databases

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: Final = 100_000
ROUNDS: Final = 7


class Trivial:
    """The least a router can do."""

    def db_for_read(self, _model: Any, **_hints: Any) -> str:
        """Return the replicas' alias."""
        return "replica"


def cost(call: Callable[[], object]) -> float:
    """Return the microseconds of one call."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


def main() -> None:
    """Print the figures."""
    settings.configure(
        SECRET_KEY="of no use elsewhere",  # noqa: S106
        DATABASES=databases(NAME="app", OPTIONS={"patroni_urls": ["http://127.0.0.1:9"]}),
        INSTALLED_APPS=["django.contrib.contenttypes", "django_backend"],
    )
    django.setup()
    # With the settings only.
    from django.contrib.contenttypes.models import ContentType  # noqa: PLC0415

    from django_backend.causal import consistency  # noqa: PLC0415
    from django_backend.router import PrimaryReplicaRouter  # noqa: PLC0415
    from django_backend.routing import use_primary  # noqa: PLC0415
    from patroni_db.statements import kind_of  # noqa: PLC0415

    ours, trivial = PrimaryReplicaRouter(), Trivial()
    ours.db_for_read(ContentType)
    instance = ContentType()
    instance._state.db = "replica"  # noqa: SLF001 - as Django's own loading does
    statement = str(ContentType.objects.filter(pk__in=range(20)).query)
    lines = {
        "a router that names an alias": lambda: trivial.db_for_read(ContentType),
        "db_for_read": lambda: ours.db_for_read(ContentType),
        "db_for_read of a related object": lambda: ours.db_for_read(ContentType, instance=instance),
        "db_for_write": lambda: ours.db_for_write(ContentType),
        f"kind_of() a query of {len(statement)} characters": lambda: kind_of(statement),
    }
    for name, call in lines.items():
        print(f"{cost(call):6.2f} us  {name}")
    with consistency("causal"):
        print(f"{cost(lambda: ours.db_for_read(ContentType)):6.2f} us  db_for_read in a request, nothing written")
        ours.db_for_write(ContentType)
        print(f"{cost(lambda: ours.db_for_read(ContentType)):6.2f} us  db_for_read in a request after a write")
    with use_primary():
        print(f"{cost(lambda: ours.db_for_read(ContentType)):6.2f} us  db_for_read within use_primary()")


if __name__ == "__main__":
    main()
