"""What a run of the failover benchmark writes down. Times are seconds of the system's monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from patroni_db.demo import history

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClientRecord", "Key", "Observation", "Probe", "Write"]

# Client, worker, number: names one write.
Key = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Probe(history.Probe):
    """The oracle's attempt to write on one node.

    :param answered: whether the node answered a question, and so can be read from
    """

    answered: bool = True


@dataclass(frozen=True, slots=True)
class Write:
    """A client's transaction of one row.

    :param worker: the client's worker
    :param number: counts the worker's writes
    :param began: before a connection was asked for
    :param ended: when it was acknowledged or had failed; None when neither happened before the end
    :param node: the node that acknowledged it; None when none did
    :param error: what was raised; None when nothing was
    """

    worker: int
    number: int
    began: float
    ended: float | None
    node: str | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """Everything one client did.

    :param name: the client
    :param workers: how many workers it has
    :param pace: seconds that each pauses after an acknowledged write
    :param writes: in any order
    :param attempts: when it began to connect to a server
    """

    name: str
    workers: int
    pace: float
    writes: tuple[Write, ...]
    attempts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """One fault, as everybody saw it.

    :param fault: the fault's name
    :param at: just before it was made
    :param undone: just before it was undone; None when it was not
    :param ended: when the clients were told to stop
    :param old: the primary before
    :param probes: the oracle's, in any order
    :param clients: in the order to show them
    :param rows: how often each write is in the surviving primary
    """

    fault: str
    at: float
    undone: float | None
    ended: float
    old: str
    probes: tuple[Probe, ...]
    clients: tuple[ClientRecord, ...]
    rows: Mapping[Key, int]
