"""The cluster as last seen, with all that routing goes by. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patroni_db.network import AddressBook
    from patroni_db.topology import Address, Member, Topology

__all__ = ["Snapshot"]


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """The cluster as last seen. Immutable; compare `generation` to learn whether routing moved.

    :param topology: the view
    :param generation: moves when routing does (leader, timeline, an address, who serves reads, tags), when a member's
        quarantine ends, or begins because reads failed, and when one hangs or answers again
    :param source: the URL that gave the view
    :param seen_at: when it was last confirmed, in seconds of the discovery's clock
    :param timeline: the highest timeline a leader was seen on
    :param book: which addresses to connect to
    :param silent: names of members whose servers hang
    :param failing: names of members in quarantine because reads failed on them
    """

    topology: Topology
    generation: int
    source: str
    seen_at: float
    timeline: int
    book: AddressBook
    silent: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()

    def address_of(self, member: Member) -> Address | None:
        """Return where to connect to `member` from here, None when it has no allowed address."""
        return self.book.address_of(member)

    @property
    def primary(self) -> tuple[Member, Address] | None:
        """The primary that Patroni names and its reachable address; None while there is none."""
        member = self.topology.primary
        address = self.address_of(member) if member else None
        return (member, address) if member and address else None
