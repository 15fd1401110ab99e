"""What a lost connection says about the COMMIT that was under way on it."""

from __future__ import annotations

import psycopg
import pytest

from patroni_db.errors import CommitOutcomeUnknown
from patroni_db.outcome import ends_transaction, is_in_doubt

LOST = psycopg.OperationalError("server closed the connection unexpectedly")


def test_an_answer_that_was_lost_leaves_a_doubt() -> None:
    assert is_in_doubt(LOST, lost=True, lost_before=False)


@pytest.mark.parametrize("error", [psycopg.errors.AdminShutdown(), psycopg.errors.CrashShutdown()])
def test_a_session_ended_by_the_server_may_have_committed_locally(error: psycopg.Error) -> None:
    assert is_in_doubt(error, lost=True, lost_before=False)


@pytest.mark.parametrize("error", [psycopg.errors.ConnectionDoesNotExist(), psycopg.errors.ProtocolViolation()])
def test_the_last_words_of_asyncpg_and_of_a_pooler_tell_only_that_the_connection_is_lost(error: psycopg.Error) -> None:
    assert is_in_doubt(error, lost=True, lost_before=False)
    assert not is_in_doubt(error, lost=True, lost_before=True)
    assert not is_in_doubt(error, lost=False, lost_before=False)


@pytest.mark.parametrize("error", [LOST, psycopg.errors.AdminShutdown()])
def test_what_was_lost_before_it_was_sent_never_ran(error: psycopg.Error) -> None:
    assert not is_in_doubt(error, lost=True, lost_before=True)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.SerializationFailure(),
        psycopg.errors.DeadlockDetected(),
        psycopg.errors.UniqueViolation(),  # a deferred constraint
        psycopg.errors.ReadOnlySqlTransaction(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.ConnectionDoesNotExist(),
        psycopg.errors.QueryCanceled(),
    ],
)
def test_what_the_server_refused_is_never_in_doubt(error: psycopg.Error) -> None:
    assert not is_in_doubt(error, lost=False, lost_before=False)


@pytest.mark.parametrize(
    "error", [psycopg.errors.TransactionResolutionUnknown(), psycopg.errors.StatementCompletionUnknown()]
)
@pytest.mark.parametrize("lost_before", [True, False])
def test_a_server_or_pooler_may_say_itself_that_it_does_not_know(error: psycopg.Error, lost_before: bool) -> None:
    assert is_in_doubt(error, lost=False, lost_before=lost_before)


def test_the_error_that_tells_of_it_carries_the_standards_state() -> None:
    assert CommitOutcomeUnknown("COMMIT").sqlstate == "08007"
    assert is_in_doubt(CommitOutcomeUnknown("COMMIT"), lost=True, lost_before=False)


@pytest.mark.parametrize(
    "sql", ["COMMIT", "commit;", " Commit Work ", "END", "end transaction;", "COMMIT PREPARED 'x'", "COMMIT AND CHAIN"]
)
def test_a_commit_by_hand_is_known(sql: str) -> None:
    assert ends_transaction(sql)


@pytest.mark.parametrize("sql", ["INSERT INTO commits VALUES (1)", "COMMENT ON TABLE t IS 'x'", "ROLLBACK", "ENDS", ""])
def test_other_statements_are_none(sql: str) -> None:
    assert not ends_transaction(sql)
