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

__all__ = ["FAMILIES", "Family", "Subject", "create_tables", "main"]

_QUERY = "SELECT 1"
_CREATE = "CREATE TABLE IF NOT EXISTS bench_marked (number integer NOT NULL)"
_INSERT = "INSERT INTO bench_marked VALUES (1)"
# A network that takes half a millisecond each way, as between two zones of a region.
_FAR = "-far"
_DELAY = 0.0005


@dataclass(frozen=True, slots=True)
class Subject:
    """One way to do a family's work.

    :param name: what the table calls it
    :param variant: ``stock``, ``checked``, ``ours``, or ``once`` for ours with a commit marker
    """

    name: str
    variant: str


@dataclass(frozen=True, slots=True)
class Family:
    """Ways to do the same work.

    :param name: short
    :param work: what is done
    :param subjects: the first one is what the others are compared with
    :param delay: seconds that the network takes, each way
    """

    name: str
    work: str
    subjects: tuple[Subject, ...]
    delay: float = 0.0

    @property
    def maker(self) -> str:
        """The name of the function that makes a subject's work."""
        return self.name.removesuffix(_FAR)


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
    *(
        Family(
            f"{name}{suffix}",
            f"{label}: a transaction of one `INSERT`{where}",
            (
                Subject(f"stock, `{stock}`", "stock"),
                Subject(f"**ours**, `{ours}`", "ours"),
                Subject(f"**ours**, `{ours}`, `exactly_once`", "once"),
            ),
            delay,
        )
        for suffix, where, delay in (("", "", 0.0), (_FAR, ", 0.5 ms of network each way", _DELAY))
        for name, label, stock, ours in (
            ("sqlalchemy-transaction", "SQLAlchemy", "engine.begin()", "run_transaction"),
            ("django-transaction", "Django", "atomic()", "run_atomic"),
        )
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


def _sqlalchemy_transaction(variant: str, server: dict[str, Any]) -> Callable[[], object]:
    from sqlalchemy import URL, create_engine, text  # noqa: PLC0415

    insert = text(_INSERT)
    if variant == "stock":
        where = {"host": server["host"], "port": server["port"], "database": "app"}
        stock = create_engine(URL.create("postgresql+psycopg", server["user"], server["password"], **where))

        def begin() -> None:
            with stock.begin() as connection:
                connection.execute(insert)

        return begin
    from sqlalchemy_dialect import run_transaction  # noqa: PLC0415

    url = URL.create("postgresql+patroni", server["user"], server["password"], database="app", query=_options(server))
    engine = create_engine(url)

    def run() -> None:
        run_transaction(engine, lambda connection: connection.execute(insert), exactly_once=variant == "once")

    return run


def _django_transaction(variant: str, server: dict[str, Any]) -> Callable[[], object]:
    import django  # noqa: PLC0415
    from django.conf import settings  # noqa: PLC0415

    entry: dict[str, Any] = {"NAME": "app", "USER": server["user"], "PASSWORD": server["password"]}
    if variant == "stock":
        entry |= {"ENGINE": "django.db.backends.postgresql", "HOST": server["host"], "PORT": server["port"]}
    else:
        entry |= {"ENGINE": "django_backend", "OPTIONS": _options(server)}
    settings.configure(DATABASES={"default": entry}, USE_TZ=True)
    django.setup()
    from django.db import connections, transaction  # noqa: PLC0415

    connection = connections["default"]

    def insert() -> None:
        with connection.cursor() as cursor:
            cursor.execute(_INSERT)

    if variant == "stock":

        def begin() -> None:
            with transaction.atomic():
                insert()

        return begin
    from django_backend.transaction import run_atomic  # noqa: PLC0415

    return lambda: run_atomic(insert, exactly_once=variant == "once")


def _options(server: dict[str, Any]) -> dict[str, str]:
    options = {"patroni_urls": ",".join(server["urls"])}
    return options | {"patroni_address_map": server["address_map"]} if server["address_map"] else options


_MAKERS = {
    "sqlalchemy": _sqlalchemy,
    "django": _django,
    "pool": _pool,
    "sqlalchemy-transaction": _sqlalchemy_transaction,
    "django-transaction": _django_transaction,
}


def create_tables(connection: Any) -> None:
    """Make what the transactions write to, for the user who is to write."""
    from patroni_db.markers import CREATE_TABLE  # noqa: PLC0415

    connection.execute(_CREATE)
    connection.execute(CREATE_TABLE)


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
