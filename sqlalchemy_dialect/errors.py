"""Errors of our own that applications meet as SQLAlchemy's."""

from __future__ import annotations

from sqlalchemy.exc import InvalidRequestError, OperationalError

import patroni_db.errors

__all__ = ["CommitOutcomeUnknown", "ReadOnlyError", "TransactionOnReplicaError"]


class CommitOutcomeUnknown(patroni_db.errors.CommitOutcomeUnknown, OperationalError):  # noqa: N818 - as the core has it
    """A connection was lost while COMMIT, or a statement in AUTOCOMMIT, was under way on it: it may have happened.

    ``orig`` and ``__cause__`` are the driver's error; ``statement`` is None for SQLAlchemy's own COMMIT.
    A statement in AUTOCOMMIT is reported so whatever it is: also a SELECT can call functions that write.
    """

    def __str__(self) -> str:
        what = "COMMIT" if self.statement is None else "a statement"
        told = OperationalError.__str__(self)  # in several lines, as of each of SQLAlchemy's errors
        return f"the connection was lost while {what} was under way, it may have taken effect: {told}"


class ReadOnlyError(InvalidRequestError):
    """A write in a transaction, or on an engine, that was declared to read only. Nothing was sent to the server."""


class TransactionOnReplicaError(InvalidRequestError):
    """What needs the primary came to a transaction in automatic mode that has read from a replica already.

    Nothing was sent to the server. Going on elsewhere would make one transaction of two, which nobody asked for.
    """
