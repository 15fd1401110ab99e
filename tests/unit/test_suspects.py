"""Suspected members are asked until they answer, and their silence is told once."""

from __future__ import annotations

import gc
import queue
import threading
import time
import weakref

import pytest

from patroni_db.suspects import Suspects
from patroni_db.topology import Address

PATIENCE = 30.0
N1 = Address("n1", 5432)


class Owner:
    """Who is told; answers are given by the test, one for each question."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.told: queue.SimpleQueue[frozenset[str]] = queue.SimpleQueue()
        self.hung: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.members = {"n1"}
        self.now = 0.0
        ref = weakref.ref(self)
        answers = self.answers

        def asks(_: Address) -> bool:
            return answers.get(timeout=PATIENCE)

        def clock() -> float:
            owner = ref()
            return owner.now if owner is not None else 0.0

        self.suspects = Suspects(self, asks, clock)

    def silence_changed(self) -> None:
        self.told.put(self.suspects.silent)

    def is_hung(self, name: str) -> None:
        self.hung.put(name)

    def has_member(self, name: str) -> bool:
        return name in self.members


def no_thread_is_left() -> bool:
    deadline = time.monotonic() + PATIENCE
    while any(thread.name == "patroni-db suspicion" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_silence_and_its_end_are_told(owner: Owner) -> None:
    owner.suspects.suspect("n1", N1, times=1)
    owner.answers.put(True)
    assert owner.told.get(timeout=PATIENCE) == {"n1"}
    owner.answers.put(True)
    owner.answers.put(False)
    assert owner.told.get(timeout=PATIENCE) == frozenset()
    assert no_thread_is_left()
    assert owner.told.empty()


def test_one_that_answers_at_the_second_time_was_not_silent(owner: Owner) -> None:
    owner.suspects.suspect("n1", N1, times=2)
    owner.answers.put(True)
    owner.answers.put(False)
    assert no_thread_is_left()
    assert owner.told.empty()


def test_one_that_was_silent_for_long_hangs_and_that_is_told_once(owner: Owner) -> None:
    owner.suspects.suspect("n1", N1, times=1)
    owner.answers.put(True)
    owner.told.get(timeout=PATIENCE)
    owner.now = 10.0
    for silent in (True, True, False):
        owner.answers.put(silent)
    assert owner.hung.get(timeout=PATIENCE) == "n1"
    assert no_thread_is_left()
    assert owner.hung.empty()


def test_one_that_answered_a_moment_ago_is_not_asked_again(owner: Owner) -> None:
    owner.answers.put(False)
    owner.suspects.suspect("n1", N1, times=1)
    assert no_thread_is_left()
    owner.suspects.suspect("n1", N1, times=1)
    assert no_thread_is_left()
    owner.now = 2.0
    owner.suspects.suspect("n1", N1, times=1)
    owner.answers.put(True)
    assert owner.told.get(timeout=PATIENCE) == {"n1"}
    owner.answers.put(False)
    assert no_thread_is_left()


def test_one_that_is_no_member_any_more_is_forgotten(owner: Owner) -> None:
    owner.suspects.suspect("n1", N1, times=1)
    owner.answers.put(True)
    owner.told.get(timeout=PATIENCE)
    owner.members.clear()
    owner.answers.put(True)
    assert owner.told.get(timeout=PATIENCE) == frozenset()
    assert no_thread_is_left()


def test_no_more_than_so_many_are_asked_at_a_time_and_the_others_later(owner: Owner) -> None:
    owner.members = {f"n{number}" for number in range(40)}
    for name in owner.members:
        owner.suspects.suspect(name, N1, times=1)
    asked = sum(thread.name == "patroni-db suspicion" for thread in threading.enumerate())
    assert asked == 32
    for _ in range(asked):
        owner.answers.put(False)
    assert no_thread_is_left()
    for name in owner.members:
        owner.suspects.suspect(name, N1, times=1)
    assert sum(thread.name == "patroni-db suspicion" for thread in threading.enumerate()) == 8
    for _ in range(8):
        owner.answers.put(False)
    assert no_thread_is_left()


def test_asking_ends_when_it_is_stopped(owner: Owner) -> None:
    owner.suspects.suspect("n1", N1, times=1)
    owner.answers.put(True)
    owner.told.get(timeout=PATIENCE)
    owner.suspects.stop()
    owner.answers.put(True)
    assert no_thread_is_left()


def test_asking_ends_with_its_owner() -> None:
    owner = Owner()
    answers, suspects = owner.answers, owner.suspects
    suspects.suspect("n1", N1, times=1)
    answers.put(True)
    owner.told.get(timeout=PATIENCE)
    del owner
    gc.collect()
    answers.put(True)
    assert no_thread_is_left()
