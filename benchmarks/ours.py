"""The library of this repository, in each way it is used. The factories are like those of the peers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy import URL

    from benchmarks.records import Key
    from benchmarks.sites import Site

__all__ = ["POOL_SIZE", "django_persistent", "django_pool", "sqlalchemy", "sqlalchemy_async", "sqlalchemy_null_pool"]

# Connections that a pool may have.
POOL_SIZE = 4


def _options(site: Site) -> dict[str, str]:
    options = {
        "patroni_urls": ",".join(site.urls),
        "patroni_target": site.target,
        "application_name": site.application,
    }
    return options | {"patroni_etcd": site.etcd} if site.etcd else options


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
    entry = {
        "ENGINE": "django_backend",
        "NAME": site.dbname,
        "USER": site.user,
        "PASSWORD": site.password,
        "OPTIONS": options,
        **settings,
    }
    django_settings.configure(DATABASES={"default": entry}, USE_TZ=True)
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
