"""Servers that hang without a word: reads leave them, writes wait for them, and slow ones are left alone."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import QueuePool

from patroni_db import PatroniConfig, discovery_for
from tests.integration.faults import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from patroni_db.cluster import LocalCluster
    from patroni_db.discovery import Discovery

PATIENCE = 60.0
WHERE = text("SELECT host(inet_server_addr())")


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    healthy_patroni_cluster.wait_until_streaming()
    return healthy_patroni_cluster


@pytest.fixture
def discovery(cluster: LocalCluster) -> Discovery:
    # The one that the engines share.
    return discovery_for(PatroniConfig(urls=cluster.urls))


@pytest.fixture
def engines(cluster: LocalCluster) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(target: str) -> Engine:
        login = f"{cluster.user}:{cluster.password}@/{cluster.dbname}"
        url = f"postgresql+patroni://{login}?patroni_urls={','.join(cluster.urls)}&patroni_target={target}"
        made.append(create_engine(url, poolclass=QueuePool, pool_size=10))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


def silent(discovery: Discovery) -> frozenset[str]:
    snapshot = discovery.snapshot
    assert snapshot is not None
    return snapshot.silent


def hosts(engine: Engine, number: int) -> list[Any]:
    """Read over `number` connections at once; return where each led."""
    connections = [engine.connect() for _ in range(number)]
    try:
        return [connection.scalar(WHERE) for connection in connections]
    finally:
        for connection in connections:
            connection.close()


def test_new_reads_leave_a_frozen_replica_and_come_back(
    cluster: LocalCluster, discovery: Discovery, engines: Callable[..., Engine]
) -> None:
    engine = engines("replica")
    replicas = {node.host: node.name for node in cluster.nodes if node.name != cluster.leader}

    def both_serve() -> bool:
        engine.dispose()  # what is pooled stays where it is
        return set(hosts(engine, 8)) == set(replicas)

    eventually(both_serve, "both to serve, whatever earlier tests did to them")
    host, frozen = next(iter(replicas.items()))
    errors: list[BaseException] = []

    def read(connection: Any) -> None:
        try:
            connection.execute(text("SELECT 1"))
        except OperationalError as exc:
            errors.append(exc)

    connections = [engine.connect() for _ in range(8)]  # from the pool, which leads to both
    victim = next(connection for connection in connections if connection.scalar(WHERE) == host)
    victim.rollback()
    cluster.freeze(frozen)
    reader = threading.Thread(target=read, args=(victim,))
    reader.start()  # hangs, which is how the process finds out
    for connection in connections:
        if connection is not victim:
            connection.close()
    try:
        eventually(lambda: frozen in silent(discovery), "the replica to be found silent")
        assert cluster.leader is not None
        assert host not in hosts(engine, 8)
        reader.join(PATIENCE)
        assert errors, "the read that hung was ended"
    finally:
        cluster.thaw(frozen)
        victim.invalidate()
        victim.close()
    eventually(lambda: not silent(discovery), "the replica to answer again")
    eventually(both_serve, "the replica to serve again")


@pytest.mark.thorough
def test_a_write_to_a_primary_known_to_hang_waits_and_nothing_under_way_is_ended(
    cluster: LocalCluster, discovery: Discovery, engines: Callable[..., Engine]
) -> None:
    cluster.pause()  # no failover: the primary comes back
    engine = engines("primary")
    under_way, idle = engine.connect(), engine.connect()
    assert under_way.scalar(WHERE) == idle.scalar(WHERE)
    idle.close()
    answers: list[Any] = []
    frozen = cluster.freeze()
    try:
        first = threading.Thread(target=lambda: answers.append(under_way.scalar(WHERE)))
        first.start()
        eventually(lambda: frozen in silent(discovery), "the primary to be found silent")
        second = threading.Thread(target=lambda: answers.append(hosts(engine, 1)[0]))
        second.start()
        second.join(1)
        assert second.is_alive(), "it waits"
    finally:
        cluster.thaw(frozen)
    for thread in (first, second):
        thread.join(PATIENCE)
    under_way.close()
    assert answers == [cluster.node(frozen).host] * 2


@pytest.mark.parametrize("target", ["primary", "replica"])
def test_a_slow_query_makes_nobody_silent(
    cluster: LocalCluster, engines: Callable[..., Engine], target: str, caplog: pytest.LogCaptureFixture
) -> None:
    with engines(target).connect() as connection:
        connection.execute(text("SELECT pg_sleep(2)"))
        assert connection.scalar(WHERE) is not None
    assert "silent" not in caplog.text


def test_a_server_that_refuses_is_not_silent(cluster: LocalCluster, discovery: Discovery) -> None:
    discovery.topology()
    killed = cluster.kill_node(next(node.name for node in cluster.nodes if node.name != cluster.leader))
    node = cluster.node(killed)
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(cluster.conninfo(killed))
    snapshot = discovery.snapshot
    assert snapshot is not None
    address = next(snapshot.address_of(m) for m in snapshot.topology.members if m.host == node.host)
    assert address is not None
    discovery.suspect(killed, address)
    discovery.wait_for_look()
    assert not silent(discovery)
