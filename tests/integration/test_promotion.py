"""Patroni names a new primary a moment before its PostgreSQL takes writes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db import PatroniConfig
from patroni_db.acquisition import acquire, acquire_async
from patroni_db.discovery import Discovery
from patroni_db.libpq import attempt_params

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patroni_db.acquisition import Attempt
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def discovery(cluster: LocalCluster) -> Iterator[Discovery]:
    one = Discovery(PatroniConfig(urls=cluster.urls))
    yield one
    one.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_session_that_waited_for_the_promotion_is_the_one_that_is_handed_out(
    cluster: LocalCluster, discovery: Discovery, is_async: bool
) -> None:
    params = {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password}
    opened: list[str] = []

    def connect(attempt: Attempt) -> psycopg.Connection[Any]:
        connection = psycopg.connect(**attempt_params(params, attempt))
        opened.append(attempt.address.host)
        return connection

    async def connect_async(attempt: Attempt) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(**attempt_params(params, attempt))
        opened.append(attempt.address.host)
        return connection

    async def write_async() -> str:
        connection, stamp = await acquire_async(discovery, discovery.config, connect_async)
        async with connection:
            await connection.execute("CREATE TABLE promoted (id int)")
            await connection.rollback()
        return stamp.address.host

    def write() -> str:
        connection, stamp = acquire(discovery, discovery.config, connect)
        with connection:
            connection.execute("CREATE TABLE promoted (id int)")
            connection.rollback()
        return stamp.address.host

    former = write()
    cluster.kill_postgres()
    primary = asyncio.run(write_async()) if is_async else write()
    assert opened == [former, primary]
