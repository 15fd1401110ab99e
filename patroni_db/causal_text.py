"""Causal tokens of several clusters as one text that leaves the process: a cookie, a header, an argument. Pure.

Each token is signed together with the name of its cluster. The text of the cluster ``default`` is that of its signed
token alone. What comes from a client is bounded before it is parsed, and what is wrong with it is told once.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from patroni_db.causal import DEFAULT_CLUSTER, CausalToken
from patroni_db.errors import CausalTokenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Loaded", "dump", "load", "merged"]

# In no token and no quoted name, and allowed in cookies, headers and URLs.
_BETWEEN: Final = "~"
_AFTER_NAME: Final = ":"
_LONGEST: Final = 4000
# No signed token is shorter than this, so no text that we made has more tokens.
_MOST: Final = _LONGEST // 50


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """What :func:`load` found.

    :param tokens: by the name of their cluster
    :param problem: why something was ignored, fit for a log; None if nothing was
    """

    tokens: Mapping[str, CausalToken]
    problem: str | None = None


def dump(tokens: Mapping[str, CausalToken], key: str | bytes) -> str:
    """Return `tokens`, by the name of their cluster, as one text signed with `key`; an empty one for none."""
    return _BETWEEN.join(_prefix(name) + token.signed(key, name) for name, token in sorted(tokens.items()))


def load(texts: Iterable[str | None], keys: Sequence[str | bytes]) -> Loaded:
    """Return the tokens of all texts, of each cluster the latest.

    A text is ignored from the first token on that is none, or was not signed for its cluster with one of `keys`: we
    make no such texts, and a hostile one costs no more than that.

    :param texts: what :func:`dump` returned, or anything else; None and an empty one have no tokens
    :param keys: the secrets that are trusted
    """
    tokens: dict[str, CausalToken] = {}
    problem: str | None = None
    for text in texts:
        try:
            for name, signed in _parts(text or ""):
                tokens[name] = _verified(signed, name, keys).later(tokens.get(name))
        except CausalTokenError as exc:
            problem = problem or str(exc)
    return Loaded(tokens, problem)


def merged(first: Mapping[str, CausalToken], second: Mapping[str, CausalToken]) -> dict[str, CausalToken]:
    """Return the tokens of both, of each cluster the later one."""
    return {**first, **{name: token.later(first.get(name)) for name, token in second.items()}}


def _prefix(name: str) -> str:
    return "" if name == DEFAULT_CLUSTER else quote(name, safe="").replace(_BETWEEN, "%7E") + _AFTER_NAME


def _parts(text: str) -> Iterable[tuple[str, str]]:
    """Return the names and the signed tokens of a text.

    :raises CausalTokenError: it is longer than any that we make
    """
    if not text:
        return []
    if len(text) > _LONGEST:
        raise CausalTokenError(f"a text of {len(text)} characters is longer than causal tokens are")
    if text.count(_BETWEEN) >= _MOST:
        raise CausalTokenError(f"a text of {text.count(_BETWEEN) + 1} parts has more than there are causal tokens")
    split = (part.rpartition(_AFTER_NAME) for part in text.split(_BETWEEN))
    return ((unquote(name) if colon else DEFAULT_CLUSTER, signed) for name, colon, signed in split)


def _verified(signed: str, name: str, keys: Sequence[str | bytes]) -> CausalToken:
    problem: CausalTokenError | None = None
    for key in keys:
        try:
            return CausalToken.verified(signed, key, name)
        except CausalTokenError as exc:
            problem = problem or exc
    raise problem or CausalTokenError("there is no key to verify causal tokens with")
