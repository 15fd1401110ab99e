"""What is recorded beside the operations of the clients: faults, and what each process holds. Immutable."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Census", "Incident"]


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault that was made. Times are seconds of the monotonic clock.

    :param kind: the name of its kind
    :param node: the node it was made to; None when it was made to none
    :param at: just before it was made
    :param undone: when it had been undone; None when there was nothing to undo
    """

    kind: str
    node: str | None
    at: float
    undone: float | None

    def __str__(self) -> str:
        return f"{self.kind} of {self.node}" if self.node else self.kind


@dataclass(frozen=True, slots=True)
class Census:
    """What the process of a client holds at a calm moment, and what the servers hold for it.

    :param client: the client
    :param threads: threads of the process
    :param descriptors: open descriptors, sockets to servers not counted
    :param sessions: connections to PostgreSQL; duplicates of one socket count once
    :param backends: sessions that the servers have for it, by ``pg_stat_activity``
    """

    client: str
    threads: int
    descriptors: int
    sessions: int
    backends: int
