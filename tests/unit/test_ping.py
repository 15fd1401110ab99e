"""What a server's first message says about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.ping import means_accepting


def error(state: str) -> bytes:
    fields = b"SFATAL\0VFATAL\0C" + state.encode() + b"\0Mwhy\0\0"
    return b"E" + (len(fields) + 4).to_bytes(4, "big") + fields


@pytest.mark.parametrize("state", ["28P01", "28000", "3D000", "53300"])
def test_a_refusal_of_us_comes_from_a_server_that_accepts_others(state: str) -> None:
    assert means_accepting(error(state))


def test_a_server_that_asks_for_a_password_accepts() -> None:
    assert means_accepting(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0")


@pytest.mark.parametrize("answer", [b"", b"E", b"HTTP/1.0 400 Bad Request", error("57P03")])
def test_one_that_starts_or_stops_or_is_something_else_does_not(answer: bytes) -> None:
    assert not means_accepting(answer)


@given(st.binary())
def test_no_answer_is_an_error(answer: bytes) -> None:
    assert means_accepting(answer) in {True, False}
