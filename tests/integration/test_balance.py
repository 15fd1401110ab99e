"""A replica that comes back gets its share of the connections that are kept, in small steps."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from django_backend import session_state
from patroni_db import PatroniConfig, discovery_for
from tests.django.backends import project
from tests.integration.faults import eventually
from tests.sqlalchemy.clients import ThreadClient, make_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_backend.pool import PatroniPool
    from patroni_db.cluster import LocalCluster

pytestmark = pytest.mark.timeout(120)

SESSION = "SELECT host(inet_server_addr()), pg_backend_pid()"
EACH = 8
REFRESH = 0.5

Sessions = set[tuple[str, int]]


@pytest.fixture(autouse=True)
def free(django_db_blocker: Any, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Let wrappers connect: pytest-django forbids it, as it knows only the project's own database."""
    with django_db_blocker.unblock():
        yield
    # psycopg's pool logs connections as objects, which keep their pool, and that the discovery with its thread.
    caplog.get_records("call").clear()


class Kept:
    """Connections that an application keeps: pools of both frameworks, and persistent ones of Django's threads."""

    def __init__(self, cluster: LocalCluster, stack: contextlib.ExitStack, target: str) -> None:
        settings = {"target": target, "refresh": REFRESH}
        client = make_client("dialect", cluster, {"pool_size": EACH}, **settings)
        stack.callback(client.close)
        assert isinstance(client, ThreadClient)
        self._engine = client.engine
        options = {f"patroni_{name}": value for name, value in settings.items()}
        pool = {"min_size": EACH, "max_size": EACH}
        self._pooled = stack.enter_context(project(cluster, OPTIONS={**options, "pool": pool}))["replica"]
        self._persistent = stack.enter_context(project(cluster, CONN_MAX_AGE=None, OPTIONS=options))
        self._workers = stack.enter_context(ThreadPoolExecutor(EACH))
        stack.callback(self._in_each_worker, self._close)

    def hand_out_all(self) -> Sessions:
        """Use all connections once; return where each leads, and its process there."""
        found = self._of_the_engine() | self._of_the_pool() | set(self._in_each_worker(self._request))
        assert len(found) == 3 * EACH
        return found

    def _of_the_engine(self) -> Sessions:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self._engine.connect()) for _ in range(EACH)]
            rows = [connection.execute(text(SESSION)).one() for connection in connections]
        return {(host, pid) for host, pid in rows}

    def _of_the_pool(self) -> Sessions:
        self._pooled.ensure_connection()
        self._pooled.close()
        pool: PatroniPool | None = self._pooled.pool
        assert pool is not None
        connections = [pool.getconn() for _ in range(EACH)]
        rows = [connection.execute(SESSION).fetchone() or ("", 0) for connection in connections]
        for connection in connections:
            pool.putconn(connection)
        return {(host, pid) for host, pid in rows}

    def _request(self) -> tuple[str, int]:
        wrapper = self._persistent["replica"]
        wrapper.close_if_unusable_or_obsolete()
        with wrapper.cursor() as cursor:
            cursor.execute(SESSION)
            host, pid = cursor.fetchone()
        wrapper.close_if_unusable_or_obsolete()
        return host, pid

    def _close(self) -> None:
        self._persistent["replica"].close()  # of the thread that calls it

    def _in_each_worker(self, work: Any) -> list[Any]:
        together = threading.Barrier(EACH)

        def run(_: int) -> Any:
            together.wait(30)
            return work()

        return list(self._workers.map(run, range(EACH)))


def hosts(sessions: Sessions) -> Counter[str]:
    return Counter(host for host, _ in sessions)


def test_a_replica_that_comes_back_gets_its_share_without_a_storm(healthy_patroni_cluster: LocalCluster) -> None:
    cluster = healthy_patroni_cluster
    first, second = (node for node in cluster.nodes if node.name != cluster.leader)
    discovery = discovery_for(PatroniConfig(urls=cluster.urls, refresh=REFRESH))
    with contextlib.ExitStack() as stack:
        kept = Kept(cluster, stack, "replica")

        def both_share() -> bool:
            found = hosts(kept.hand_out_all())
            return abs(found[first.host] - found[second.host]) <= 1

        eventually(both_share, "both replicas to share the connections")
        cluster.kill_node(first.name)
        assert hosts(kept.hand_out_all()) == {second.host: 3 * EACH}

        cluster.start_node(first.name)
        began = discovery.clock()
        before = kept.hand_out_all()
        replaced = 0
        while hosts(before)[first.host] < 3 * EACH // 2:
            after = kept.hand_out_all()
            replaced += len(after - before)
            looks = (discovery.clock() - began) / REFRESH + 2
            assert replaced <= looks * (3 * EACH // 10), "a tenth a look"
            assert looks < 200, "it never got its share"
            before = after
        assert replaced <= 3 * EACH // 2 + 2, "hardly one was replaced in vain"
        settled = kept.hand_out_all()
        for _ in range(3):
            discovery.wait_for_look()
            assert len(kept.hand_out_all() - settled) <= 1


@pytest.mark.thorough  # the same steps, to members of another rank
def test_readers_on_the_primary_go_back_to_replicas_without_a_storm(
    healthy_patroni_cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_state, "_ENDLESS", 1.0)
    cluster = healthy_patroni_cluster
    leader = cluster.leader
    assert leader is not None
    primary, replicas = cluster.node(leader).host, [node.name for node in cluster.nodes if node.name != leader]
    discovery = discovery_for(PatroniConfig(urls=cluster.urls, refresh=REFRESH))
    with contextlib.ExitStack() as stack:
        kept = Kept(cluster, stack, "replica_preferred")
        options = {"patroni_target": "replica_preferred", "patroni_refresh": REFRESH}
        job = stack.enter_context(project(cluster, OPTIONS=options))["replica"]  # never at a request's end
        stack.callback(job.close)

        def job_reads_from() -> str:
            with job.cursor() as cursor:
                cursor.execute(SESSION)
                return str(cursor.fetchone()[0])

        for name in replicas:
            cluster.kill_node(name)
        assert hosts(kept.hand_out_all()) == {primary: 3 * EACH}
        assert job_reads_from() == primary

        for name in replicas:
            cluster.start_node(name)
        began = discovery.clock()
        before = kept.hand_out_all()
        replaced = 0
        while hosts(before)[primary]:
            after = kept.hand_out_all()
            replaced += len(after - before)
            looks = (discovery.clock() - began) / REFRESH + 2
            assert replaced <= looks * (3 * EACH // 10), "a tenth a look"
            assert looks < 200, "some stay on the primary"
            before = after
        eventually(lambda: job_reads_from() != primary, "the job to leave the primary")
