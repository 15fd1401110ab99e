"""Which members may serve a target, and in which order to try them. Pure: the caller brings the random source.

Replicas have a rank: how early they match the tag sets, whether they stream. Those of equal rank share the load by
the power of two choices: two are drawn, and the one to which this process has fewer connections is taken. That
avoids the herd that always taking the least loaded makes of many processes, each of which sees only its own.
"""

from __future__ import annotations

import enum
import itertools
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from patroni_db.topology import Member, Topology

__all__ = ["Target", "TargetName", "candidates", "eligible_replica", "first_rank", "matches"]

# The values of Target, for type checkers.
TargetName = Literal["primary", "primary_preferred", "replica", "replica_preferred", "any"]

_STATES_BY_RANK: Final = ("streaming", "in archive recovery", "running")
_NO_LOADS: Final[Mapping[str, int]] = {}


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
    def only_reads(self) -> bool:
        """Whether it wants replicas: on the primary too its user only reads."""
        return self is Target.REPLICA or self is Target.REPLICA_PREFERRED

    @property
    def in_hot_standby(self) -> bool | None:
        """The ``in_hot_standby`` a server must report: False, True, or None when either will do."""
        if self is Target.PRIMARY:  # asked before each use of a connection: hashing members of an Enum is slow
            return False
        return True if self is Target.REPLICA else None


def candidates(
    topology: Topology,
    target: Target,
    rng: random.Random,
    *,
    max_lag: int | None = None,
    tags: Sequence[Mapping[str, str]] = (),
    resting: Collection[str] = frozenset(),
    loads: Mapping[str, int] = _NO_LOADS,
) -> tuple[Member, ...]:
    """Return the members to try for `target`, best first.

    A member in quarantine is not left out but tried last: resting must never leave a target with nobody.

    :param topology: the view to choose from
    :param target: what the connection is for
    :param rng: draws among those of equal rank
    :param max_lag: bytes; a replica with more, or with unknown, lag is not eligible
    :param tags: tag sets in order of preference; an empty set matches every member. A replica that
        matches none is not eligible. They do not apply to the primary
    :param resting: names of members in quarantine
    :param loads: how many connections the process has to each member, by name; nobody else has any. They count in
        proportion to the members' weights (:attr:`~patroni_db.topology.Member.weight`)
    :returns: members with a known address; for :attr:`Target.PRIMARY` at most one
    """
    ordered = [m for rank in _ranks(topology, target, max_lag, tags) for m in _drawn(rank, rng, loads)]
    return tuple(sorted(ordered, key=lambda m: m.name in resting))


def first_rank(
    topology: Topology,
    target: Target,
    *,
    max_lag: int | None = None,
    tags: Sequence[Mapping[str, str]] = (),
    resting: Collection[str] = frozenset(),
) -> tuple[Member, ...]:
    """Return the members of equal rank that share the connections for `target` now; parameters as above.

    Who rests is not among them, unless everybody does.
    """
    ranks = _ranks(topology, target, max_lag, tags)
    awake = ([m for m in rank if m.name not in resting] for rank in ranks)
    return tuple(next(filter(None, awake), ranks[0] if ranks else ()))


def eligible_replica(member: Member, *, max_lag: int | None = None, tags: Sequence[Mapping[str, str]] = ()) -> bool:
    """Return whether reads may be sent to `member` as a replica.

    Not eligible are the leader, a member without an address, one whose PostgreSQL is not up, one tagged
    ``noloadbalance``, with `max_lag` (bytes) one whose lag is larger or unknown, and with `tags` one that matches
    none of these sets. A standby cluster's leader is a standby too, so it is eligible.
    """
    if not member.serves_reads or (tags and not any(matches(member, wanted) for wanted in tags)):
        return False
    return max_lag is None or (member.lag is not None and member.lag <= max_lag)


def matches(member: Member, wanted: Mapping[str, str]) -> bool:
    """Return whether `member` has all tags of one set."""
    return all(_same_tag(member.tags.get(key), value) for key, value in wanted.items())


def _ranks(
    topology: Topology, target: Target, max_lag: int | None, tags: Sequence[Mapping[str, str]]
) -> list[list[Member]]:
    """Return the members that may serve `target`, in groups of equal rank, the best first."""
    primary = [topology.primary] if topology.primary else []
    if target is Target.PRIMARY:
        return [primary] if primary else []
    eligible = [m for m in topology.members if eligible_replica(m, max_lag=max_lag, tags=tags)]
    eligible.sort(key=lambda m: _rank(m, tags))
    replicas = [list(group) for _, group in itertools.groupby(eligible, key=lambda m: _rank(m, tags))]
    match target:
        case Target.ANY if replicas and primary:
            # The primary is the equal of the best replicas; a weight of 0 puts either behind the other.
            together = sorted([*primary, *replicas[0]], key=_is_last_resort)
            mixed = [list(group) for _, group in itertools.groupby(together, key=_is_last_resort)]
            return [*mixed, *replicas[1:]]
        case Target.PRIMARY_PREFERRED | Target.ANY:
            ranks = [primary, *replicas]
        case Target.REPLICA_PREFERRED:
            ranks = [*replicas, primary]
        case _:
            ranks = replicas
    return [rank for rank in ranks if rank]


def _rank(member: Member, tags: Sequence[Mapping[str, str]]) -> tuple[int, bool, int, bool]:
    """Order replicas by tag sets, then those that stream before those that do not (yet), a last resort after others.

    ``running`` is what Patroni before 3.0.4 calls every healthy replica, and later versions one that
    does not stream at the moment: readable, but second choice when others stream. A standby cluster's leader, which
    has the other nodes to feed, comes after its replicas.
    """
    first = next((index for index, wanted in enumerate(tags) if matches(member, wanted)), 0)
    return (first, member.is_standby_leader, _STATES_BY_RANK.index(member.state), _is_last_resort(member))


def _is_last_resort(member: Member) -> bool:
    return member.weight == 0


def _drawn(rank: Sequence[Member], rng: random.Random, loads: Mapping[str, int]) -> Iterable[Member]:
    """Yield members of equal rank, each time the less loaded of two that are drawn by weight."""
    if len(rank) == 1:
        return rank
    # Sorted by such a time of arrival, members come first in proportion to their weights (a race of Poisson processes).
    left = sorted(rank, key=lambda m: rng.expovariate(m.weight or 1.0))
    ordered = []
    while left:
        # Where both are equally loaded, as where a process has one connection only, the first drawn is taken.
        chosen = min(left[:2], key=lambda m: loads.get(m.name, 0) / (m.weight or 1.0))
        left.remove(chosen)
        ordered.append(chosen)
    return ordered


def _same_tag(actual: Any, wanted: str) -> bool:
    """Compare a JSON value with what a setting spells: ``zone=a``, ``priority=2``, ``fast=true``."""
    if isinstance(actual, bool):
        return wanted.lower() == str(actual).lower()
    return actual is not None and str(actual) == wanted
