"""From an entry of ``DATABASES`` to a :class:`~patroni_db.config.PatroniConfig`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from patroni_db.config import PatroniConfig, split_options
from patroni_db.errors import ConfigError
from patroni_db.libpq import ADDRESSING, with_defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "check_driver_options",
    "current_config",
    "declared_config",
    "driver_params",
    "go_to_primary",
    "is_test_database",
    "note_test_database",
]

# In an entry's TEST: the patroni_* settings in force while tests run. The declared ones stay in OPTIONS, as
# they say what the alias is for; entries travel to threads and test processes, attributes of wrappers do not.
_IN_TESTS: Final = "PATRONI_OPTIONS"
# In the TEST of a primary's entry: whether it leads to a test database.
_IS_TEST_DATABASE: Final = "PATRONI_TEST_DATABASE"
_OF_REPLICAS: Final = ("patroni_max_lag", "patroni_tags")


def declared_config(alias: str, entry: Mapping[str, Any]) -> PatroniConfig:
    """Return what the ``OPTIONS`` of `entry` say.

    :param alias: its key in ``DATABASES``, for the error
    :raises ImproperlyConfigured: naming the setting
    """
    return _parse(alias, entry.get("OPTIONS", {}))


def current_config(alias: str, entry: Mapping[str, Any]) -> PatroniConfig:
    """Return what connections of `entry` follow: the declared config, or in tests that of what it mirrors.

    :raises ImproperlyConfigured: naming the setting
    """
    return _parse(alias, entry.get("TEST", {}).get(_IN_TESTS) or entry.get("OPTIONS", {}))


def go_to_primary(entry: dict[str, Any], mirrored: Mapping[str, Any]) -> None:
    """Let `entry` lead to the primary that `mirrored` describes while tests run: a replica would show writes late."""
    theirs = mirrored.get("TEST", {}).get(_IN_TESTS) or mirrored.get("OPTIONS", {})
    options = {**split_options(entry.get("OPTIONS", {}))[0], **split_options(theirs)[0], "patroni_target": "primary"}
    for name in _OF_REPLICAS:
        options.pop(name, None)
    entry.setdefault("TEST", {})[_IN_TESTS] = options


def note_test_database(entry: dict[str, Any], is_one: bool) -> None:  # noqa: FBT001 - one fact
    """Note whether `entry` leads to a test database, which is read on the primary's own connections.

    Some tests never commit what they write, and those that do may not use other aliases than they name.
    """
    entry.setdefault("TEST", {})[_IS_TEST_DATABASE] = is_one


def is_test_database(entry: Mapping[str, Any]) -> bool:
    """Return whether `entry` leads to a test database."""
    return bool((entry.get("TEST") or {}).get(_IS_TEST_DATABASE))


def check_driver_options(alias: str, entry: Mapping[str, Any]) -> None:
    """Check that ``OPTIONS`` of `entry` do not tell the driver which server to use.

    :raises ImproperlyConfigured: naming the option that does
    """
    for name in sorted(ADDRESSING & entry.get("OPTIONS", {}).keys()):
        problem = f"DATABASES[{alias!r}]['OPTIONS'][{name!r}]: Patroni tells which server; see patroni_target"
        raise ImproperlyConfigured(problem)


def driver_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the driver's share of `params`, with our defaults for what the user left open.

    ``HOST`` and ``PORT`` are left out: they mean nothing here (system check patroni.W001).
    """
    _, rest = split_options(params)
    return with_defaults({name: value for name, value in rest.items() if name not in ADDRESSING})


def _parse(alias: str, options: Mapping[str, Any]) -> PatroniConfig:
    try:
        return PatroniConfig.from_options(options)
    except ConfigError as exc:
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]['OPTIONS']: {exc}") from exc
