"""Tools that connect by themselves, with what the frameworks hand out: the drivers find the right server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from tests.django.backends import project
from tests.sqlalchemy.clients import url_of

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

STANDS_BY = "SELECT pg_is_in_recovery()"


def of_psycopg(arguments: dict[str, Any]) -> Any:
    with psycopg.connect(**arguments) as connection:
        return connection.execute(STANDS_BY).fetchone()


def of_psycopg2(arguments: dict[str, Any]) -> Any:
    connection = psycopg2.connect(**arguments)
    try:
        with connection.cursor() as cursor:
            cursor.execute(STANDS_BY)
            return cursor.fetchone()
    finally:
        connection.close()


def of_asyncpg(arguments: dict[str, Any]) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(**arguments)
        try:
            return tuple(await connection.fetchrow(STANDS_BY))
        finally:
            await connection.close()

    return asyncio.run(ask())


ASKING = {"psycopg": of_psycopg, "psycopg2": of_psycopg2, "asyncpg": of_asyncpg, "patroni": of_psycopg}


@pytest.mark.parametrize("driver", sorted(ASKING))
@pytest.mark.parametrize(("target", "stands_by"), [("primary", False), ("replica", True), ("replica_preferred", True)])
def test_sqlalchemys_arguments(patroni_cluster: LocalCluster, driver: str, target: str, stands_by: bool) -> None:
    patroni_cluster.heal()
    create: Any = create_async_engine if driver == "asyncpg" else create_engine
    engine = create(url_of(patroni_cluster, driver, target=target))
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    given = {name: value for name, value in arguments.items() if not name.startswith("prepared_statement")}
    assert ASKING[driver](given) == (stands_by,)


@pytest.mark.parametrize("pool", [False, True])
def test_djangos_parameters(patroni_cluster: LocalCluster, pool: bool, django_db_blocker: Any) -> None:
    patroni_cluster.heal()
    with django_db_blocker.unblock(), project(patroni_cluster, OPTIONS={"pool": pool}) as aliases:
        for alias, stands_by in (("default", False), ("replica", True)):
            before = aliases[alias].get_connection_params()
            assert of_psycopg(before) == (stands_by,)
            with aliases[alias].cursor() as cursor:
                cursor.execute(STANDS_BY)
                assert cursor.fetchone() == (stands_by,)
            after = aliases[alias].get_connection_params()
            assert of_psycopg(after) == (stands_by,)
            assert {**after, "context": None} == {**before, "context": None}
