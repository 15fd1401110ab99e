"""Views one after the other, for commands that stay: with a last good view while no API answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from patroni_db.cli.view import View, ask_members
from patroni_db.discovery import Discovery
from patroni_db.network import AddressBook

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.errors import DiscoveryError

__all__ = ["Observer"]

_LEAST_PATIENCE: Final = 0.5


class Observer:
    """Looks at a cluster again and again, through whichever API answers, learned ones included.

    :param config: whom to ask, and how
    :param check: ask each member about itself too
    """

    def __init__(self, config: PatroniConfig, *, check: bool) -> None:
        self._config = config
        self._check = check
        self._book = AddressBook.of(config)
        self._discovery = Discovery(config)
        self._view: View | None = None
        self.failure: DiscoveryError | None = None
        self.age = 0.0

    def look(self, timeout: float | None = None) -> View | None:
        """Look now. Return the new view, or the last good one when that failed; None before the first.

        Afterwards ``failure`` says why the look failed, None when it did not; ``age`` is the seconds since
        the view was confirmed.

        :param timeout: about how many seconds it may take; never less than one request may
        """
        discovery = self._discovery
        began = discovery.clock()
        discovery.wait_for_look(None if timeout is None else max(timeout, self._config.timeout))
        snapshot, self.failure = discovery.snapshot, discovery.failure
        if snapshot is not None and self.failure is None:
            left = self._config.timeout if timeout is None else began + timeout - discovery.clock()
            patience = min(self._config.timeout, max(left, _LEAST_PATIENCE))
            asking = self._config.replace(timeout=patience)
            answers = ask_members(asking, self._book, snapshot.topology) if self._check else {}
            self._view = View(snapshot.topology, snapshot.source, self._book, answers)
        self.age = discovery.clock() - snapshot.seen_at if snapshot else 0.0
        return self._view

    def __enter__(self) -> Self:
        """Return the observer itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End its background thread."""
        self._discovery.close()
