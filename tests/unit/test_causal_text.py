"""Causal tokens of several clusters as one text: what is believed of it, and what a hostile one costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patroni_db.causal import CausalToken
from patroni_db.causal_text import Loaded, dump, load, merged

TOKENS = st.builds(
    CausalToken,
    st.integers(0, 2**64 - 1).map(str),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
NAMES = st.one_of(st.just("default"), st.text(st.characters(exclude_categories=["Cs"])))
TOKEN, LATER, OTHER = CausalToken("7", 1, 5), CausalToken("7", 1, 9), CausalToken("8", 2, 1)


@given(st.dictionaries(NAMES, TOKENS, max_size=8), st.text(min_size=1))
def test_tokens_survive_their_way_as_text(tokens: dict[str, CausalToken], key: str) -> None:
    text = dump(tokens, key)
    assert text.isascii()
    assert not set(text) & set(' ",;\\')  # as it is in a cookie, a header or a URL
    if len(text) <= 4000:
        assert load([text], ["another", key]) == Loaded(tokens)


def test_the_name_of_a_cluster_is_signed_too() -> None:
    default, billing = dump({"default": TOKEN}, "key"), dump({"billing": TOKEN}, "key")
    for relabelled in (
        f"billing:{default}",
        billing.removeprefix("billing:"),
        billing.replace("billing", "payments"),
        billing.replace("billing", "default"),
        billing.replace("billing", "billing%0d%0aX"),
    ):
        loaded = load([relabelled], ["key"])
        assert loaded.tokens == {}
        assert "signed" in (loaded.problem or "")


def test_what_was_signed_for_the_default_cluster_before_names_were_is_believed() -> None:
    # Of a release that signed no names: the default cluster's token alone stays what it was.
    old = "1.7.1.5.SLC8gBDkn-pjvSSgES_scyvpzrFmYkrIXAyQrOwv2_I"
    assert load([old], ["key"]).tokens == {"default": TOKEN}
    assert load([f"billing:{old}"], ["key"]).tokens == {}


def test_several_texts_give_the_latest_of_each_cluster() -> None:
    texts = [dump({"default": LATER, "x": OTHER}, "key"), None, "", dump({"default": TOKEN}, "key")]
    loaded = load(texts, ["key"])
    assert loaded.tokens == {"default": LATER, "x": OTHER}
    assert loaded.problem is None
    assert merged({"default": LATER}, {"default": TOKEN, "x": OTHER}) == {"default": LATER, "x": OTHER}


@pytest.mark.parametrize("text", ["~" * 4000, "~a" * 2000, "x" * 5000, ":" * 4000, "1.7.1.5~" * 400, "\r\n\x1b[2J~ü"])
def test_a_hostile_text_is_refused_in_one_line_before_it_is_taken_apart(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def count(_cls: type, signed: str) -> CausalToken:
        asked.append(signed)
        return parse(signed)

    parse = CausalToken.parse
    monkeypatch.setattr(CausalToken, "parse", classmethod(count))
    loaded = load([text, text], ["key", "another", "a third"])
    assert loaded.tokens == {}
    assert loaded.problem is not None
    assert loaded.problem.isprintable()
    assert len(loaded.problem) < 300
    assert len(asked) <= 6  # each text once with each key


def test_a_text_is_believed_up_to_what_is_wrong_with_it() -> None:
    good = dump({"default": TOKEN}, "key")
    loaded = load([f"{good}~{good}x~{dump({'x': OTHER}, 'key')}"], ["key"])
    assert loaded.tokens == {"default": TOKEN}
    assert loaded.problem is not None


def test_without_a_key_nothing_is_believed() -> None:
    assert load([dump({"default": TOKEN}, "key")], []).tokens == {}
