"""Calls that hang are left alone, and what they bring in the end is let go of."""

from __future__ import annotations

import contextvars
import threading

import pytest

from patroni_db.bounded import call_within

PATIENCE = 30.0


def forget(_: object) -> None:
    """Nothing to release."""


def test_a_result_is_returned_and_not_released() -> None:
    released: list[int] = []
    assert call_within(PATIENCE, lambda: 7, released.append) == 7
    assert released == []


def test_an_error_is_raised_as_it_is() -> None:
    error = ValueError("its own")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="its own") as caught:
        call_within(PATIENCE, fail, forget)
    assert caught.value is error


def test_a_call_that_hangs_is_left_and_its_late_result_released() -> None:
    go_on, released = threading.Event(), threading.Event()
    late: list[str] = []

    def hang() -> str:
        go_on.wait(PATIENCE)
        return "late"

    def release(result: str) -> None:
        late.append(result)
        released.set()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.01 s"):
        call_within(0.01, hang, release)
    go_on.set()
    assert released.wait(PATIENCE)
    assert late == ["late"]


def test_context_variables_are_the_callers() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nobody's")
    variable.set("the caller's")
    assert call_within(PATIENCE, variable.get, forget) == "the caller's"
