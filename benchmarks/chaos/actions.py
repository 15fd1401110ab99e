"""The faults carried out: made to whoever is the primary or a replica at that moment, and undone."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.chaos.incidents import Incident
from patroni_db.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.chaos.schedule import Planned
    from benchmarks.partition import Partition
    from patroni_db.cluster import LocalCluster

__all__ = ["Actor", "Impossible", "UnderWay"]

# A leader that falls silent keeps its lock for the ttl less loop_wait (19 s here, 20 s with Patroni's defaults): time
# enough for a client to notice, which looks each 2 s (patroni_refresh) and waits 2 s for an answer (patroni_timeout).
# The test has less patience, but no less than that takes.
_LAPSE = 5.0
# What is made to no node in particular.
_NOWHERE = {"paused", "etcd-stopped"}
_SILENT = {"node-frozen", "patroni-frozen", "partition"}


class Impossible(Exception):  # noqa: N818 - is not an error: the next fault is made
    """A fault cannot be made now, or not on this machine; the message tells why."""


@dataclass(slots=True)
class UnderWay:
    """A fault that was made.

    :param planned: as it was drawn
    :param node: the node it was made to; None when it was made to none
    :param at: just before it was made
    :param lapses: when the lock of a leader that fell silent is taken away; None when it is not, or was already
    """

    planned: Planned
    node: str | None
    at: float
    lapses: float | None = None
    undone: float | None = None

    @property
    def due(self) -> float:
        """When it is to be undone."""
        return self.at + self.planned.hold

    def incident(self) -> Incident:
        """Return what is to be told of it."""
        return Incident(self.planned.kind, self.node, self.at, self.undone)


class Actor:
    """Who makes and undoes faults.

    :param cluster: the cluster
    :param partition: the network around one node, where there can be a partition
    """

    def __init__(self, cluster: LocalCluster, partition: Partition | None) -> None:
        self._cluster = cluster
        self._partition = partition
        self._primary = cluster.wait_for_leader()
        self._makers: dict[str, Callable[[str], object]] = {
            "postgres-killed": cluster.kill_postgres,
            "node-killed": self._kill_node,
            "node-frozen": cluster.freeze,
            "patroni-frozen": lambda node: cluster.freeze(node, patroni_only=True),
            "api-dead": lambda node: cluster.freeze(node, patroni_only=True),
            "switchover": lambda _: cluster.switchover(wait=False),
            # Without waiting until every node knows: one of them may be frozen.
            "paused": lambda _: cluster.patch_config({"pause": True}),
            "etcd-stopped": lambda _: cluster.stop_etcd(),
            "partition": lambda _: self._cut(),
        }
        self._undoers: dict[str, Callable[[str], object]] = {
            "node-killed": self._start_node,
            "node-frozen": cluster.thaw,
            "patroni-frozen": cluster.thaw,
            "api-dead": cluster.thaw,
            "paused": lambda _: cluster.patch_config({"pause": None}),
            "etcd-stopped": lambda _: cluster.start_etcd(),
            "partition": lambda _: self._mend(),
        }

    def make(self, planned: Planned, under_way: list[UnderWay]) -> UnderWay:
        """Make a fault.

        :param planned: which
        :param under_way: faults that were made and not undone; a node that is down, frozen or cut off is left alone
        :raises Impossible: it cannot be made
        """
        node = self._node_for(
            planned, {fault.node for fault in under_way if fault.node and fault.planned.kind in self._undoers}
        )
        at = time.monotonic()
        try:
            self._makers[planned.kind](node)
        except ClusterError as error:
            raise Impossible(str(error).splitlines()[0]) from error
        lapses = at + _LAPSE if node == self._primary and planned.kind in _SILENT else None
        return UnderWay(planned, None if planned.kind in _NOWHERE else node, at, lapses)

    def lapse(self, fault: UnderWay) -> None:
        """Take the lock away from a leader that fell silent, as the end of the ttl would."""
        fault.lapses = None
        if self._cluster.leader == fault.node:
            self._expire()

    def undo(self, fault: UnderWay) -> None:
        """Undo a fault, if that is not the cluster's own business.

        :raises ClusterError: the cluster does not do what it should
        """
        undo = self._undoers.get(fault.planned.kind)
        if undo is not None:
            undo(fault.node or "")
        fault.undone = time.monotonic()

    def _node_for(self, planned: Planned, taken: set[str]) -> str:
        self._primary = self._cluster.leader or self._primary
        if planned.kind == "partition":
            if self._partition is None:
                raise Impossible("there can be no partition here")
            if self._partition.node in taken:
                raise Impossible(f"{self._partition.node} has a fault already")
            return self._partition.node
        if planned.replica is None:
            node = self._primary
        else:
            replicas = [node.name for node in self._cluster.nodes if node.name != self._primary]
            node = replicas[planned.replica % len(replicas)]
        if node in taken and planned.kind not in _NOWHERE:
            raise Impossible(f"{node} has a fault already")
        return node

    def _kill_node(self, node: str) -> None:
        self._cluster.kill_node(node)
        if node == self._primary:
            self._expire()

    def _cut(self) -> None:
        assert self._partition is not None  # noqa: S101 - by _node_for
        self._partition.cut()

    def _expire(self) -> None:
        """Let the lock of a dead leader go: the whole ttl, 20 s, would leave room for few faults."""
        # While etcd is down there is no lock to take away.
        with contextlib.suppress(ClusterError):
            self._cluster.expire_leader()

    def _mend(self) -> None:
        assert self._partition is not None  # noqa: S101 - by _node_for
        self._partition.mend()

    def _start_node(self, node: str) -> None:
        if self._partition is not None and node == self._partition.node:
            self._partition.start_node()
        else:
            self._cluster.start_node(node)
