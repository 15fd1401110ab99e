"""Synchronous replication for a while, on the cluster that all tests share.

Without it a replica may be promoted that has not received what the crashed primary acknowledged last: whoever counts
acknowledged writes after a crash needs a synchronous standby before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patroni_db.config import PatroniConfig
from patroni_db.discovery import discovery_for
from patroni_db.topology import Member, Role, Topology

if TYPE_CHECKING:
    from patroni_db.cluster import LocalCluster

__all__ = ["replicate_synchronously", "wait_for_synchronous_standby"]


def replicate_synchronously(cluster: LocalCluster) -> None:
    """Switch it on until the cluster is healed before the next test, and wait until it is in force."""
    cluster.patch_config({"synchronous_mode": True})
    wait_for_synchronous_standby(cluster)


def wait_for_synchronous_standby(cluster: LocalCluster) -> None:
    """Wait until Patroni names one: only it may take over."""
    found = discovery_for(PatroniConfig(urls=cluster.urls)).wait_for(_synchronous_standby, 60)
    assert found is not None, "no synchronous standby"


def _synchronous_standby(topology: Topology) -> Member | None:
    return next((member for member in topology.members if member.role == Role.SYNC_STANDBY), None)
