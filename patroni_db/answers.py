"""What the APIs of one cluster answered lately, and which of it to believe: in an alarm all of them are asked.

No I/O. One lock of the caller's guards it: that under which views are published.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from patroni_db.errors import DiscoveryError
from patroni_db.views import View, best_view, confirmed_leaders

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from patroni_db.client import NodeStatus
    from patroni_db.network import AddressBook
    from patroni_db.topology import Topology

__all__ = ["Answers"]

# In an alarm views this old still count beside newer ones of other APIs.
_MEMORY: Final = 0.25
# So long some node may still name a leader that another knows to be gone; /cluster follows within 50 ms (recorded).
_FORMER_MEMORY: Final = 0.5


class Answers:
    """The latest answer of each API.

    :param book: where the members' APIs are
    :param clock: seconds, monotonic
    """

    def __init__(self, book: AddressBook, clock: Callable[[], float]) -> None:
        self._book = book
        self._clock = clock
        self._views: dict[str, View | DiscoveryError] = {}
        self._statuses: dict[str, NodeStatus | None] = {}
        # The leader seen last before this one, and until when views that still name it are not believed.
        self._former: tuple[str | None, float] = (None, -math.inf)
        # When the latest of the views that were published had been asked for.
        self._asked_at = -math.inf

    def keep(self, urls: Collection[str]) -> None:
        """Forget the answers of all other URLs."""
        self._views = {url: view for url, view in self._views.items() if url in urls}
        self._statuses = {url: status for url, status in self._statuses.items() if url in urls}

    def of(self, url: str) -> View | DiscoveryError | None:
        """Return the latest answer of the API at `url` in an alarm; None when there is none."""
        return self._views.get(url)

    def note_status(self, url: str, answer: View | DiscoveryError) -> None:
        """Take what an answer says of the node that gave it."""
        self._statuses[url] = answer.status if isinstance(answer, View) else None

    def note(self, url: str, answer: View | DiscoveryError) -> None:
        """Take an answer that was checked."""
        self._views[url] = answer

    def status(self, url: str) -> NodeStatus:
        """Return what the API at `url` said of its own node.

        :raises DiscoveryError: it has not said that
        """
        status = self._statuses.get(url)
        if status is None:
            raise DiscoveryError(url, "has not said what it is", transient=True)
        return status

    def recent_status(self, url: str) -> NodeStatus | DiscoveryError | None:
        """Return what the API at `url` said of its node a moment ago, or why it does not answer; else None."""
        answer = self._views.get(url)
        if isinstance(answer, View):
            return answer.status if self._clock() - answer.at <= _MEMORY else None
        return answer

    def failures(self, urls: Collection[str]) -> list[DiscoveryError]:
        """Return why each of `urls` gave no usable answer; none while one of them did, or has not answered yet."""
        answers = [self._views.get(url) for url in urls]
        failures = [answer for answer in answers if isinstance(answer, DiscoveryError)]
        return failures if len(failures) == len(urls) else []

    def is_overtaken(self, view: View) -> bool:
        """Return whether a view that was asked for later has been published: a node in trouble answers slowly."""
        return view.at < self._asked_at

    def best(self, answer: View) -> View | None:
        """Return the view to believe now that `answer` has come; None when that says nothing new."""
        now = self._clock()
        recent = now - _MEMORY
        if answer.at < recent and self.is_overtaken(answer):
            return None
        views = [view for view in self._views.values() if isinstance(view, View) and view.at >= recent] or [answer]
        leader_url = {view.url: leading for view in views if (leading := self.leader_url(view.topology))}
        confirmed = confirmed_leaders(views)
        best = best_view(views, confirmed, leader_url)
        leader = best.topology.leader
        returns = leader is not None and (leader.name, True) == (self._former[0], now < self._former[1])
        if returns and leader_url.get(best.url) not in confirmed:
            return None  # another node has not heard yet
        return best

    def published(self, view: View) -> None:
        """Take note that `view` is the one that everybody sees."""
        self._asked_at = max(self._asked_at, view.at)

    def leaves(self, leader: str) -> None:
        """Take note that `leader` has just been seen to lead no longer."""
        self._former = (leader, self._clock() + _FORMER_MEMORY)

    def leader_url(self, topology: Topology) -> str | None:
        """Return the URL of the leader's API; None when there is none that may be asked."""
        return self._book.api_url(topology.leader) if topology.leader else None
