"""Causal tokens: their texts, their order, and who shows what they stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.causal import CausalToken, Standing, standing
from patroni_db.errors import CausalTokenError
from patroni_db.lineage import Lineage

TOKENS = st.builds(
    CausalToken,
    st.integers(0, 2**64 - 1).map(str),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
LSNS = st.integers(0, 400)


@given(TOKENS, st.text(min_size=1))
def test_a_token_survives_its_way_as_text(token: CausalToken, key: str) -> None:
    assert CausalToken.parse(str(token)) == token
    signed = token.signed(key)
    assert CausalToken.verified(signed, key) == token
    assert signed.isascii()
    assert not set(signed) & set(' ",;\\%')  # as it is in a cookie, a header or a URL


@given(TOKENS, st.integers(0, 200), st.characters())
def test_a_signed_token_that_was_changed_is_refused(token: CausalToken, at: int, other: str) -> None:
    signed = token.signed("key")
    at %= len(signed)
    changed = signed[:at] + other + signed[at + 1 :]
    if changed != signed:
        with pytest.raises(CausalTokenError):
            CausalToken.verified(changed, "key")


def test_a_token_signed_with_another_key_is_refused() -> None:
    with pytest.raises(CausalTokenError, match="signed"):
        CausalToken.verified(CausalToken("7", 1, 5).signed("one"), "other")


@given(st.text())
def test_any_other_text_is_no_token(text: str) -> None:
    with pytest.raises(CausalTokenError):
        CausalToken.verified(text, "key")
    with pytest.raises(CausalTokenError):
        CausalToken.parse(f"x{text}")


def test_an_endless_text_is_refused_without_being_repeated() -> None:
    with pytest.raises(CausalTokenError) as caught:
        CausalToken.verified("1." + "9" * 10_000_000, "key")
    assert len(str(caught.value)) < 1_000


@given(TOKENS, TOKENS)
def test_tokens_never_go_back(one: CausalToken, other: CausalToken) -> None:
    here = CausalToken("7", one.timeline, one.lsn)
    there = CausalToken("7", other.timeline, other.lsn)
    later = here.later(there)
    assert later == there.later(here)
    assert later.later(here) == later == later.later(there)
    assert here.later(None) == here


def test_the_token_of_a_cluster_that_replaced_another_is_the_later_one() -> None:
    old, new = CausalToken("7", 9, 900), CausalToken("8", 1, 1)
    assert new.later(old) == new


def test_a_replica_that_has_replayed_shows_it() -> None:
    lineage = Lineage("7", 1)
    token = CausalToken("7", 1, 100)
    assert standing(token, lineage, timeline=1, reached=99) is Standing.BEHIND
    assert standing(token, lineage, timeline=1, reached=100) is Standing.REACHED


def test_a_server_on_an_earlier_timeline_does_not_whatever_its_position() -> None:
    assert standing(CausalToken("7", 2, 100), Lineage("7", 2, {1: 90}), timeline=1, reached=500) is Standing.BEHIND


def test_a_token_of_a_lost_timeline_is_recognised() -> None:
    lineage = Lineage("7", 2, {1: 90})
    assert standing(CausalToken("7", 1, 91), lineage, timeline=2, reached=500) is Standing.LOST
    assert standing(CausalToken("7", 1, 90), lineage, timeline=2, reached=500) is Standing.REACHED


def test_a_token_of_another_cluster_is_lost() -> None:
    assert standing(CausalToken("8", 1, 1), Lineage("7", 1), timeline=1, reached=500) is Standing.LOST


def test_nothing_is_believed_of_a_timeline_after_the_known_history() -> None:
    token = CausalToken("7", 1, 100)
    assert standing(token, Lineage("7", 1), timeline=2, reached=500) is Standing.BEHIND
    assert standing(token, None, timeline=2, reached=500) is Standing.BEHIND
    assert standing(token, None, timeline=1, reached=500) is Standing.REACHED
    assert standing(token, None, timeline=None, reached=500) is Standing.BEHIND


@given(
    switches=st.lists(LSNS, max_size=4).map(sorted),
    written=st.tuples(st.integers(1, 5), LSNS),
    server=st.tuples(st.integers(1, 5), LSNS),
    known=st.integers(1, 5),
)
def test_reached_is_only_said_of_servers_that_have_it(
    switches: list[int], written: tuple[int, int], server: tuple[int, int], known: int
) -> None:
    """A model: timeline i is left at switches[i - 1]; the server's log is the path to its own position."""
    last = len(switches) + 1
    (timeline, lsn), (at, reached), known = written, server, min(known, last)
    if timeline > last or at > last:
        return
    lineage = Lineage("7", known, dict(enumerate(switches[: known - 1], start=1)))
    said = standing(CausalToken("7", timeline, lsn), lineage, timeline=at, reached=reached)
    survives = all(lsn <= switch for switch in switches[timeline - 1 :])
    in_its_log = timeline <= at and lsn <= reached and all(lsn <= switch for switch in switches[timeline - 1 : at - 1])
    if said is Standing.REACHED:
        assert in_its_log
    if said is Standing.LOST:
        assert not survives
    if in_its_log and survives and known == last:
        assert said is Standing.REACHED
