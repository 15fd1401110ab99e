"""Errors of our own that applications meet as Django's."""

from __future__ import annotations

from django.db import OperationalError, ProgrammingError
from django.db.transaction import TransactionManagementError

import patroni_db.errors

__all__ = ["CommitOutcomeUnknown", "NothingCommitted", "RolledBack", "StaleReplicaError", "WriteRefusedError"]


class CommitOutcomeUnknown(patroni_db.errors.CommitOutcomeUnknown, OperationalError):  # noqa: N818 - as the core has it
    """A connection was lost while COMMIT, or a statement outside of a transaction, was under way: it may have happened.

    The driver's error is the ``__cause__``.
    """


class RolledBack(OperationalError):  # noqa: N818 - what is known, not an error in itself
    """A connection was lost during COMMIT, and the commit marker proves that the transaction will never have happened.

    It may run again. The driver's error is the ``__cause__``.
    """


class NothingCommitted(TransactionManagementError):  # noqa: N818 - as the two above
    """A transaction came to its end without an error, but could not be committed any more.

    Its connection was closed within it, or it went on after an error that the server had answered by aborting it.
    """

    sqlstate = "25000"  # invalid_transaction_state: not a fault that running it again would cure


class WriteRefusedError(patroni_db.errors.PatroniError, ProgrammingError):
    """A statement that writes was not sent: its alias reads from replicas, or ``prevent_writes()`` is in force."""


class StaleReplicaError(patroni_db.errors.PatroniError, OperationalError):
    """A read lost its replica, and the next one does not show yet what the reader has written.

    The same read, made anew, goes to the primary.
    """
