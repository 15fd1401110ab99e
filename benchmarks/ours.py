"""The library of this repository, in each way it is used. The factories are like those of the peers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from benchmarks.ledger import PRODUCTS, TRANSFER, transfer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import URL

    from benchmarks.records import Key
    from benchmarks.sites import Site

__all__ = [
    "DEADLINE",
    "POOL_SIZE",
    "django_atomic",
    "django_persistent",
    "django_pool",
    "http",
    "sqlalchemy",
    "sqlalchemy_async",
    "sqlalchemy_null_pool",
    "sqlalchemy_transaction",
    "sqlalchemy_transaction_async",
]

# Connections that a pool may have.
POOL_SIZE = 4
# Seconds that a transaction which must happen exactly once may take; longer than any outage.
DEADLINE = 100.0


def _options(site: Site) -> dict[str, str]:
    options = {
        "patroni_urls": ",".join(site.urls),
        "patroni_target": site.target,
        "application_name": site.application,
    }
    options |= {f"patroni_{name}": value for name, value in (site.etcd or {}).items()}
    return options | ({"patroni_address_map": site.address_map} if site.address_map else {})


def _url(site: Site) -> URL:
    from sqlalchemy import URL  # noqa: PLC0415 - each process loads one client's libraries

    return URL.create(
        "postgresql+patroni",
        site.user,
        site.password,
        database=site.dbname,
        query=_options(site),
    )


def _through(engine: Any, statement: str) -> Callable[[], Callable[[Key], str]]:
    def write(row: Key) -> str:
        with engine.begin() as connection:
            return str(connection.exec_driver_sql(statement, row).scalar_one())

    return lambda: write


def sqlalchemy(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Use the dialect, with SQLAlchemy's usual pool."""
    from sqlalchemy import create_engine  # noqa: PLC0415

    return _through(create_engine(_url(site), pool_size=POOL_SIZE, max_overflow=0), site.statement)


def sqlalchemy_null_pool(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Use the dialect, with a new connection for each transaction."""
    from sqlalchemy import NullPool, create_engine  # noqa: PLC0415

    return _through(create_engine(_url(site), poolclass=NullPool), site.statement)


async def sqlalchemy_async(site: Site) -> Callable[[Key], Awaitable[str]]:
    """Use the dialect with an asynchronous engine."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    engine = create_async_engine(_url(site), pool_size=POOL_SIZE, max_overflow=0)

    async def write(row: Key) -> str:
        async with engine.begin() as connection:
            return str((await connection.exec_driver_sql(site.statement, row)).scalar_one())

    return write


def _django(site: Site, **settings: Any) -> Callable[[], Callable[[Key], str]]:
    import django  # noqa: PLC0415
    from django.conf import settings as django_settings  # noqa: PLC0415

    options = {**_options(site), **settings.pop("OPTIONS", {})}
    apps = settings.pop("INSTALLED_APPS", [])
    entry = {
        "ENGINE": "django_backend",
        "NAME": site.dbname,
        "USER": site.user,
        "PASSWORD": site.password,
        "OPTIONS": options,
        **settings,
    }
    django_settings.configure(DATABASES={"default": entry}, USE_TZ=True, INSTALLED_APPS=apps)
    django.setup()
    from django.core.signals import request_finished, request_started  # noqa: PLC0415
    from django.db import connection, transaction  # noqa: PLC0415

    writes = site.target == "primary"

    def write(row: Key) -> str:
        # What Django does around each request; a thread is a worker of the server.
        request_started.send(sender=None)
        try:
            # A page that only reads needs no transaction.
            with transaction.atomic() if writes else contextlib.nullcontext(), connection.cursor() as cursor:
                cursor.execute(site.statement, row)
                return str(cursor.fetchone()[0])
        finally:
            request_finished.send(sender=None)

    return lambda: write


def django_persistent(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Django with ``CONN_MAX_AGE`` None: a connection for each thread, kept over requests."""
    return _django(site, CONN_MAX_AGE=None)


def django_pool(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Django with ``OPTIONS["pool"]``."""
    return _django(site, OPTIONS={"pool": {"min_size": POOL_SIZE, "max_size": POOL_SIZE}})


# -- Transactions that are run again, and happen exactly once -------------------------------------------------


def _run(site: Site, run: Callable[..., str]) -> str:
    """Run a transaction; without commit markers, again and again: what its COMMIT did is not asked."""
    from patroni_db import CommitOutcomeUnknown  # noqa: PLC0415

    while True:
        try:
            return run(exactly_once=site.exactly_once, deadline=DEADLINE)
        except CommitOutcomeUnknown:
            if site.exactly_once:
                raise


def django_atomic(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Django, with ``run_atomic``."""
    make = _django(site, INSTALLED_APPS=["django_backend"], CONN_MAX_AGE=None)
    from django.db import connection  # noqa: PLC0415

    from django_backend.transaction import run_atomic  # noqa: PLC0415

    make()

    def write(row: Key) -> str:
        def work() -> str:
            with connection.cursor() as cursor:
                cursor.execute(site.statement, row)
                stored = str(cursor.fetchone()[0])
                for parameters in transfer_of(row[2]):
                    cursor.execute(TRANSFER, parameters)
            return stored

        return _run(site, lambda **options: run_atomic(work, **options))

    return lambda: write


def sqlalchemy_transaction(site: Site) -> Callable[[], Callable[[Key], str]]:
    """SQLAlchemy, with ``run_transaction``."""
    from sqlalchemy import create_engine  # noqa: PLC0415

    from sqlalchemy_dialect import run_transaction  # noqa: PLC0415

    engine = create_engine(_url(site), pool_size=POOL_SIZE, max_overflow=0)

    def write(row: Key) -> str:
        def work(connection: Any) -> str:
            stored = str(connection.exec_driver_sql(site.statement, row).scalar_one())
            for parameters in transfer_of(row[2]):
                connection.exec_driver_sql(TRANSFER, parameters)
            return stored

        return _run(site, lambda **options: run_transaction(engine, work, **options))

    return lambda: write


async def sqlalchemy_transaction_async(site: Site) -> Callable[[Key], Awaitable[str]]:
    """SQLAlchemy with an asynchronous engine, and ``run_transaction_async``."""
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

    from patroni_db import CommitOutcomeUnknown  # noqa: PLC0415
    from sqlalchemy_dialect import run_transaction_async  # noqa: PLC0415

    engine = create_async_engine(_url(site), pool_size=POOL_SIZE, max_overflow=0)

    async def write(row: Key) -> str:
        async def work(connection: Any) -> str:
            stored = str((await connection.exec_driver_sql(site.statement, row)).scalar_one())
            for parameters in transfer_of(row[2]):
                await connection.exec_driver_sql(TRANSFER, parameters)
            return stored

        while True:
            try:
                stored: str = await run_transaction_async(
                    engine, work, exactly_once=site.exactly_once, deadline=DEADLINE
                )
            except CommitOutcomeUnknown:
                if site.exactly_once:
                    raise
            else:
                return stored

    return write


def http(site: Site) -> Callable[[], Callable[[Key], str]]:
    """Orders at the example project's web API: a browser's view, which knows of no database."""
    import requests  # noqa: PLC0415

    def make() -> Callable[[Key], str]:
        session = requests.Session()

        def write(row: Key) -> str:
            lines = [{"product": row[2] % PRODUCTS + 1, "quantity": 1}]
            order = {"customer": "/".join(map(str, row)), "lines": lines}
            answer = session.post(f"{site.web}/api/orders/", json=order, timeout=DEADLINE)
            answer.raise_for_status()
            stored = answer.json()
            return f"{stored['server']} {stored['timeline']}"

        return write

    return make
