"""Where tools connect that make their own connections: the servers of the last view, in an order that stays.

Such a tool takes parameters once and connects with them later, perhaps after a failover. So several servers are named,
and the driver proves the role (``target_session_attrs``).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final, Protocol

from patroni_db.errors import DiscoveryError
from patroni_db.libpq import NO_HOSTADDR, server_params
from patroni_db.selection import Target, candidates
from patroni_db.topology import Address

if TYPE_CHECKING:
    from patroni_db.config import PatroniConfig
    from patroni_db.discovery import Discovery
    from patroni_db.topology import Member, Topology

__all__ = ["View", "outside_addresses", "outside_params", "servers"]

# Nothing is known of the cluster: whoever connects is told so, instead of being sent to the local host.
_NOWHERE: Final = Address("no-patroni-api-has-answered.invalid", 5432)


class View(Protocol):
    """A view of a cluster."""

    @property
    def topology(self) -> Topology:
        """The members."""

    def address_of(self, member: Member) -> Address | None:
        """Return where to connect to `member`."""


def servers(view: View, config: PatroniConfig, rng: random.Random, *, everybody: bool) -> list[tuple[Member, Address]]:
    """Return the members to name in connection parameters, the best first, each with its address.

    :param everybody: whether to name those last that are not eligible now: after a failover they may be
    """
    chosen = candidates(view.topology, config.target, rng, max_lag=config.max_lag, tags=config.tags)
    members = [*chosen, *(m for m in view.topology.members if everybody and m not in chosen)]
    return [(member, address) for member in members if (address := view.address_of(member))]


def outside_addresses(discovery: Discovery, config: PatroniConfig) -> list[Address]:
    """Return the addresses for a tool that connects by itself: the same while the view is the same.

    Those that serve the target, and for the primary the other members too. Waits for a look if there is no view yet;
    without any view they are ``patroni_fallback_hosts``, or a name that no server has.
    """
    if discovery.snapshot is None:
        try:
            discovery.topology()
        except DiscoveryError:
            return list(config.fallback_hosts) or [_NOWHERE]
    snapshot = discovery.snapshot
    if snapshot is None:
        return [_NOWHERE]
    steady = random.Random(0)  # noqa: S311 - for an order that stays
    found = servers(snapshot, config, steady, everybody=config.target is Target.PRIMARY)
    found = found or servers(snapshot, config, steady, everybody=True)
    return [address for _, address in found] or [_NOWHERE]


def outside_params(discovery: Discovery, config: PatroniConfig) -> dict[str, Any]:
    """Return libpq's parameters that name the servers for a tool that connects by itself, and the role to prove."""
    return {**server_params(outside_addresses(discovery, config), config.target), "hostaddr": NO_HOSTADDR}
