"""The cluster as one answer of ``GET /cluster`` describes it: immutable values, and the parser that makes them.

Pure: no I/O, no clock. The parser follows what Patroni 2.1 to 4.1 really send, and tolerates what later
versions may add: unknown keys are ignored, unknown roles and states are kept as they are.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from patroni_db.addresses import Address, ApiUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_LSN",
    "MAX_TIMELINE",
    "Address",
    "Member",
    "PayloadError",
    "Role",
    "ScheduledSwitchover",
    "Topology",
    "parse_cluster",
    "timeline_or_none",
]

# PostgreSQL's TimeLineID and XLogRecPtr.
MAX_TIMELINE: Final = (1 << 32) - 1
MAX_LSN: Final = (1 << 64) - 1
_LSN: Final = re.compile(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})", re.ASCII)
_NO_TAGS: Final[Mapping[str, Any]] = MappingProxyType({})
_MAX_SHOWN: Final = 100
_MAX_LEVELS: Final = 8
# PostgreSQL counts bytes of its log with 64 bits. A larger number is not Patroni's, and cannot become a float.
_MAX_NUMBER: Final = 2**63 - 1
# Patroni before 3.0.4 calls every healthy replica "running"; later versions, one that does not stream yet.
_READABLE_STATES: Final = frozenset({"streaming", "in archive recovery", "running"})


class PayloadError(ValueError):
    """The payload is not an answer of Patroni's ``GET /cluster``; the message says why."""


class Role(enum.StrEnum):
    """The roles Patroni is known to report in ``GET /cluster``; any other string is kept as it came."""

    LEADER = "leader"
    STANDBY_LEADER = "standby_leader"
    SYNC_STANDBY = "sync_standby"
    QUORUM_STANDBY = "quorum_standby"
    REPLICA = "replica"


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One row of ``GET /cluster``.

    :param name: the member's name, unique within the cluster
    :param role: a :class:`Role` value or an unknown string
    :param state: PostgreSQL's state as Patroni words it: ``running``, ``streaming``, ``starting``, ...
    :param address: where its PostgreSQL listens; None while the row carries none
    :param api_url: its REST API without a trailing path, for example ``http://10.0.0.1:8008``
    :param timeline: the timeline it is on; None while unknown (a node that starts)
    :param lag: bytes behind the leader, a lower bound that trails by up to ``loop_wait``; None when
        unknown. The replay lag where Patroni (4.1+) gives it, else the general one
    :param replayed: the LSN (bytes) up to which it has replayed, a lower bound that trails as the lag does; None
        before Patroni 4.1
    :param tags: the member's tags as JSON values
    :param refused: what it advertises and must not be connected to, and why, in words for a log; it is left out of
        `address` and `api_url`
    """

    name: str
    role: str
    state: str
    address: Address | None = None
    api_url: str | None = None
    timeline: int | None = None
    lag: int | None = None
    replayed: int | None = None
    tags: Mapping[str, Any] = dataclasses.field(default_factory=lambda: _NO_TAGS, hash=False)
    refused: tuple[str, ...] = dataclasses.field(default=(), compare=False)

    @property
    def is_leader(self) -> bool:
        """Whether it holds Patroni's lock and is, or is about to be, the primary."""
        return self.role == Role.LEADER

    @property
    def is_standby_leader(self) -> bool:
        """Whether it leads a standby cluster: it holds the lock but is never writable."""
        return self.role == Role.STANDBY_LEADER

    @property
    def serves_reads(self) -> bool:
        """Whether it takes part in reading: not the leader, PostgreSQL up, and no ``noloadbalance`` tag.

        The row of a server that just died says ``running`` for a moment still, but has no timeline (recorded).
        """
        return (
            not self.is_leader
            and self.address is not None
            and self.timeline is not None
            and self.state in _READABLE_STATES
            and not self.has_tag("noloadbalance")
        )

    @property
    def host(self) -> str | None:
        """The host of :attr:`address`."""
        return self.address.host if self.address else None

    @property
    def port(self) -> int | None:
        """The port of :attr:`address`."""
        return self.address.port if self.address else None

    @property
    def weight(self) -> float:
        """The tag ``weight``: the share of the reads it is to get beside others of its rank, 1 where none is set.

        0 is for a member to be read from only when there is nobody else. What is no number, or less, counts as 1.
        """
        value = self.tags.get("weight", 1.0)
        try:
            number = 1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            return 1.0
        return number if math.isfinite(number) and number >= 0 else 1.0

    def has_tag(self, name: str) -> bool:
        """Return whether the tag `name` is set to a true value."""
        return bool(self.tags.get(name))


@dataclasses.dataclass(frozen=True, slots=True)
class ScheduledSwitchover:
    """A switchover somebody planned with ``patronictl switchover --scheduled``.

    :param at: the moment, as ISO 8601 text
    :param from_: the leader it starts from, when given
    :param to: the candidate, when given
    """

    at: str | None = None
    from_: str | None = None
    to: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Topology:
    """The whole cluster at one moment.

    :param members: the members, sorted by name
    :param scope: the cluster's name (Patroni 3.2+)
    :param paused: whether Patroni is in maintenance mode
    :param scheduled_switchover: the planned switchover, if there is one
    """

    members: tuple[Member, ...] = ()
    scope: str | None = None
    paused: bool = False
    scheduled_switchover: ScheduledSwitchover | None = None

    @property
    def leader(self) -> Member | None:
        """The holder of the lock, of a primary or of a standby cluster; None when nobody holds it."""
        return next((m for m in self.members if m.is_leader or m.is_standby_leader), None)

    @property
    def primary(self) -> Member | None:
        """The leader that writes may be sent to; None for a standby cluster, and while there is no leader.

        Its state is not looked at: a leader that restarts in place accepts writes about half a second
        before ``/cluster`` says ``running`` again (measured). The connection proves the role.
        """
        return next((m for m in self.members if m.is_leader and m.address), None)

    @property
    def timeline(self) -> int | None:
        """The highest timeline any member is on; None when none tells."""
        return max((m.timeline for m in self.members if m.timeline is not None), default=None)

    def member(self, name: str) -> Member | None:
        """Return the member called `name`, or None."""
        return next((m for m in self.members if m.name == name), None)

    def routing(self) -> tuple[object, ...]:
        """Return what decides where statements go: leader, timeline, addresses, who serves reads and tags, but not lag.

        Two topologies with equal routing need no connection to move.
        """
        leader = self.leader
        return (
            leader.name if leader else None,
            self.timeline,
            tuple((m.name, m.address, m.is_leader, m.serves_reads, _spelled(m.tags)) for m in self.members),
        )


def parse_cluster(body: bytes | str) -> Topology:
    """Parse the body of an answer to ``GET /cluster``.

    :param body: the bytes as received
    :returns: the topology; rows without a name are left out, as nothing can be said about them
    :raises PayloadError: when the body is not JSON, or not of Patroni's shape
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as exc:
        problem = f"the body is not JSON ({exc})"
        raise PayloadError(problem) from exc
    if not isinstance(payload, dict) or not isinstance(payload.get("members"), list):
        problem = "the body is JSON but not Patroni's: it has no list of members"
        raise PayloadError(problem)
    members = {m.name: m for row in payload["members"] if (m := _member(row))}
    return Topology(
        members=tuple(sorted(members.values(), key=lambda m: m.name)),
        scope=_text(payload.get("scope")),
        paused=payload.get("pause") is True,
        scheduled_switchover=_scheduled_switchover(payload.get("scheduled_switchover")),
    )


def _member(row: object) -> Member | None:
    if not isinstance(row, dict):
        return None
    name = _text(row.get("name"))
    if name is None:
        return None
    refused: list[str] = []
    return Member(
        name=name,
        role=_text(row.get("role")) or "",
        state=_text(row.get("state")) or "",
        address=_address(row.get("host"), row.get("port"), refused),
        api_url=_api_url(row.get("api_url"), refused),
        timeline=timeline_or_none(row.get("timeline")),
        lag=_lag(row),
        replayed=_lsn(row.get("replay_lsn")),
        tags=_tags(row.get("tags")),
        refused=tuple(refused),
    )


def _address(host: object, port: object, refused: list[str]) -> Address | None:
    """Return the address that a row names, or None; one that no driver must be given is noted in `refused`."""
    name, number = _text(host), _whole(port, math.inf)  # one that is too large is told
    if name is None or number is None:
        return None
    try:
        return Address.parse(name, number)
    except ValueError as exc:
        refused.append(f"the address {_cut(name)!r}, port {_cut(str(number))}: {exc}")
        return None


def _api_url(url: object, refused: list[str]) -> str | None:
    """Reduce ``http://host:8008/patroni``, as members advertise it, to scheme, host and port."""
    text = _text(url)
    if text is None:
        return None
    try:
        return str(dataclasses.replace(ApiUrl.parse(text), path=""))
    except ValueError as exc:
        refused.append(f"the REST API {_cut(text)!r}: {exc}".removesuffix(": "))
        return None


def _tags(value: object) -> Mapping[str, Any]:
    """Return tags without values that are nested so deeply that comparing or showing them may fail."""
    tags = {name: tag for name, tag in value.items() if _is_shallow(tag)} if isinstance(value, dict) else None
    return MappingProxyType(tags) if tags else _NO_TAGS


def _is_shallow(value: object, levels: int = _MAX_LEVELS) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(item, levels - 1) for item in inner)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _lag(row: Mapping[str, Any]) -> int | None:
    """Return replay lag where it is told (4.1+), else ``lag``; ``"unknown"`` and nonsense are None."""
    for key in ("replay_lag", "lag"):
        if key in row:
            return _whole(row[key])
    return None


def timeline_or_none(value: object) -> int | None:
    """Return a timeline as PostgreSQL counts them, from 1 on in 32 bits; None for anything else."""
    return _whole(value, MAX_TIMELINE) or None


def _lsn(value: object) -> int | None:
    """Return the bytes of an LSN as PostgreSQL writes it: ``16/B374D848``."""
    match = _LSN.fullmatch(value) if isinstance(value, str) else None
    return (int(match[1], 16) << 32) + int(match[2], 16) if match else None


def _scheduled_switchover(value: object) -> ScheduledSwitchover | None:
    if not isinstance(value, dict):
        return None
    return ScheduledSwitchover(_text(value.get("at")), _text(value.get("from")), _text(value.get("to")))


def _spelled(tags: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return tags, whose values may be any JSON, as something that can be hashed."""
    return tuple(sorted((name, repr(value)) for name, value in tags.items()))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object, most: float = _MAX_NUMBER) -> int | None:
    """Return a whole number from 0 to `most`; JSON's true is none, although Python's bool is an int."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else None
