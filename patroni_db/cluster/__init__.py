"""A real Patroni cluster on this machine, for demonstrations and tests.

One etcd, some Patroni nodes with PostgreSQL, each on a loopback address of its own, and the faults a
cluster meets in life. Needs the servers, which the extra ``cluster`` installs where wheels of them exist.
"""

from __future__ import annotations

from patroni_db.cluster.local import LocalCluster
from patroni_db.cluster.nodes import Node, NodeStatus, ProcessState

__all__ = ["LocalCluster", "Node", "NodeStatus", "ProcessState"]
