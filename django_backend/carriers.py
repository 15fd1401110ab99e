"""Causal tokens as text that leaves the process: a cookie, a header, an argument of a job. Signed, opaque, and pure.

``SECRET_KEY`` signs; ``SECRET_KEY_FALLBACKS`` are accepted too. The text of the cluster whose primary's alias is
``default`` is that of its signed token alone, so that other frameworks can share it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from django.db import DEFAULT_DB_ALIAS

from patroni_db.causal import CausalToken
from patroni_db.errors import CausalTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["dump", "load", "merged"]

logger = logging.getLogger("patroni_db.django")

# In no token and no quoted alias, and allowed in cookies, headers and URLs.
_BETWEEN: Final = "~"
_AFTER_ALIAS: Final = ":"
_LONGEST: Final = 4000


def dump(tokens: Mapping[str, CausalToken], key: str | bytes) -> str:
    """Return `tokens`, by the primary's alias, as one text; an empty one for none."""
    return _BETWEEN.join(
        token.signed(key)
        if alias == DEFAULT_DB_ALIAS
        else f"{quote(alias, safe='').replace(_BETWEEN, '%7E')}{_AFTER_ALIAS}{token.signed(key)}"
        for alias, token in sorted(tokens.items())
    )


def load(text: str | None, keys: Sequence[str | bytes]) -> dict[str, CausalToken]:
    """Return the tokens of a text; what is none, or not signed with one of `keys`, is logged and left out."""
    tokens: dict[str, CausalToken] = {}
    if not text:
        return tokens
    if len(text) > _LONGEST:
        logger.info("causal tokens of %d characters are ignored", len(text))
        return tokens
    for part in text.split(_BETWEEN):
        quoted, _, signed = part.rpartition(_AFTER_ALIAS)
        token = _verified(signed, keys)
        if token is not None:
            tokens[unquote(quoted) or DEFAULT_DB_ALIAS] = token
    return tokens


def merged(first: Mapping[str, CausalToken], second: Mapping[str, CausalToken]) -> dict[str, CausalToken]:
    """Return the tokens of both, of each cluster the later one."""
    return {**first, **{alias: token.later(first.get(alias)) for alias, token in second.items()}}


def _verified(signed: str, keys: Sequence[str | bytes]) -> CausalToken | None:
    problem: CausalTokenError | None = None
    for key in keys:
        try:
            return CausalToken.verified(signed, key)
        except CausalTokenError as exc:
            problem = problem or exc
    logger.info("a causal token is ignored: %s", problem)
    return None
