"""The settings of an engine: found in its URL or given as ``patroni=``, and checked before anything is connected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import ArgumentError

from patroni_db.config import PatroniConfig, is_setting
from patroni_db.errors import ConfigError
from patroni_db.libpq import ADDRESSING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import URL

__all__ = ["config_of", "refuse_addressing", "without_settings"]

_HINT: Final = (
    "Patroni's REST API says where to connect (patroni_urls); servers to try while no API has ever answered "
    "are named by patroni_fallback_hosts"
)


def config_of(url: URL, patroni: PatroniConfig | None = None) -> PatroniConfig:
    """Return the settings that `url` holds in its query, or `patroni` itself.

    :param patroni: what the application gave as ``create_engine(..., patroni=...)``
    :raises ArgumentError: a setting is unknown, wrong or contradicts another, or the URL names a server
    """
    if url.host or url.port:  # which may be the rest of a password with an "@": it is not shown
        raise ArgumentError(f"the URL must name no host or port, and an @ in its password is written %40: {_HINT}")
    refuse_addressing(url.query, "the URL's query")
    settings = {name: value for name, value in url.query.items() if is_setting(name)}
    if patroni is None:
        try:
            return PatroniConfig.from_options(settings)
        except ConfigError as exc:
            raise ArgumentError(str(exc)) from exc
    if not isinstance(patroni, PatroniConfig):
        raise ArgumentError(f"patroni= takes a PatroniConfig, not {type(patroni).__name__}")
    if settings:
        raise ArgumentError(f"{', '.join(settings)} in the URL contradicts patroni=: give one of the two")
    return patroni


def without_settings(url: URL) -> URL:
    """Return `url` without its ``patroni_*`` settings, as the driver may see it."""
    return url.difference_update_query([name for name in url.query if is_setting(name)])


def refuse_addressing(names: Iterable[str], where: str) -> None:
    """Raise when the user's own driver parameters name a server or a role: what is proposed must not be overruled.

    :param names: the parameters' names
    :param where: where they were found, for the message
    :raises ArgumentError: naming them
    """
    named = sorted(ADDRESSING.intersection(names))
    if named:
        raise ArgumentError(f"{', '.join(named)} must not be in {where}: {_HINT}")
