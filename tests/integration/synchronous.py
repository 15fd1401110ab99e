"""Synchronous replication for a while, on the cluster that all tests share.

Without it a replica may be promoted that has not received what the crashed primary acknowledged last: whoever counts
acknowledged writes after a crash needs a synchronous standby before it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from patroni_db.cluster.rest import get_json

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

__all__ = ["replicate_synchronously", "wait_for_synchronous_standby"]

PATIENCE = 60.0


def replicate_synchronously(cluster: LocalCluster) -> None:
    """Switch it on until the cluster is healed before the next test, and wait until it is in force."""
    cluster.patch_config({"synchronous_mode": True})
    wait_for_synchronous_standby(cluster)


def wait_for_synchronous_standby(cluster: LocalCluster) -> None:
    """Wait until Patroni names one: only it may take over.

    The leader of this moment is asked: what a discovery knows may be from before the last fault.
    """
    deadline = time.monotonic() + PATIENCE
    while not _has_synchronous_standby(cluster):
        assert time.monotonic() < deadline, "no synchronous standby"
        time.sleep(0.05)


def _has_synchronous_standby(cluster: LocalCluster) -> bool:
    leader = cluster.leader
    if leader is None:
        return False
    node = cluster.node(leader)
    view = get_json((node.host, node.api_port), "/cluster", timeout=2.0) or {}
    roles = {row.get("name"): row.get("role") for row in view.get("members", ())}
    return roles.get(leader) == "leader" and "sync_standby" in roles.values()
