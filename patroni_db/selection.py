"""Which members may serve a target, and in which order to try them. Pure: the caller brings the random source."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

    from patroni_db.topology import Member, Topology

__all__ = ["Target", "candidates", "eligible_replica"]

_STATES_BY_RANK: Final = ("streaming", "in archive recovery", "running")


class Target(enum.StrEnum):
    """The kind of server a connection is for (setting ``patroni_target``)."""

    PRIMARY = "primary"
    PRIMARY_PREFERRED = "primary_preferred"
    REPLICA = "replica"
    REPLICA_PREFERRED = "replica_preferred"
    ANY = "any"

    @property
    def writes(self) -> bool:
        """Whether its user may write: a connection for it must never stay on a standby."""
        return self is Target.PRIMARY

    @property
    def in_hot_standby(self) -> bool | None:
        """The ``in_hot_standby`` a server must report: False, True, or None when either will do."""
        return {Target.PRIMARY: False, Target.REPLICA: True}.get(self)


def candidates(
    topology: Topology,
    target: Target,
    rng: random.Random,
    *,
    max_lag: int | None = None,
    tags: Sequence[Mapping[str, str]] = (),
    resting: frozenset[str] = frozenset(),
) -> tuple[Member, ...]:
    """Return the members to try for `target`, best first.

    Replicas of equal rank come in random order, so that load spreads. A member in quarantine is not
    left out but tried last: resting must never leave a target with nobody.

    :param topology: the view to choose from
    :param target: what the connection is for
    :param rng: shuffles equals
    :param max_lag: bytes; a replica with more, or with unknown, lag is not eligible
    :param tags: tag sets in order of preference; an empty set matches every member. A replica that
        matches none is not eligible. They do not apply to the primary
    :param resting: names of members in quarantine
    :returns: members with a known address; for :attr:`Target.PRIMARY` at most one
    """
    primary = (topology.primary,) if topology.primary else ()
    if target is Target.PRIMARY:
        return primary
    replicas = _replicas(topology, rng, max_lag, tags)
    if target is Target.ANY:
        ordered = [*primary, *replicas]
        rng.shuffle(ordered)
    elif target is Target.PRIMARY_PREFERRED:
        ordered = [*primary, *replicas]
    elif target is Target.REPLICA_PREFERRED:
        ordered = [*replicas, *primary]
    else:
        ordered = list(replicas)
    return tuple(sorted(ordered, key=lambda m: m.name in resting))


def eligible_replica(member: Member, *, max_lag: int | None = None) -> bool:
    """Return whether reads may be sent to `member` as a replica.

    Not eligible are the leader, a member without an address, one whose PostgreSQL is not up, one tagged
    ``noloadbalance``, and with `max_lag` (bytes) one whose lag is larger or unknown. A standby cluster's
    leader is a standby too, so it is eligible.
    """
    if not member.serves_reads:
        return False
    return max_lag is None or (member.lag is not None and member.lag <= max_lag)


def _replicas(
    topology: Topology, rng: random.Random, max_lag: int | None, tags: Sequence[Mapping[str, str]]
) -> list[Member]:
    pool = [m for m in topology.members if eligible_replica(m, max_lag=max_lag)]
    rng.shuffle(pool)
    if not tags:
        return sorted(pool, key=_rank)
    ranked = ((_first_match(m, tags), m) for m in pool)
    return [m for _, m in sorted(((i, m) for i, m in ranked if i is not None), key=lambda p: (p[0], _rank(p[1])))]


def _rank(member: Member) -> tuple[bool, int]:
    """Order replicas that stream before those that do not (yet), and a standby cluster's leader last.

    ``running`` is what Patroni before 3.0.4 calls every healthy replica, and later versions one that
    does not stream at the moment: readable, but second choice when others stream.
    """
    return (member.is_standby_leader, _STATES_BY_RANK.index(member.state))


def _first_match(member: Member, tags: Iterable[Mapping[str, str]]) -> int | None:
    for index, wanted in enumerate(tags):
        if all(_same_tag(member.tags.get(key), value) for key, value in wanted.items()):
            return index
    return None


def _same_tag(actual: Any, wanted: str) -> bool:
    """Compare a JSON value with what a setting spells: ``zone=a``, ``priority=2``, ``fast=true``."""
    if isinstance(actual, bool):
        return wanted.lower() == str(actual).lower()
    return actual is not None and str(actual) == wanted
