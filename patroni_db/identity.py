"""Which cluster this is and how far its history has come: what a view must agree with before it is believed."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from patroni_db.errors import DiscoveryError
from patroni_db.lineage import Lineage

if TYPE_CHECKING:
    from collections.abc import Callable

    from patroni_db.apis import Apis
    from patroni_db.client import NodeStatus
    from patroni_db.network import AddressBook
    from patroni_db.snapshot import Snapshot
    from patroni_db.topology import Member, Topology
    from patroni_db.views import View

__all__ = ["Identity"]

logger = logging.getLogger("patroni_db.discovery")

# So long after a leader was last seen on it a timeline counts (Patroni's default ttl). Then an earlier one is believed.
_TIMELINE_MEMORY: Final = 30.0


class Identity:
    """What is known of one cluster that outlives each view of it.

    :param scope: the cluster's name as configured; None takes that of the first view that is believed
    :param book: where the members' APIs are
    :param clock: seconds, monotonic
    """

    def __init__(self, scope: str | None, book: AddressBook, clock: Callable[[], float]) -> None:
        self._configured_scope = scope
        self._book = book
        self._clock = clock
        self._system_identifier: str | None = None
        self.scope = scope
        #: The highest timeline a leader was seen on, unless the cluster has gone back to an earlier one since.
        self.timeline = 0
        # When a leader was last seen on it.
        self._timeline_at = -math.inf
        #: The cluster's history as last seen; None while it is not known.
        self.lineage: Lineage | None = None
        #: Whether somebody needs the history: only then it is asked for.
        self.wants_lineage = False

    def check(self, view: View, known: Snapshot | None, status_of: Callable[[str], NodeStatus]) -> None:
        """Check that `view` may replace what is known.

        :param known: the view believed before
        :param status_of: tells what the node at a URL says of itself
        :raises DiscoveryError: it may not, and why
        """
        url, topology = view.url, view.topology
        if self.scope and topology.scope and topology.scope != self.scope:
            raise DiscoveryError(url, f"is an API of cluster {topology.scope!r}, not of {self.scope!r}")
        if not topology.members:
            raise DiscoveryError(url, "the cluster has no members yet", transient=True)
        leader = topology.leader
        if known is not None and leader is not None and self._is_behind(leader):
            self._check_earlier_timeline(url, leader, status_of)

    def believed(self, topology: Topology) -> None:
        """Take over what a view that is believed says of the cluster's name and timeline."""
        self.scope = self._configured_scope or topology.scope
        timeline = topology.leader.timeline if topology.leader is not None else None
        if timeline is None:
            return
        now, is_earlier = self._clock(), timeline < self.timeline
        if is_earlier and not self._is_forgotten(now):
            return  # it was promoted a moment ago, and has said so itself
        if is_earlier:
            name = self.scope or "the cluster"
            logger.warning("%s leads timeline %d, after %d: restored from a backup?", name, timeline, self.timeline)
        self.timeline, self._timeline_at = timeline, now

    def learn(self, snapshot: Snapshot, apis: Apis) -> None:
        """Ask whoever gave `snapshot` for what its view does not tell and is not known yet."""
        if self._system_identifier is None:
            self._learn_system_identifier(snapshot.source, apis)
        if self.wants_lineage:
            self._learn_lineage(snapshot, apis)

    def _is_behind(self, leader: Member) -> bool:
        if leader.timeline is None or leader.timeline >= self.timeline:
            return False
        return not self._is_forgotten(self._clock())

    def _is_forgotten(self, now: float) -> bool:
        """Return whether no leader was seen on the highest timeline for long."""
        return now - self._timeline_at > _TIMELINE_MEMORY

    def _check_earlier_timeline(self, url: str, leader: Member, status_of: Callable[[str], NodeStatus]) -> None:
        """Let the named leader itself explain an earlier timeline than the one known.

        A node's view can be a moment old, and would send writes back to a former primary. Two leaders are
        right all the same: one promoted a moment ago whose new timeline ``/cluster`` does not show yet (it
        trails by up to a second), and one of a cluster bootstrapped anew, which has another identity.

        :raises DiscoveryError: it is neither, or does not answer
        """
        stale = f"its view is behind: {leader.name} leads timeline {leader.timeline}, after {self.timeline}"
        api_url = self._book.api_url(leader)
        if api_url is None:
            raise DiscoveryError(url, stale, transient=True)
        try:
            status = status_of(api_url)
        except DiscoveryError as exc:
            raise DiscoveryError(url, stale, transient=True) from exc
        promoted = status.is_primary and status.timeline is not None and status.timeline >= self.timeline
        identifier = status.system_identifier
        anew = identifier is not None and self._system_identifier is not None and identifier != self._system_identifier
        if anew:
            logger.warning("%s was bootstrapped anew: system identifier %s", self.scope or "the cluster", identifier)
            self._system_identifier = identifier
            self.timeline = 0
            self.lineage = None
        elif promoted:
            self._timeline_at = self._clock()
        else:
            raise DiscoveryError(url, stale, transient=True)

    def _learn_system_identifier(self, url: str, apis: Apis) -> None:
        try:
            self._system_identifier = apis.ask_node(url).system_identifier
        except DiscoveryError as exc:
            # Only needed to tell a new cluster from an old view; the next look asks again.
            logger.debug("system identifier not learned: %s", str(exc))

    def _learn_lineage(self, snapshot: Snapshot, apis: Apis) -> None:
        """Ask for the cluster's history where the known one ends before the present timeline, or is another's."""
        known, identifier = self.lineage, self._system_identifier
        if identifier is None or (
            known is not None
            and known.is_complete
            and (known.system_identifier, known.timeline) == (identifier, snapshot.timeline)
        ):
            return
        try:
            switchpoints = apis.ask_history(snapshot.source)
        except DiscoveryError as exc:
            # Reads that need it go to the primary meanwhile; the next look asks again.
            logger.debug("history not learned: %s", str(exc))
            return
        self.lineage = Lineage(identifier, snapshot.timeline, switchpoints)
