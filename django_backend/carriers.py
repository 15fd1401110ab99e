"""Causal tokens as text that leaves the process, by the primary's alias: a cookie, a header, an argument of a job.

``SECRET_KEY`` signs; ``SECRET_KEY_FALLBACKS`` are accepted too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from patroni_db import causal_text
from patroni_db.causal_text import dump, merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from patroni_db.causal import CausalToken

__all__ = ["dump", "load", "load_all", "merged"]

logger = logging.getLogger("patroni_db.django")


def load(text: str | None, keys: Sequence[str | bytes]) -> Mapping[str, CausalToken]:
    """Return the tokens of a text; what is none, or not signed with one of `keys`, is logged and left out."""
    return load_all([text], keys)


def load_all(texts: Sequence[str | None], keys: Sequence[str | bytes]) -> Mapping[str, CausalToken]:
    """Return the tokens of all `texts` together, with one line in the log at most."""
    loaded = causal_text.load(texts, keys)
    if loaded.problem is not None:
        logger.info("a causal token is ignored: %s", loaded.problem)
    return loaded.tokens
