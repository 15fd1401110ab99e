"""A cluster's history: who it is, and where each of its timelines ended. Pure.

Log sequence numbers compare within one history only: after a failover that lost writes, the new timeline passes an
old number while the row behind it is gone.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Final, TypeGuard

from patroni_db.topology import MAX_LSN, MAX_TIMELINE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Lineage", "LineageError", "parse_history"]

_FIELDS: Final = 2


class LineageError(ValueError):
    """A body is not what Patroni's ``GET /history`` answers; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """The history that led to the present primary.

    :param system_identifier: the cluster's identity, chosen by initdb
    :param timeline: the timeline the cluster was on when the history was asked for
    :param switchpoints: the LSN (bytes) at which each earlier timeline was left, by timeline, as far as it is known:
        Patroni (4.1) writes it one or two seconds after a promotion, and may be told to keep the latest ones only
        (``max_timelines_history``)
    """

    system_identifier: str
    timeline: int
    switchpoints: Mapping[int, int] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def is_complete(self) -> bool:
        """Whether it tells where the timeline before the present one was left, as far as there was one."""
        return self.timeline <= 1 or self.timeline - 1 in self.switchpoints

    def holds(self, timeline: int, lsn: int) -> bool | None:
        """Return whether what was written on `timeline` up to `lsn` (bytes) is part of this history.

        None when that is not known (yet). A timeline that is missing between others is none of its ancestors.
        """
        left = self.switchpoints.get(timeline)
        if left is not None:
            return lsn <= left
        if timeline == self.timeline:
            return True
        kept = self.switchpoints
        if timeline < self.timeline and kept and min(kept) < timeline < max(kept):
            return False
        return None


def parse_history(body: bytes | str) -> Mapping[int, int]:
    """Return the LSN at which each earlier timeline was left, from the body of ``GET /history``.

    Each row is ``[timeline, lsn, reason, timestamp, new_leader]``, of which the last two may be missing.

    :raises LineageError: for anything else
    """
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError) as exc:
        problem = f"the body is not JSON ({exc})"
        raise LineageError(problem) from exc
    if not isinstance(rows, list):
        problem = "the body is JSON but no history: it is no list"
        raise LineageError(problem)
    switchpoints = {}
    for row in rows:
        if not _is_row(row):
            problem = f"the history has a row that is none: {row!r:.80}"
            raise LineageError(problem)
        switchpoints[row[0]] = row[1]
    return switchpoints


def _is_row(row: object) -> TypeGuard[list[int]]:
    """Return whether it begins with a timeline and an LSN, within PostgreSQL's 32 and 64 bits."""
    if not isinstance(row, list) or len(row) < _FIELDS:
        return False
    limits = (MAX_TIMELINE, MAX_LSN)
    return all(type(value) is int and 0 <= value <= limit for value, limit in zip(row, limits, strict=False))
