"""The core on a real cluster, through plain psycopg: getting, keeping and handing out connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db import DiscoveryError, NoPrimaryError, PatroniConfig
from patroni_db.acquisition import Attempt, acquire, acquire_async
from patroni_db.connections import driver_of, why_unusable
from patroni_db.discovery import Discovery, discovery_for
from patroni_db.libpq import attempt_params, with_defaults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patroni_db.cluster import LocalCluster
    from patroni_db.connections import Objection, Stamp

pytestmark = pytest.mark.timeout(180)


class App:
    """An application of one process: it gets connections and counts its attempts."""

    def __init__(self, cluster: LocalCluster, **settings: Any) -> None:
        self.cluster = cluster
        self.config = PatroniConfig(**{"urls": cluster.urls, **settings})
        self.discovery = Discovery(self.config)
        self.attempts: list[str] = []
        self.params = with_defaults(
            {"dbname": cluster.dbname, "user": cluster.user, "password": cluster.password, "autocommit": True}
        )

    def connect(self, attempt: Attempt) -> psycopg.Connection[Any]:
        self.attempts.append(attempt.address.host)
        return psycopg.connect(**attempt_params(self.params, attempt))

    def get(self, **changes: Any) -> tuple[psycopg.Connection[Any], Stamp]:
        return acquire(self.discovery, self.config.replace(**changes), self.connect)

    def why_unusable(self, connection: psycopg.Connection[Any], stamp: Stamp, **changes: Any) -> Objection | None:
        assert self.discovery.snapshot is not None
        config = self.config.replace(**changes)
        return why_unusable(driver_of(connection), connection, stamp, config, self.discovery.snapshot)


@pytest.fixture
def cluster(healthy_patroni_cluster: LocalCluster) -> LocalCluster:
    return healthy_patroni_cluster


@pytest.fixture
def app(cluster: LocalCluster) -> Iterator[App]:
    one = App(cluster)
    yield one
    one.discovery.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def node_of(connection: psycopg.Connection[Any]) -> tuple[str, bool]:
    row = connection.execute("SELECT host(inet_server_addr()), pg_is_in_recovery()").fetchone()
    assert row is not None
    return str(row[0]), bool(row[1])


def test_writes_go_to_the_primary_and_reads_to_replicas(app: App) -> None:
    connection, stamp = app.get()
    assert stamp.member == app.cluster.leader
    assert node_of(connection) == (stamp.address.host, False)
    read = {app.get(target="replica")[1].member for _ in range(20)}
    assert read == {node.name for node in app.cluster.nodes} - {app.cluster.leader}


def test_a_wrong_password_is_the_drivers_own_error_and_comes_at_once(app: App) -> None:
    app.params["password"] = "wrong"
    with pytest.raises(psycopg.OperationalError, match="password"):
        app.get()
    assert len(app.attempts) == 2


def test_a_missing_database_and_a_bad_option_are_the_drivers_own_errors(app: App) -> None:
    app.params["dbname"] = "nowhere"
    with pytest.raises(psycopg.OperationalError, match="nowhere"):
        app.get(target="replica")
    app.params["no_such_option"] = "x"
    with pytest.raises(psycopg.ProgrammingError, match="no_such_option"):
        app.get()


def test_new_connections_follow_a_switchover_and_old_ones_are_not_handed_out(app: App) -> None:
    connection, stamp = app.get()
    assert app.why_unusable(connection, stamp) is None
    leader = app.cluster.switchover()
    assert app.why_unusable(connection, stamp) is not None
    again, moved = app.get()
    assert moved.member == leader
    assert node_of(again) == (app.cluster.node(leader).host, False)
    app.cluster.wait_until_streaming()


def test_reads_leave_a_member_that_was_removed_and_use_one_that_is_new(cluster: LocalCluster, app: App) -> None:
    """No restart, no setting: what Patroni lists is what is used. The node is unknown to it in between."""
    replicas = {node.name for node in cluster.nodes if node.name != cluster.leader}
    gone = min(replicas)
    topology = app.discovery.topology()
    readers: dict[str | None, tuple[psycopg.Connection[Any], Stamp]] = {}
    while set(readers) != replicas:
        connection, stamp = app.get(target="replica")
        readers[stamp.member] = (connection, stamp)
    cluster.kill_node(gone)
    assert cluster._etcd.delete_key(f"/service/{topology.scope}/members/{gone}")
    until(lambda: gone not in {member.name for member in app.discovery.topology().members})
    (other,) = replicas - {gone}
    assert app.why_unusable(*readers[gone], target="replica") is not None
    assert app.why_unusable(*readers[other], target="replica") is None
    assert {app.get(target="replica")[1].member for _ in range(8)} == {other}
    cluster.start_node(gone)
    until(lambda: app.get(target="replica")[1].member == gone)


def test_a_hundred_writers_wait_for_a_crashed_primary_and_only_one_knocks(app: App) -> None:
    connection, _ = app.get()
    connection.close()
    app.cluster.kill_postgres()
    app.attempts.clear()
    started = threading.Barrier(100)

    def work() -> str | None:
        started.wait()
        connection, stamp = app.get()
        with connection:
            assert node_of(connection)[1] is False
        return stamp.member

    with ThreadPoolExecutor(100) as pool:
        served = set(pool.map(lambda _: work(), range(100)))
    assert len(served) == 1
    # One prober knocks in the alarm's cadence, then each connects once; a few may follow a stale view.
    assert len(app.attempts) < 100 + 100


def test_a_primary_that_restarts_in_place_is_found_again(app: App) -> None:
    app.cluster.patch_config({"primary_start_timeout": 300})
    connection, stamp = app.get()
    app.cluster.kill_postgres()
    until(lambda: app.why_unusable(connection, stamp) is not None)
    again, moved = app.get()
    assert moved.member == stamp.member
    assert node_of(again) == (stamp.address.host, False)


def test_the_api_of_one_node_down_is_survived(app: App) -> None:
    frozen = app.cluster.leader or ""
    app.cluster.freeze(next(n.name for n in app.cluster.nodes if n.name != frozen), patroni_only=True)
    for _ in range(6):
        app.discovery.wait_for_look()
        assert app.discovery.failure is None
        assert app.get()[1].member == frozen


def test_all_apis_down_with_a_warm_cache_serve_from_the_last_good_view(cluster: LocalCluster) -> None:
    app = App(cluster, timeout=0.3)
    app.get()
    for node in app.cluster.nodes:
        app.cluster.freeze(node.name, patroni_only=True)
    until(lambda: app.discovery.failure is not None)
    before = app.discovery.snapshot
    app.discovery.wait_for_look()
    assert app.discovery.snapshot is before
    connection, stamp = app.get()
    assert node_of(connection) == (stamp.address.host, False)
    assert before is not None
    assert app.discovery.topology() == before.topology
    app.discovery.close()


def test_all_apis_down_with_a_cold_cache_wait_and_go_on_when_one_is_back(cluster: LocalCluster) -> None:
    for node in cluster.nodes:
        cluster.freeze(node.name, patroni_only=True)
    app = App(cluster, timeout=0.3)
    with contextlib.closing(app.discovery), pytest.raises(NoPrimaryError, match=r"no answer within 0\.3 s"):
        app.get(failover_timeout=1)
    with pytest.raises(DiscoveryError, match="no answer within"):
        app.discovery.topology()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(app.get)
        cluster.thaw(cluster.nodes[0].name)
        assert waiting.result()[1].member is not None
    app.discovery.close()


def test_all_apis_down_with_a_cold_cache_use_the_fallback_hosts_and_prove_the_role(cluster: LocalCluster) -> None:
    leader = cluster.leader
    for node in cluster.nodes:
        cluster.freeze(node.name, patroni_only=True)
    app = App(cluster, timeout=0.3, fallback_hosts=[f"{node.host}:{node.port}" for node in cluster.nodes])
    with contextlib.closing(app.discovery):
        connection, stamp = app.get()
    assert stamp.member is None
    assert node_of(connection) == (cluster.node(leader or "").host, False)


def test_wrong_urls_are_named_at_once(cluster: LocalCluster) -> None:
    node = cluster.nodes[0]
    app = App(cluster, urls=[f"http://{node.host}:{node.port}", f"https://{node.host}:8008"])
    with contextlib.closing(app.discovery), pytest.raises((DiscoveryError, NoPrimaryError)) as caught:
        app.get(failover_timeout=1)
    assert f"http://{node.host}:{node.port}" in str(caught.value)
    assert "TLS failed" in str(caught.value)


def test_a_wrong_seed_is_skipped(cluster: LocalCluster) -> None:
    app = App(cluster, urls=["http://127.0.0.1:9", *cluster.urls])
    with contextlib.closing(app.discovery):
        assert app.discovery.primary().name == cluster.leader


def test_two_hundred_threads_share_one_request_at_a_time(cluster: LocalCluster) -> None:
    flights: list[int] = []
    flying = threading.Lock()

    class Counting(Discovery):
        def look(self) -> float:
            assert flying.acquire(blocking=False), "two looks at once"
            try:
                flights.append(threading.get_ident())
                return super().look()
            finally:
                flying.release()

    discovery = Counting(PatroniConfig(urls=cluster.urls))
    started = threading.Barrier(200)

    def ask(_: int) -> str:
        started.wait()
        return discovery.primary().name

    with contextlib.closing(discovery), ThreadPoolExecutor(200) as pool:
        assert set(pool.map(ask, range(200))) == {cluster.leader}
    assert len(set(flights)) == 1
    assert len(flights) <= 4


def test_coroutines_wait_without_blocking_the_loop(app: App) -> None:
    async def connect(attempt: Attempt) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**attempt_params(app.params, attempt))

    async def get() -> str | None:
        connection, stamp = await acquire_async(app.discovery, app.config, connect)
        await connection.close()
        return stamp.member

    async def main() -> tuple[set[str | None], int]:
        await get()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await asyncio.to_thread(app.cluster.kill_postgres)
        before = ticks
        served = set(await asyncio.gather(*(get() for _ in range(50))))
        ticking.cancel()
        return served, ticks - before

    served, ticks = asyncio.run(main())
    assert len(served) == 1
    assert ticks > 0


def test_a_cancelled_coroutine_lets_the_next_one_probe(app: App) -> None:
    async def never(attempt: Attempt) -> psycopg.AsyncConnection[Any]:
        await asyncio.sleep(3600)
        raise AssertionError(attempt)

    async def connect(attempt: Attempt) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**attempt_params(app.params, attempt))

    async def main() -> str | None:
        app.discovery.topology()
        prober = asyncio.create_task(acquire_async(app.discovery, app.config, never))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(acquire_async(app.discovery, app.config, connect))
        await asyncio.sleep(0.05)
        prober.cancel()
        connection, stamp = await waiting
        await connection.close()
        return stamp.member

    assert asyncio.run(main()) == app.cluster.leader


def test_a_forked_child_starts_clean_and_the_parent_goes_on(app: App) -> None:
    connection, _ = app.get()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # the child must reach its end without ever returning into pytest
        with contextlib.suppress(BaseException):
            mine, stamp = app.get()
            watchers = [thread.name for thread in threading.enumerate()].count("patroni-db watcher")
            os.write(writing, pickle.dumps((stamp.member, node_of(mine), watchers)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    member, node, watchers = pickle.loads(answer)
    assert member == app.cluster.leader
    assert node == (app.cluster.node(member).host, False)
    assert watchers == 1
    assert node_of(connection)[1] is False
    app.discovery.wait_for_look()
    assert app.discovery.failure is None


def test_uses_of_one_cluster_share_one_discovery_and_its_thread_ends_with_the_last(cluster: LocalCluster) -> None:
    def watchers() -> int:
        return sum(thread.name == "patroni-db watcher" for thread in threading.enumerate())

    before = watchers()
    # A cadence of its own, so that nobody else in this process shares it.
    writer = discovery_for(PatroniConfig(urls=cluster.urls, refresh=2.25))
    reader = discovery_for(PatroniConfig(urls=cluster.urls[::-1], refresh=2.25, target="replica"))
    assert writer is reader
    assert writer.primary().name == cluster.leader
    assert watchers() == before + 1
    del writer, reader
    until(lambda: watchers() == before)
