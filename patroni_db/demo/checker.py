"""What became of every write. Pure, and able to fail: see its tests."""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import TYPE_CHECKING

from patroni_db.demo.history import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from patroni_db.demo.history import Row, Write
    from patroni_db.demo.reigns import Reign

__all__ = ["Finding", "Verdict", "check"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A write that is not as it must be.

    :param reference: its id
    :param client: who made it; None when nobody did
    :param problem: what is wrong with it
    """

    reference: str
    client: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The account of all writes.

    :param acknowledged: writes that the clients were told are stored
    :param unknown: writes that ended in an error, or not at all
    :param unknown_stored: those of them that are stored after all
    :param lost: acknowledged, and not there
    :param duplicated: there more than once, acknowledged or not
    :param wrong_node: stored by a node that was not the primary at that time
    :param unexplained: there, and never written by any client
    """

    acknowledged: int
    unknown: int
    unknown_stored: int
    lost: tuple[Finding, ...]
    duplicated: tuple[Finding, ...]
    wrong_node: tuple[Finding, ...]
    unexplained: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """Whether every write is as it must be."""
        return not (self.lost or self.duplicated or self.wrong_node or self.unexplained)


def check(writes: Iterable[Write], rows: Iterable[Row], primaries: Sequence[Reign], patience: float = 0.0) -> Verdict:
    """Compare what the clients were told with what the surviving primary has.

    :param writes: what the clients wrote down; ids are unique
    :param rows: what is stored
    :param primaries: who was primary, on which timelines
    :param patience: seconds in which a client may still learn that a primary was deposed
    """
    stored: dict[str, list[Row]] = collections.defaultdict(list)
    for row in rows:
        stored[row.reference].append(row)
    acknowledged = unknown = unknown_stored = 0
    lost: list[Finding] = []
    duplicated: list[Finding] = []
    wrong: list[Finding] = []
    known: set[str] = set()
    for write in writes:
        known.add(write.reference)
        copies = stored.get(write.reference, [])
        if write.outcome is Outcome.ACKNOWLEDGED:
            acknowledged += 1
            if not copies:
                lost.append(_finding(write, f"acknowledged by {_place(write)}, and not there"))
        else:
            unknown += 1
            unknown_stored += bool(copies)
        if len(copies) > 1:
            duplicated.append(_finding(write, f"there {len(copies)} times"))
        problem = _misplaced(write, copies, primaries, patience)
        if problem is not None:
            wrong.append(_finding(write, problem))
    strange = [reference for reference in stored if reference not in known]
    unexplained = tuple(Finding(reference, None, "no client wrote it") for reference in strange)
    return Verdict(acknowledged, unknown, unknown_stored, tuple(lost), tuple(duplicated), tuple(wrong), unexplained)


def _finding(write: Write, problem: str) -> Finding:
    return Finding(write.reference, write.client, problem)


def _place(what: Write | Row) -> str:
    return f"{what.node or 'an unknown node'} on timeline {what.timeline}"


def _misplaced(write: Write, copies: Sequence[Row], primaries: Sequence[Reign], patience: float) -> str | None:
    """Return why the write, or a stored copy of it, is on a node that was not the primary; None when all is well."""
    if write.outcome is Outcome.ACKNOWLEDGED:
        problem = _illegitimate(write, write.began, primaries, patience)
        if problem is not None:
            return problem
        for row in copies:
            if (row.node, row.timeline) != (write.node, write.timeline):
                return f"acknowledged by {_place(write)}, but stored by {_place(row)}"
        return None
    problems = (_illegitimate(row, write.began, primaries, patience) for row in copies)
    return next((problem for problem in problems if problem is not None), None)


def _illegitimate(what: Write | Row, began: float, primaries: Sequence[Reign], patience: float) -> str | None:
    """Return why the node that took the write had no right to; None when it had.

    Three rules. It was seen as primary on that timeline; it was seen to hold the leader key; and no node had
    committed on a later timeline already when the transaction began, or so many seconds before that the client may be
    supposed to know, for then it was deposed.
    """
    reign = next((r for r in primaries if (r.node, r.timeline) == (what.node, what.timeline)), None)
    if reign is None:
        return f"stored by {_place(what)}, where it was never primary"
    if not reign.led:
        return f"stored by {_place(what)}, which never held the leader key"
    successor = next((r for r in primaries if r.timeline > reign.timeline and r.first < began - patience), None)
    if successor is not None:
        late = began - successor.first
        return f"stored by {_place(what)}, {late:.2f} s after {successor.node} had taken over"
    return None
