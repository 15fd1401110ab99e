"""After which errors a transaction runs again, how soon, and until when."""

from __future__ import annotations

import asyncio
import random

import django.db
import psycopg
import pytest
import sqlalchemy.exc

from patroni_db.errors import CommitOutcomeUnknown, NoPrimaryError
from patroni_db.time_limit import time_left, time_limit
from patroni_db.transaction import Reruns


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reruns(clock: Clock) -> Reruns:
    return Reruns(10.0, random.Random(1), clock)


def wrapped(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


LOST = psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.ReadOnlySqlTransaction(),
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CrashShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.SerializationFailure(),
        psycopg.errors.DeadlockDetected(),
        wrapped(django.db.OperationalError("gone"), psycopg.errors.AdminShutdown()),
        sqlalchemy.exc.DBAPIError("SELECT 1", {}, psycopg.errors.SerializationFailure()),
        wrapped(LookupError("the application's own"), psycopg.errors.DeadlockDetected()),
    ],
)
def test_transient_faults_run_again(reruns: Reruns, error: Exception) -> None:
    assert reruns.pause_after(error, lost=False) is not None


def test_a_lost_connection_runs_again(reruns: Reruns) -> None:
    assert reruns.pause_after(LOST, lost=True) is not None
    assert reruns.pause_after(ConnectionResetError("as asyncpg lets it through"), lost=True) is not None


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.UniqueViolation(),
        psycopg.errors.QueryCanceled(),
        ValueError("the application's own"),
        ConnectionRefusedError("a web service"),
        TimeoutError("a cache"),
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        wrapped(django.db.OperationalError("no primary"), NoPrimaryError("no primary")),
    ],
)
def test_everything_else_is_raised(reruns: Reruns, error: BaseException) -> None:
    assert reruns.pause_after(error, lost=False) is None
    assert not hasattr(error, "__notes__")


def test_an_unknown_commit_runs_again_only_where_it_is_decided(reruns: Reruns) -> None:
    assert reruns.pause_after(CommitOutcomeUnknown(), lost=True) is None
    assert reruns.pause_after(CommitOutcomeUnknown(), lost=True, decidable=True) is not None


def test_pauses_are_random_and_grow_up_to_a_second(clock: Clock) -> None:
    longest = [0.0] * 20
    for seed in range(200):
        reruns = Reruns(1000.0, random.Random(seed), clock)
        for attempt in range(20):
            pause = reruns.pause_after(LOST, lost=True)
            assert pause is not None
            longest[attempt] = max(longest[attempt], pause)
    assert longest[0] <= 0.01
    assert 0.5 < max(longest) <= 1.0


def test_no_pause_goes_past_the_deadline_and_none_begins_after_it(clock: Clock, reruns: Reruns) -> None:
    clock.now += 9.999
    for _ in range(10):
        pause = reruns.pause_after(LOST, lost=True)
        assert pause is not None
        assert clock.now + pause <= 110.0
    clock.now = 110.0
    error = psycopg.OperationalError("gone")
    assert reruns.pause_after(error, lost=True) is None
    assert error.__notes__ == ["the transaction was tried 11 times in 10.0 s"]


def test_waits_within_a_time_limit_end_with_it() -> None:
    assert time_left(60.0) == 60.0
    with time_limit(5.0):
        assert 4.0 < time_left(60.0) <= 5.0
        with time_limit(100.0):
            assert time_left(60.0) <= 5.0
        with time_limit(0.0):
            assert time_left(60.0) == 0.0
    assert time_left(60.0) == 60.0


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300, -1.0, 86401.0])
def test_a_deadline_is_between_zero_and_a_day(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^deadline: .* is not between zero and a day"):
        Reruns(seconds, random.Random(1))
    with pytest.raises(ValueError, match="is not between zero and a day"), time_limit(seconds):
        pass
