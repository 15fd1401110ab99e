"""Several APIs' views of one cluster at about the same time, and which of them to believe. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from patroni_db.client import NodeStatus
    from patroni_db.topology import Topology

__all__ = ["View", "best_view", "confirmed_leaders"]


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What one API said.

    :param url: who said it
    :param topology: the cluster as it sees it
    :param status: what it says about its own node; None when it did not say
    :param at: when it was asked, in seconds of the discovery's clock
    """

    url: str
    topology: Topology
    status: NodeStatus | None
    at: float


def confirmed_leaders(views: Iterable[View]) -> frozenset[str]:
    """Return the URLs of nodes that say themselves that they are a running primary."""
    return frozenset(view.url for view in views if view.status is not None and view.status.is_primary)


def best_view(views: Collection[View], confirmed: Collection[str], leader_url: dict[str, str]) -> View:
    """Return the view to believe: the highest timeline, then a leader that confirms itself, then the latest.

    Views of one moment disagree while a leader changes: ``/cluster`` follows the change within 50 ms on each node,
    not at once on all, and the timeline it shows trails by up to a second (recorded).

    :param views: at least one
    :param confirmed: the URLs of :func:`confirmed_leaders`
    :param leader_url: for each view's URL, that of the leader it names
    """

    def rank(view: View) -> tuple[int, bool, bool, float]:
        leader = view.topology.leader
        timeline = (leader.timeline or 0) if leader else 0
        return timeline, leader_url.get(view.url) in confirmed, leader is not None, view.at

    return max(views, key=rank)
