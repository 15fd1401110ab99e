"""What becomes of a node whose PostgreSQL was killed: another leader, or a restart in place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from patroni_db.cluster.health import own_view

if TYPE_CHECKING:
    from patroni_db.cluster.local import LocalCluster

__all__ = ["CrashOutcome", "crash"]

_POLL: Final = 0.1


@dataclass(frozen=True, slots=True)
class CrashOutcome:
    """What happened after the crash.

    :param node: whose PostgreSQL was killed
    :param old_leader: who held the leader key before
    :param leader: who holds it afterwards; None when nobody does
    :param is_back: whether the node's PostgreSQL runs again, started after the crash
    :param waited: seconds until that was seen, or until the time was up
    """

    node: str
    old_leader: str | None
    leader: str | None
    is_back: bool
    waited: float

    @property
    def is_failover(self) -> bool:
        """Whether another node became the leader."""
        return self.node == self.old_leader and self.leader not in {None, self.node}

    def __str__(self) -> str:
        if self.is_failover:
            return f"failed over to {self.leader}"
        leader = f"{self.leader} leads" if self.leader else "nobody leads"
        if self.is_back:
            return "restarted in place" + ("; it still leads" if self.leader == self.node else f"; {leader}")
        holder = f"the leader key is held by {self.leader}" if self.leader else leader
        return f"killed; neither restarted nor failed over within {self.waited:.0f} s; {holder}"


def crash(cluster: LocalCluster, node: str | None, timeout: float) -> CrashOutcome:
    """Kill a node's PostgreSQL and wait until there is an outcome.

    :param node: its name; by default the leader's
    :param timeout: seconds to wait
    :raises ClusterError: PostgreSQL is not running there, or the cluster is not
    """
    old_leader = cluster.leader
    name = old_leader if node is None else node
    before = None if name is None else own_view(cluster.node(name)).get("postmaster_start_time")
    name = cluster.kill_postgres(name)
    began = time.monotonic()
    while True:
        view = own_view(cluster.node(name))
        is_back = view.get("state") == "running" and view.get("postmaster_start_time") not in {None, before}
        # `leader` counts only when it is a running primary.
        leader = cluster.leader
        moved = name == old_leader and leader not in {None, name} and cluster.is_primary(str(leader))
        waited = time.monotonic() - began
        if moved or is_back or waited > timeout:
            return CrashOutcome(name, old_leader, leader, is_back, waited)
        time.sleep(_POLL)
