"""``databases()``: the entries of a cluster for the setting ``DATABASES``. Imported by settings modules, so light."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import ImproperlyConfigured

from patroni_db.config import is_setting

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["databases"]

_TARGET: Final = "patroni_target"
_PRIMARY: Final = "primary"
# What only restricts replicas, and would contradict the target of the primary's alias.
_OF_REPLICAS: Final = frozenset({"patroni_max_lag", "patroni_tags"})


def databases(
    *,
    alias: str = "default",
    replica: str | None = None,
    ENGINE: str = "django_backend",  # noqa: N803 - the name in DATABASES
    OPTIONS: Mapping[str, Any] | None = None,  # noqa: N803 - the name in DATABASES
    **settings: Any,
) -> dict[str, dict[str, Any]]:
    """Return an alias for the primary of a cluster and one for its replicas.

    Several clusters: ``DATABASES = databases(NAME="app", ...) | databases(alias="billing", NAME="billing", ...)``.

    :param alias: the alias that writes, and reads where a replica will not do
    :param replica: the alias that reads; by default ``replica``, or ``<alias>_replica`` when `alias` is not ``default``
    :param ENGINE: another engine that derives from this one (PostGIS)
    :param OPTIONS: ``patroni_*`` settings and the driver's. ``patroni_max_lag``, ``patroni_tags`` and
        ``patroni_target`` (default ``replica_preferred``) are taken for the replicas' alias alone
    :param settings: whatever else an entry of ``DATABASES`` may have, for both
    :raises ImproperlyConfigured: `OPTIONS` would send the replicas' alias to the primary, or a ``patroni_*`` setting is
        not in `OPTIONS`
    """
    misplaced = sorted(filter(is_setting, settings))
    if misplaced:
        raise ImproperlyConfigured(f"databases(): {', '.join(misplaced)} must be in OPTIONS")
    reader = replica or ("replica" if alias == "default" else f"{alias}_replica")
    if reader == alias:
        raise ImproperlyConfigured(f"databases(): alias and replica are both {alias!r}")
    options = dict(OPTIONS or {})
    target = options.pop(_TARGET, "replica_preferred")
    if target == _PRIMARY:
        problem = f"databases(): {_TARGET} is that of alias {reader!r}; {alias!r} always goes to the primary"
        raise ImproperlyConfigured(problem)
    writing = {name: value for name, value in options.items() if name not in _OF_REPLICAS}
    both = {"ENGINE": ENGINE, **settings}
    # A transaction around every view is for the alias that writes: on this one it would only hold a connection.
    reading = {name: value for name, value in both.items() if name != "ATOMIC_REQUESTS"}
    return {
        alias: {**copy.deepcopy(both), "OPTIONS": {**copy.deepcopy(writing), _TARGET: _PRIMARY}},
        reader: {
            **copy.deepcopy(reading),
            "OPTIONS": {**copy.deepcopy(options), _TARGET: target},
            "TEST": {**copy.deepcopy(settings.get("TEST", {})), "MIRROR": alias},
        },
    }
