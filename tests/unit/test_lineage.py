"""What a cluster's history tells of a place in it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.lineage import Lineage, LineageError, parse_history

# As Patroni 4.1.5 answered after two switchovers; the second row as older versions write it.
HISTORY = [
    [1, 50332512, "no recovery target specified", "2026-11-23T06:24:18.316505+00:00", "n2"],
    [2, 67109024, "no recovery target specified"],
]


def test_the_history_tells_where_each_timeline_was_left() -> None:
    assert parse_history(json.dumps(HISTORY)) == {1: 50332512, 2: 67109024}


def test_a_cluster_that_never_failed_over_has_an_empty_history() -> None:
    assert parse_history(b"[]") == {}


@pytest.mark.parametrize("body", [b"", b"{}", b"[[1]]", b'[["1", 2]]', b"[[1, true]]", b"[[1, -2]]", b"[7]", b"\xff"])
def test_anything_else_is_an_error(body: bytes) -> None:
    with pytest.raises(LineageError):
        parse_history(body)


@given(st.binary())
def test_no_body_raises_anything_else(body: bytes) -> None:
    with contextlib.suppress(LineageError):
        assert isinstance(parse_history(body), dict)


def test_what_was_written_before_a_timeline_was_left_is_held() -> None:
    lineage = Lineage("7", 3, {1: 100, 2: 200})
    assert lineage.holds(1, 100) is True
    assert lineage.holds(1, 101) is False
    assert lineage.holds(2, 150) is True
    assert lineage.holds(3, 10**9) is True


def test_a_timeline_that_is_no_ancestor_is_not_held() -> None:
    assert Lineage("7", 4, {1: 100, 3: 200}).holds(2, 50) is False  # restored to a moment on timeline 1, then promoted


def test_what_the_history_does_not_tell_yet_is_unknown() -> None:
    lineage = Lineage("7", 3, {1: 100})
    assert not lineage.is_complete
    assert lineage.holds(2, 50) is None
    assert lineage.holds(4, 50) is None


def test_what_patroni_no_longer_keeps_is_unknown() -> None:
    assert Lineage("7", 9, {7: 100, 8: 200}).holds(3, 50) is None
