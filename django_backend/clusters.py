"""The discoveries this process keeps alive.

A discovery ends with its last holder, and Django's wrappers come and go with threads (one a request under
``runserver``): without a holder for the whole process every one of them would look at the cluster anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from patroni_db.discovery import Discovery, discovery_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from patroni_db.config import PatroniConfig

__all__ = ["end", "hold", "release"]

_held: Final[dict[str, Discovery]] = {}


def hold(alias: str, config: PatroniConfig) -> Discovery:
    """Return the shared discovery of `config`, and keep it for `alias` until another one takes its place."""
    discovery = discovery_for(config)
    _held[alias] = discovery
    return discovery


def end(aliases: Iterable[str]) -> None:
    """Have nobody look at the clusters of these aliases any more, as they are about to be stopped.

    Whoever still uses a discovery wakes it again.
    """
    for alias in aliases:
        if alias in _held:
            _held[alias].close()


def release() -> None:
    """Hold none any more: their background threads end with the last connection's wrapper."""
    _held.clear()
