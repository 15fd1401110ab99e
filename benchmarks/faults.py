"""The faults: how each is made, and undone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.partition import Partition
    from patroni_db.cluster import LocalCluster

__all__ = ["FAULTS", "FaultKind", "Scene", "fault_of"]

# Seconds that etcd is down: longer than the primary goes on without it (retry_timeout 3).
_ETCD_DOWN = 8.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault is made to.

    :param cluster: the cluster
    :param primary: its primary before the fault
    :param partition: the network around the primary, when there is to be a partition
    :param expire: whether a dead leader's lock is taken away at once, instead of at the end of its ttl
    """

    cluster: LocalCluster
    primary: str
    partition: Partition | None
    expire: bool

    @property
    def replica(self) -> str:
        """The name of a replica."""
        return next(node.name for node in self.cluster.nodes if node.name != self.primary)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A fault.

    :param name: short, for the command line
    :param label: what the tables call it
    :param make: makes it
    :param undo: undoes it, while the clients go on
    :param primary_start_timeout: seconds that Patroni lets a crashed primary restart in place
    :param has_outage: whether the cluster itself cannot be written to for a time, or moves its primary
    :param needs_partition: whether it needs a network namespace
    """

    name: str
    label: str
    make: Callable[[Scene], object]
    undo: Callable[[Scene], object] | None = None
    primary_start_timeout: int = 0
    has_outage: bool = True
    needs_partition: bool = False


def _kill_node(scene: Scene) -> None:
    scene.cluster.kill_node(scene.primary)
    if scene.expire:
        scene.cluster.expire_leader()


def _stop_etcd(scene: Scene) -> None:
    scene.cluster.stop_etcd()
    time.sleep(_ETCD_DOWN)
    scene.cluster.start_etcd()


def _thaw_primary(scene: Scene) -> None:
    scene.cluster.thaw(scene.primary)


def _cut(scene: Scene) -> None:
    assert scene.partition is not None  # noqa: S101 - by needs_partition
    scene.partition.cut()


def _mend(scene: Scene) -> None:
    assert scene.partition is not None  # noqa: S101 - by needs_partition
    scene.partition.mend()


FAULTS = (
    FaultKind("switchover", "switchover", lambda scene: scene.cluster.switchover(wait=False)),
    FaultKind(
        "postgres-killed",
        "PostgreSQL killed, failover",
        lambda scene: scene.cluster.kill_postgres(scene.primary),
    ),
    FaultKind(
        "postgres-restarted",
        "PostgreSQL killed, restarted in place",
        lambda scene: scene.cluster.kill_postgres(scene.primary),
        primary_start_timeout=300,
    ),
    FaultKind("node-killed", "primary's node killed", _kill_node),
    FaultKind("node-frozen", "primary's node frozen", lambda scene: scene.cluster.freeze(scene.primary), _thaw_primary),
    FaultKind(
        "patroni-frozen",
        "primary's Patroni frozen",
        lambda scene: scene.cluster.freeze(scene.primary, patroni_only=True),
        _thaw_primary,
    ),
    FaultKind("etcd-stopped", f"etcd stopped for {_ETCD_DOWN:g} s", _stop_etcd),
    FaultKind(
        "api-dead",
        "a replica's REST API frozen",
        lambda scene: scene.cluster.freeze(scene.replica, patroni_only=True),
        lambda scene: scene.cluster.thaw(scene.replica),
        has_outage=False,
    ),
    FaultKind("partition", "primary's host cut off", _cut, _mend, needs_partition=True),
)


def fault_of(name: str) -> FaultKind:
    """Return the fault called `name`."""
    return next(kind for kind in FAULTS if kind.name == name)
