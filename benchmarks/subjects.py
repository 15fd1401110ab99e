"""What the overhead benchmark measures: the same small piece of work, done in each way.

The process is one subject. Each line of its standard input is a number of times to do the work; it answers with
the seconds that each took.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FAMILIES", "Family", "Subject", "main"]

_QUERY = "SELECT 1"


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to do a family's work.

    :param name: what the table calls it
    :param variant: ``stock``, ``checked`` or ``ours``
    """

    name: str
    variant: str


@dataclass(frozen=True, slots=True)
class Family:
    """Ways to do the same work.

    :param name: short
    :param work: what is done
    :param subjects: the first one is what the others are compared with
    """

    name: str
    work: str
    subjects: tuple[Subject, ...]


FAMILIES = (
    Family(
        "sqlalchemy",
        "SQLAlchemy: a connection from the pool, `SELECT 1`, and back",
        (
            Subject("stock", "stock"),
            Subject("stock, `pool_pre_ping`", "checked"),
            Subject("**ours**", "ours"),
        ),
    ),
    Family(
        "django",
        "Django: a request of one `SELECT 1`, persistent connection",
        (
            Subject("stock", "stock"),
            Subject("stock, `CONN_HEALTH_CHECKS`", "checked"),
            Subject("**ours**", "ours"),
        ),
    ),
    Family(
        "pool",
        "psycopg_pool: a connection from the pool, `SELECT 1`, and back",
        (
            Subject("stock", "stock"),
            Subject("stock, `check_connection`", "checked"),
            Subject("**ours** (Django's `OPTIONS['pool']`)", "ours"),
        ),
    ),
)


def _sqlalchemy(variant: str, server: dict[str, Any]) -> Callable[[], object]:
    from sqlalchemy import URL, create_engine, text  # noqa: PLC0415 - each process loads one subject's libraries

    if variant == "ours":
        query = {"patroni_urls": ",".join(server["urls"])}
        url = URL.create("postgresql+patroni", server["user"], server["password"], database="app", query=query)
    else:
        where = {"host": server["host"], "port": server["port"], "database": "app"}
        url = URL.create("postgresql+psycopg", server["user"], server["password"], **where)
    engine = create_engine(url, pool_pre_ping=variant == "checked")
    query_text = text(_QUERY)

    def work() -> object:
        with engine.connect() as connection:
            return connection.execute(query_text).scalar_one()

    return work


def _django(variant: str, server: dict[str, Any]) -> Callable[[], object]:
    import django  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415

    entry: dict[str, Any] = {
        "NAME": "app",
        "USER": server["user"],
        "PASSWORD": server["password"],
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": variant == "checked",
    }
    if variant == "ours":
        entry |= {"ENGINE": "django_backend", "OPTIONS": {"patroni_urls": server["urls"]}}
    else:
        entry |= {"ENGINE": "django.db.backends.postgresql", "HOST": server["host"], "PORT": server["port"]}
    settings.configure(DATABASES={"default": entry}, USE_TZ=True)
    django.setup()
    from django.core.signals import request_finished, request_started  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415

    connection = connections["default"]  # imports its backend

    def work() -> object:
        request_started.send(sender=None)
        with connection.cursor() as cursor:
            cursor.execute(_QUERY)
            answer = cursor.fetchone()
        request_finished.send(sender=None)
        return answer

    return work


def _pool(variant: str, server: dict[str, Any]) -> Callable[[], object]:
    from psycopg_pool import ConnectionPool  # noqa: PLC0415

    credentials = {"user": server["user"], "password": server["password"], "dbname": "app", "autocommit": True}
    pool: ConnectionPool[Any]
    if variant == "ours":
        from django_backend.pool import PatroniPool, Source  # noqa: PLC0415
        from patroni_db import PatroniConfig, discovery_for  # noqa: PLC0415

        config = PatroniConfig(urls=tuple(server["urls"]))
        pool = PatroniPool(Source(discovery_for(config), config), credentials, min_size=1, max_size=1)
        pool.open()
    else:
        credentials |= {"host": server["host"], "port": server["port"]}
        check = ConnectionPool.check_connection if variant == "checked" else None
        pool = ConnectionPool(kwargs=credentials, check=check, min_size=1, max_size=1, open=True)

    def work() -> object:
        with pool.connection() as connection:
            return connection.execute(_QUERY).fetchone()

    return work


_MAKERS = {"sqlalchemy": _sqlalchemy, "django": _django, "pool": _pool}


def main() -> None:
    """Be the subject that the first line of the standard input asks for, until that ends."""
    wish = json.loads(sys.stdin.readline())
    began = time.perf_counter()
    work = _MAKERS[wish["family"]](wish["variant"], wish["server"])
    imported = time.perf_counter()
    work()
    print(json.dumps({"imports": imported - began, "first": time.perf_counter() - imported}), flush=True)
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work()
            took.append(time.perf_counter() - start)
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
