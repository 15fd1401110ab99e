"""What ``patroni-db wait`` can wait for. Pure."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final, Self

from patroni_db.selection import eligible_replica

if TYPE_CHECKING:
    from patroni_db.cli.view import View
    from patroni_db.topology import Member

__all__ = ["Condition", "Verdict"]

_REPLICAS: Final = re.compile(r"([1-9]\d{0,4})-replicas?", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a condition holds.

    :param met: whether it does
    :param members: the members that count towards it
    :param text: how things stand, in words
    """

    met: bool
    members: tuple[Member, ...]
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """A primary, or a number of replicas.

    :param replicas: how many replicas must serve reads; 0 asks for the primary
    """

    replicas: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the condition that ``primary``, ``replica`` or ``2-replicas`` names.

        :raises ValueError: it is none of them
        """
        if text == "primary":
            return cls(0)
        if text == "replica":
            return cls(1)
        match = _REPLICAS.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not one of primary, replica, 2-replicas, 3-replicas, ...")
        return cls(int(match[1]))

    def __str__(self) -> str:
        return ("primary", "replica")[self.replicas] if self.replicas <= 1 else f"{self.replicas}-replicas"

    def judge(self, view: View, *, max_lag: int | None = None) -> Verdict:
        """Return whether `view` meets the condition: the members that count are there and do not deny it.

        :param max_lag: bytes; replicas with more, or unknown, lag do not count
        """
        return self._judge_replicas(view, max_lag) if self.replicas else _judge_primary(view)

    def _judge_replicas(self, view: View, max_lag: int | None) -> Verdict:
        eligible = [m for m in view.topology.members if eligible_replica(m, max_lag=max_lag)]
        serving = tuple(m for m in eligible if view.doubt(m) is None)
        doubts = "".join(f"; {m.name}: {doubt}" for m in eligible if (doubt := view.doubt(m)))
        text = f"{len(serving)} of {self.replicas} {'replica' if self.replicas == 1 else 'replicas'}{doubts}"
        return Verdict(len(serving) >= self.replicas, serving, text)


def _judge_primary(view: View) -> Verdict:
    primary, leader = view.topology.primary, view.topology.leader
    if primary is None:
        if leader is None:
            return Verdict(met=False, members=(), text="nobody leads")
        what = "leads a standby cluster" if leader.is_standby_leader else "leads, but has no address"
        if leader.is_leader and leader.refused:
            what = "leads, but its address is refused"
        return Verdict(met=False, members=(), text=f"{leader.name} {what}")
    doubt = view.doubt(primary)
    if doubt:
        return Verdict(met=False, members=(), text=f"{primary.name} is named as leader, but: {doubt}")
    return Verdict(met=True, members=(primary,), text=f"{primary.name} is primary")
