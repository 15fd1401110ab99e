"""Whether all that is promised of transactions holds: through faults, and over a network that loses answers to COMMIT.

The short form of what ``make chaos`` does for minutes: Django, SQLAlchemy and the example project behind gunicorn, with
synchronous replication, and a look at everything that is stored afterwards.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from patroni_db.demo.history import Outcome, Row, Write

from .synchronous import replicate_synchronously, wait_for_synchronous_standby

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from patroni_db.cluster import LocalCluster

# The benchmarks are in a checkout alone.
clients = pytest.importorskip("benchmarks.chaos.clients")
collecting = pytest.importorskip("benchmarks.chaos.collecting")
running = pytest.importorskip("benchmarks.running")
stages = pytest.importorskip("benchmarks.chaos.stage")
pytest.importorskip("gunicorn")

ONCE = [application for application in clients.CLIENTS if application.once]
PACE = 0.02
AT_WORK = 90.0
DATABASE = "exactly_once"
NAIVE = "naive"


@pytest.fixture(scope="module")
def stage(patroni_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The shared cluster, replicating synchronously, with a database for these tests alone, behind a lossy network."""
    cluster = patroni_cluster
    cluster.heal()
    replicate_synchronously(cluster)
    folder = tmp_path_factory.mktemp("exactly-once")
    folder.chmod(0o755)
    with psycopg.connect(cluster.conninfo(cluster.leader), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER {cluster.user}")
    with stages.set_stage(cluster, DATABASE, folder, seed=1, losses=0.1) as stage:
        yield stage
    cluster.heal()
    with psycopg.connect(cluster.conninfo(cluster.leader), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def superuser_conninfo(cluster: LocalCluster) -> str:
    return cluster.conninfo(cluster.wait_for_leader(), dbname=DATABASE)


def at_work(those: list[Any], since: float) -> None:
    """Wait until every worker of every client has written again."""
    running.wait_until(lambda: all(client.oldest_success > since for client in those), those, AT_WORK, "work")


def account(cluster: LocalCluster, those: list[Any]) -> tuple[list[Write], list[Row], dict[str, int]]:
    """Return what the clients wrote down, and what is stored."""
    names = {node.host: node.name for node in cluster.nodes}
    with psycopg.connect(superuser_conninfo(cluster)) as connection:
        rows, imbalance = collecting.rows_of(connection, names), collecting.imbalance_of(connection)
    writes = [operation for client in those for operation in collecting.operations_of(client, names)]
    return writes, list(rows), imbalance


def count(rows: Iterable[Row]) -> collections.Counter[str]:
    return collections.Counter(row.reference for row in rows)


def switchover(cluster: LocalCluster) -> None:
    cluster.switchover(wait=False)


def kill(cluster: LocalCluster) -> None:
    cluster.kill_postgres(cluster.wait_for_leader())


def freeze(cluster: LocalCluster) -> None:
    """Let the primary's host stop answering, and its lock run out."""
    frozen = cluster.freeze(cluster.wait_for_leader())
    time.sleep(0.5)
    cluster.expire_leader()
    cluster.wait_for_leader(other_than=frozen)
    cluster.thaw(frozen)


def cut_off(cluster: LocalCluster) -> None:
    """Cut everybody off from etcd, until the primary has stepped down."""
    cluster.stop_etcd()
    time.sleep(4.0)
    cluster.start_etcd()


FAULTS: tuple[Callable[[LocalCluster], None], ...] = (switchover, cut_off, kill, freeze)


def test_without_markers_the_same_look_finds_what_was_done_twice(stage: Any) -> None:
    """Whoever runs a transaction again without asking what became of it does some twice: the look must find it."""
    (sqlalchemy,) = (application for application in ONCE if application.name == "once-sqlalchemy")
    with stage.start(dataclasses.replace(sqlalchemy, name=NAIVE), PACE, exactly_once=False) as client:
        at_work([client], 0.0)

        def doubled() -> bool:
            with psycopg.connect(superuser_conninfo(stage.cluster)) as connection:
                return max(count(collecting.rows_of(connection, {})).values(), default=0) > 1

        running.wait_until(doubled, [client], AT_WORK, "a doubled write")


def test_nothing_is_lost_doubled_or_refused_through_faults(stage: Any) -> None:
    cluster = stage.cluster
    with contextlib.ExitStack() as stack:
        those = [stack.enter_context(stage.start(application, PACE)) for application in ONCE]
        at_work(those, 0.0)
        for fault in FAULTS:
            # Without one the primary acknowledges what nobody else has.
            wait_for_synchronous_standby(cluster)
            fault(cluster)
            at_work(those, time.monotonic())
        running.stop_all(those)
        writes, rows, imbalance = account(cluster, those)
    assert {write.client for write in writes} == {application.name for application in ONCE}
    stored = count(row for row in rows if not row.reference.startswith(f"{NAIVE}/"))
    failed = {write.error for write in writes if write.outcome is Outcome.RAISED}
    assert not failed
    acknowledged = [write.reference for write in writes if write.outcome is Outcome.ACKNOWLEDGED]
    assert [reference for reference in acknowledged if stored.get(reference, 0) != 1] == []
    assert {reference for reference, times in stored.items() if times > 1} == set()
    assert imbalance == {"accounts": 0, "shop": 0}
