"""What happened, as immutable values. Pure.

Every time is in seconds of the machine's monotonic clock, the same for all processes: it is ``CLOCK_MONOTONIC``
of Linux, ``mach_absolute_time`` of macOS.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Fault", "FaultKind", "History", "Outcome", "Probe", "Read", "Row", "Sighting", "Write"]


class Outcome(enum.StrEnum):
    """How a write ended for the client that made it."""

    ACKNOWLEDGED = "acknowledged"
    """COMMIT returned: it must be there, once."""
    RAISED = "raised"
    """An error was raised: it may be there, once, or not."""
    UNFINISHED = "unfinished"
    """The client ended before it knew: as with RAISED."""


@dataclass(frozen=True, slots=True)
class Write:
    """One transaction that wrote, with an id that was never used before.

    :param client: who made it
    :param lane: the thread or task of the client
    :param reference: the id
    :param began: just before the transaction began, getting a connection included
    :param ended: when the client knew the outcome; None while UNFINISHED
    :param outcome: how it ended
    :param node: which node stored it, by the server's own word; None unless acknowledged
    :param timeline: the timeline that node was on, likewise
    :param error: what was raised
    """

    client: str
    lane: int
    reference: str
    began: float
    ended: float | None
    outcome: Outcome
    node: str | None = None
    timeline: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """One query that only read.

    :param client: who made it
    :param lane: the thread or task of the client
    :param began: just before it began
    :param ended: when there was an answer
    :param node: which node answered, by its own word; None when an error was raised
    :param error: what was raised
    """

    client: str
    lane: int
    began: float
    ended: float
    node: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A write as the surviving primary has it.

    :param reference: the write's id
    :param node: the node that stored it, written by that node itself
    :param timeline: the timeline it was on then
    """

    reference: str
    node: str | None
    timeline: int


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt of the oracle to write to one node directly, past every library.

    :param node: the node
    :param began: when it was sent
    :param ended: when it was answered
    :param timeline: the timeline the node committed it on; None when it was not committed
    """

    node: str
    began: float
    ended: float
    timeline: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """Who was seen to hold Patroni's leader key in etcd.

    :param node: the holder; None when nobody held it
    :param at: when that was first seen
    """

    node: str | None
    at: float


class FaultKind(enum.StrEnum):
    """What is done to the cluster."""

    SWITCHOVER = "switchover"
    FAILOVER = "failover"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the cluster.

    :param kind: what
    :param at: just before it was done
    :param old: the primary before
    :param new: the primary after
    """

    kind: FaultKind
    at: float
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class History:
    """Everything that was recorded.

    :param began: when the clients had been started
    :param ended: when they were told to stop
    :param faults: in their order
    :param probes: of all nodes, in any order
    :param sightings: in their order
    :param writes: of all clients, in any order
    :param reads: likewise
    """

    began: float
    ended: float
    faults: tuple[Fault, ...]
    probes: tuple[Probe, ...]
    sightings: tuple[Sighting, ...]
    writes: tuple[Write, ...]
    reads: tuple[Read, ...]
