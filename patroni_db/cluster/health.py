"""How the servers of a local cluster are: by their own word, and in the view of the cluster that applications read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patroni_db.cluster import rest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from patroni_db.cluster.nodes import Node

__all__ = ["is_primary", "is_replica", "is_streaming", "own_view"]

_TIMEOUT = 2.0


def own_view(node: Node) -> dict[str, Any]:
    """Return what the node's Patroni says of its own node (``GET /patroni``); nothing when it does not answer."""
    return rest.get_json((node.host, node.api_port), "/patroni", timeout=_TIMEOUT) or {}


def is_primary(node: Node) -> bool:
    """Tell whether the node says of itself that its PostgreSQL is a running primary (``master`` before 4.0)."""
    view = own_view(node)
    return view.get("role") in ("primary", "master") and view.get("state") == "running"


def is_replica(node: Node, timeline: int | None = None) -> bool:
    """Tell whether the node says of itself that its PostgreSQL is a replica that streams.

    :param timeline: which it must be on; None takes any
    """
    view = own_view(node)
    return (
        view.get("role") == "replica"
        and view.get("state") == "running"
        and view.get("replication_state") == "streaming"
        and timeline in (None, view.get("timeline"))
    )


def is_streaming(leader: Node, replicas: Collection[Node], *, synchronous: bool) -> bool:
    """Tell whether all of them are well, by their own word and in the leader's view of the cluster.

    :param leader: the holder of the leader key
    :param replicas: the nodes that have to stream from it, on its timeline
    :param synchronous: whether one of them has to be a synchronous standby
    """
    if not is_primary(leader):
        return False
    timeline = own_view(leader).get("timeline")
    if not all(is_replica(replica, timeline) for replica in replicas):
        return False
    view = rest.get_json((leader.host, leader.api_port), "/cluster") or {}
    rows: dict[str, Mapping[str, Any]] = {row.get("name"): row for row in view.get("members", ())}
    row = rows.get(leader.name, {})
    if row.get("state") != "running" or row.get("role") != "leader":
        return False
    standbys = [rows.get(replica.name, {}) for replica in replicas]
    # "running" of a replica before Patroni 3.0.4; the node's own view was asked above.
    listed = all(row.get("state") in ("streaming", "running") and row.get("timeline") == timeline for row in standbys)
    guarded = not synchronous or not standbys
    return listed and (guarded or any(row.get("role") in ("sync_standby", "quorum_standby") for row in standbys))
