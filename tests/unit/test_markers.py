"""The keys of transactions, and how long they are kept."""

from __future__ import annotations

import random

import pytest

from patroni_db import markers
from patroni_db.errors import KeyReusedError


def test_keys_are_different_and_in_the_order_of_time() -> None:
    rng = random.Random(1)
    keys = [markers.new_key(rng, 1_700_000_000 + second) for second in range(1000)]
    assert len(set(keys)) == 1000
    assert keys == sorted(keys)
    assert {len(key) for key in keys} == {32}


def test_keys_of_one_moment_are_different() -> None:
    rng = random.Random(1)
    assert len({markers.new_key(rng, 1.0) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800"])
def test_a_key_that_cannot_be_stored_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 characters"):
        markers.check_key(key)


def test_a_callers_key_is_taken_as_it_is() -> None:
    assert markers.check_key("celery:3f2a-été") == "celery:3f2a-été"


def test_the_same_work_has_the_same_fingerprint() -> None:
    assert markers.fingerprint_of("été") == markers.fingerprint_of("été".encode())
    assert markers.fingerprint_of("a") != markers.fingerprint_of("b")
    assert len(markers.fingerprint_of("\ud800") or "") == markers.FINGERPRINT_LENGTH
    assert markers.fingerprint_of(None) is None


@pytest.mark.parametrize(("given", "stored"), [(None, None), ("a", None), (None, "a"), ("a", "a")])
def test_work_that_may_be_the_same_is_not_refused(given: str | None, stored: str | None) -> None:
    markers.check_fingerprint("key", given, stored)


def test_other_work_is_refused() -> None:
    with pytest.raises(KeyReusedError, match=r"key\\n"):
        markers.check_fingerprint("key\n", "a", "b")


@pytest.mark.parametrize(
    ("age", "seconds"), [("90s", 90), ("5m", 300), ("12h", 43200), ("7d", 604800), (" 2 W ", 1209600)]
)
def test_ages(age: str, seconds: float) -> None:
    assert markers.seconds_of(age) == seconds


@pytest.mark.parametrize(
    "age", ["", "7", "d", "-1d", "1.5h", "1 month", "5300w", "9" * 400 + "d", "9" * 5000 + "s", "\u0663d"]
)
def test_what_is_no_age_is_told(age: str) -> None:
    with pytest.raises(ValueError, match=r"is no age|is more than 100 years"):
        markers.seconds_of(age)
