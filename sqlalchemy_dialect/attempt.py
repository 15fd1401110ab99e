"""What is known of one attempt at a transaction while it lasts. The events write it, ``run_transaction`` reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import InvalidRequestError

from sqlalchemy_dialect.watched import Watched

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import RootTransaction

    from sqlalchemy_dialect.errors import CommitOutcomeUnknown

__all__ = ["ATTEMPT", "Attempt", "attempt_on"]

# The execution option by which a Connection knows the attempt that it serves; it ends with the Connection.
ATTEMPT: Final = "patroni_db_attempt"


class Attempt:
    """One attempt."""

    __slots__ = (
        "_connection",
        "_transaction",
        "_watched",
        "doubt",
        "elsewhere",
        "finishing",
        "lost",
        "read_only",
        "sent",
        "unsure",
    )

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._transaction: RootTransaction | None = None
        self._watched: Watched | None = None
        self.unsure = False
        """A statement failed on a connection that lives: unless a savepoint was there, the server aborted it all."""
        self.lost = False
        """The connection is lost."""
        self.doubt: CommitOutcomeUnknown | None = None
        """Its COMMIT may have happened."""
        self.read_only = False
        """It was refused to write, and will be: its transaction is declared READ ONLY, or its target reads."""
        self.elsewhere = False
        """A replica failed to read: another server can."""
        self.finishing = False
        """The callable has returned, and COMMIT is due."""
        self.sent = False
        """COMMIT was sent, and did not fail."""

    def failed(self, *, of_commit: bool) -> None:
        """Take in that something on its connection failed.

        :param of_commit: whether it was no statement: BEGIN, COMMIT or ROLLBACK
        """
        self.unsure = True
        if of_commit:
            self.sent = False

    def refuse_commit(self) -> None:
        """Keep the callable from committing by itself.

        :raises InvalidRequestError: it does
        """
        if not self.finishing:
            raise InvalidRequestError("run_transaction() commits by itself: the callable must not")

    def refuse_rollback(self) -> None:
        """Keep the callable from ending the transaction with a statement.

        :raises InvalidRequestError: it does
        """
        raise InvalidRequestError(
            "run_transaction() ends the transaction by itself: have the callable raise what is to roll it back"
        )

    @property
    def began(self) -> bool:
        """Whether it has had a connection."""
        return self._connection is not None

    def take(self, connection: Connection) -> None:
        """Let `connection`, which has just begun, know of the attempt until :meth:`release`."""
        self._connection = connection
        self._transaction = connection.get_transaction()
        driver_connection = connection.connection.driver_connection
        if isinstance(driver_connection, Watched):
            self._watched = driver_connection
            driver_connection.attempt = self

    def release(self) -> None:
        """Let go of the connection, before it goes back to its pool."""
        if self._watched is not None:
            self._watched.attempt = None
            self._watched = None

    def check_that_it_can_commit(self) -> None:
        """Keep a transaction that is not there any more from being passed over.

        :raises InvalidRequestError: the callable, or a flush that failed within it, has rolled it back
        """
        transaction = self._transaction
        if self._connection is None or transaction is None:
            return
        if not transaction.is_active or self._connection.get_transaction() is not transaction:
            raise InvalidRequestError(
                "nothing was committed: the transaction was rolled back within run_transaction()'s callable, which "
                "returned all the same. Have it raise what is to roll back, and use begin_nested() for what may fail."
            )


def attempt_on(connection: Connection) -> Attempt | None:
    """Return the attempt that `connection` serves; None outside of ``run_transaction``."""
    return connection.get_execution_options().get(ATTEMPT)
