"""``python -m example_project.traffic CLIENT --journal FILE``: one client, until its standard input ends."""

from __future__ import annotations

import argparse
import functools
import os

from example_project.traffic.lanes import read_once, run_lanes, write_once
from patroni_db.demo.journal import Journal

_CLIENTS = ("django-writers", "django-readers", "sqlalchemy-writers", "sqlalchemy-readers", "sqlalchemy-async")


def main() -> None:
    """Run the client that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m example_project.traffic", description=__doc__)
    parser.add_argument("client", choices=_CLIENTS)
    parser.add_argument("--journal", required=True, metavar="FILE", help="where every operation is written down")
    parser.add_argument("--lanes", type=int, default=2, help="threads, or tasks (default: 2)")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two operations of a lane")
    arguments = parser.parse_args()
    with Journal(arguments.journal) as journal:
        if arguments.client.startswith("django"):
            _run_django(arguments.client, journal, arguments.lanes, arguments.pause)
        else:
            _run_sqlalchemy(arguments.client, journal, arguments.lanes, arguments.pause)


# Each imports its own framework only: a SQLAlchemy client has no Django in it, as in real life.


def _run_django(client: str, journal: Journal, lanes: int, pause: float) -> None:
    import django  # noqa: PLC0415

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    django.setup()
    from example_project.traffic.django_clients import DjangoReader, DjangoWriter  # noqa: PLC0415

    if client == "django-writers":
        run_lanes(functools.partial(write_once, DjangoWriter(), journal), lanes, pause)
    else:
        run_lanes(functools.partial(read_once, DjangoReader(), journal), lanes, pause)


def _run_sqlalchemy(client: str, journal: Journal, lanes: int, pause: float) -> None:
    from example_project.traffic import sqlalchemy_clients  # noqa: PLC0415

    if client == "sqlalchemy-async":
        sqlalchemy_clients.run_async_writers(journal, lanes, pause)
    elif client == "sqlalchemy-writers":
        run_lanes(functools.partial(write_once, sqlalchemy_clients.SQLAlchemyWriter(lanes), journal), lanes, pause)
    else:
        run_lanes(functools.partial(read_once, sqlalchemy_clients.SQLAlchemyReader(lanes), journal), lanes, pause)


if __name__ == "__main__":
    main()
