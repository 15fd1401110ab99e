"""Errors of our own that applications meet as SQLAlchemy's."""

from __future__ import annotations

from sqlalchemy.exc import OperationalError

import patroni_db.errors

__all__ = ["CommitOutcomeUnknown"]


class CommitOutcomeUnknown(patroni_db.errors.CommitOutcomeUnknown, OperationalError):  # noqa: N818 - as the core has it
    """A connection was lost while COMMIT, or a statement in AUTOCOMMIT, was under way on it: it may have happened.

    ``orig`` and ``__cause__`` are the driver's error; ``statement`` is None for SQLAlchemy's own COMMIT.
    A statement in AUTOCOMMIT is reported so whatever it is: also a SELECT can call functions that write.
    """

    def __str__(self) -> str:
        what = "COMMIT" if self.statement is None else "a statement"
        return f"the connection was lost while {what} was under way, it may have taken effect: {super().__str__()}"
